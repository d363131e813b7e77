"""Options of compression, and the estimate of what rounding costs."""

import numpy as np
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.config.compression import Compression, levels, rounding_error


@pytest.mark.parametrize("bits", [1, 9, 0, -8, True, 4.0, "8"])
@pytest.mark.parametrize("field", ["update_bits", "model_bits"])
def test_bits_outside_of_2_to_8_are_refused(field, bits):
    with pytest.raises(errors.UsageError, match="2 to 8 bits"):
        Compression(**{field: bits})


def test_other_options_that_make_no_sense_are_refused():
    with pytest.raises(errors.UsageError, match="compress_above"):
        Compression(update_bits=8, above=-1)
    with pytest.raises(errors.UsageError, match="compress_model"):
        Compression(update_bits=8, evaluation=True)


def test_large_tensors_of_float32_are_coded():
    compression = Compression(update_bits=8, above=100)
    assert compression.codes("float32", (101,)) and compression.codes(np.float32, (2, 51))
    assert not compression.codes("float32", (100,))
    assert not compression.codes("float64", (1000,)) and not compression.codes(np.dtype(object), (1000,))


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_estimate_of_the_rounding_error_is_what_rounding_makes_of_normal_values(bits):
    rng = np.random.default_rng(bits)
    values = rng.standard_normal(1_000_000)
    steps = values / np.abs(values).max() * levels(bits)
    error = np.floor(steps + rng.random(steps.size)) - steps
    assert rounding_error(bits, steps.size) == pytest.approx(np.linalg.norm(error) / np.linalg.norm(steps), rel=0.2)
