"""Sizes that phones limit, told from a model's input spec."""

import hypothesis
import hypothesis.strategies as st
import numpy as np

from odp_taskbuilder.artifacts import phone_fit
from odp_taskbuilder.artifacts.tensors import TensorSpec, checkpoint_bytes
from odp_taskbuilder.base.phone_limits import MAX_EXAMPLE_BYTES
from odp_taskbuilder.data import examples
from odp_taskbuilder.model.input_spec import ModelSpec, TensorInfo

# The longest value of each kind; strings are counted without their bytes.
_LONGEST = {"float32": np.float32(1), "int64": np.int64(-1), "int32": np.int64(-1), "string": b""}
_TENSORS = st.builds(
    lambda dtype, shape: TensorInfo(dtype, (None, *shape)),
    st.sampled_from(list(_LONGEST)),
    st.lists(st.integers(1, 40), max_size=2),
)


@hypothesis.given(
    st.dictionaries(st.text(min_size=1, max_size=200).filter(lambda name: name.isprintable()), _TENSORS, min_size=1, max_size=5)
)
def test_the_largest_example_has_that_size(features):
    largest = {}
    for name, info in features.items():
        kind = np.dtype(object) if info.dtype == "string" else None
        largest[name] = np.full(info.shape[1:], _LONGEST[info.dtype], dtype=kind)
    assert len(examples.encode(largest)) == phone_fit.example_bytes(features)


def test_an_image_of_112_by_112_pixels_is_the_first_beyond_the_limit():
    def notices(side):
        model = ModelSpec(
            TensorInfo("float32", (None, side, side, 1)), TensorInfo("int64", (None, 1)), TensorInfo("float32", (None, 1))
        )
        return phone_fit.phone_notices(model, None)

    assert notices(111) == ()
    (notice,) = notices(112)
    assert "may take 50," in notice and f"above {MAX_EXAMPLE_BYTES:,} bytes" in notice


def test_the_checkpoint_of_a_model_is_as_large_as_its_weights_and_a_little_more():
    weights = (TensorInfo("float32", (1000, 50)), TensorInfo("float64", (20,)), TensorInfo("int64", (7,)))
    model = ModelSpec(
        TensorInfo("float32", (None, 1)), TensorInfo("float32", (None, 1)), TensorInfo("float32", (None, 1)), weights
    )
    assert phone_fit.weight_bytes(model) == 200_000 + 160 + 7
    specs = [TensorSpec(f"client/0/{index}", weight.dtype, weight.shape) for index, weight in enumerate(weights)]
    assert 0 < checkpoint_bytes(specs) - phone_fit.weight_bytes(model) < 600
