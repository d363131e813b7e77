"""What inspect, verify and diff say of tensors that travel in codes, told from their names and files."""

import numpy as np
import pytest

from odp_taskbuilder.artifacts.coded_tensors import decoded, uncoded
from odp_taskbuilder.artifacts.tensors import TensorSpec
from odp_taskbuilder.inspection.wild_clients import check_update

UPDATE = {
    "update/0/loss/0": np.float32(3),
    "update/1/0/codes": np.array([[0, 1], [2, 254]], np.int32),
    "update/1/0/scale": np.float32(0.5),
    "update/1/1": np.array([3.0, 4.0], np.float32),
}


def test_codes_are_decoded_under_the_name_that_they_stand_below():
    tensors = decoded(UPDATE)
    assert list(tensors) == ["update/0/loss/0", "update/1/0", "update/1/1"]
    np.testing.assert_array_equal(tensors["update/1/0"], [[0, -0.5], [0.5, 63.5]])


def test_a_tensor_that_is_only_called_codes_stays():
    tensors = {"update/1/codes": np.array([1], np.int32), "update/scale": np.float32(2)}
    assert decoded(tensors) == tensors


def test_the_norm_of_an_update_is_that_of_its_decoded_codes():
    norm = np.sqrt(2 * 0.25 + 63.5**2 + 25)
    assert check_update("ordinary", UPDATE, clip=70.0).norm == pytest.approx(norm, rel=1e-12)
    adaptive = {name.replace("update/1/", "update/1/sum_state/"): value for name, value in UPDATE.items()}
    assert check_update("ordinary", adaptive, clip=70.0).norm == pytest.approx(norm, rel=1e-12)


def test_a_scale_that_is_not_finite_is_found():
    assert check_update("wild", {**UPDATE, "update/1/0/scale": np.float32(np.inf)}, clip=1.0).not_finite == ("update/1/0/scale",)


def test_files_are_told_as_they_would_be_without_codes():
    specs = [TensorSpec(name, str(np.asarray(value).dtype), np.shape(value)) for name, value in UPDATE.items()]
    assert [str(tensor) for tensor in uncoded(specs)] == ["update/0/loss/0 float32[]", "update/1/0 float32[2, 2]", "update/1/1 float32[2]"]
