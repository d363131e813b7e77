"""What of a model travels in codes: sentences for a report, what an epsilon assumes of it, and codes in files decoded. Needs no TensorFlow."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Union

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts.tensors import TensorSpec
from odp_taskbuilder.config.compression import CODES, DEFAULT_MODEL_BITS, MAX_BITS, SCALE, Compression, levels, rounding_error
from odp_taskbuilder.config.spec import PlanForm, TaskSpec
from odp_taskbuilder.model.input_spec import TensorInfo, read_model_spec
from odp_taskbuilder.privacy import PrivacyBudget
from odp_taskbuilder.privacy.assumptions import rounding_assumption

# Codes of so few bits are warned of where rounding moves the mean over a round by this much of its length.
_FEW_BITS = 3
_LARGE_ERROR = 0.1
# A model of 4 bits costs the example in docs/compression.md three points of accuracy.
_FEW_MODEL_BITS = 4


@dataclasses.dataclass(frozen=True)
class CodedTensors:
    """Which of some tensors travel in codes.

    Attributes:
      sizes: numbers of elements of those that do.
      total_tensors, total_values: all of them.
    """

    sizes: tuple[int, ...]
    total_tensors: int
    total_values: int

    def __str__(self) -> str:
        return f"{len(self.sizes)} of {self.total_tensors} tensors with {sum(self.sizes):,} of {self.total_values:,} values"


def coded_tensors(tensors: Sequence[TensorInfo], compression: Compression) -> CodedTensors:
    """Which of a model's weights travel in codes where codes are asked for."""
    sizes = [tensor.num_values for tensor in tensors]
    coded = tuple(size for tensor, size in zip(tensors, sizes) if tensor.dtype == "float32" and compression.codes("float32", (size,)))
    return CodedTensors(coded, len(sizes), sum(sizes))


def unzigzag(codes: Any) -> Any:
    """The integers that codes stand for, whose last bit is the sign. An array of signed integers, of NumPy or JAX."""
    return (codes >> 1) ^ -(codes & 1)


def decoded(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a file, with codes multiplied out in float64 under the name that they stand below."""
    plain = {}
    for name, value in tensors.items():
        base, _, last = name.rpartition("/")
        if last == CODES and f"{base}/{SCALE}" in tensors:
            plain[base] = unzigzag(value.astype(np.int64)) * np.float64(tensors[f"{base}/{SCALE}"])
        elif not (last == SCALE and f"{base}/{CODES}" in tensors):
            plain[name] = value
    return plain


def uncoded(tensors: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The tensors of a file as they would be without compression: float32 in place of codes and scale."""
    by_name = {tensor.name: tensor for tensor in tensors}
    plain = []
    for name, tensor in by_name.items():
        base, _, last = name.rpartition("/")
        if last == CODES and f"{base}/{SCALE}" in by_name:
            plain.append(TensorSpec(base, "float32", tensor.shape))
        elif not (last == SCALE and f"{base}/{CODES}" in by_name):
            plain.append(tensor)
    return tuple(plain)


def with_what_travels(
    spec: TaskSpec, budget: PrivacyBudget, saved_model: Union[str, os.PathLike], compression: Compression
) -> tuple[TaskSpec, PrivacyBudget]:
    """The spec with notices of what travels in codes, and the budget with what that means for its epsilon."""
    if not compression.is_on:
        return spec, budget
    try:
        model = read_model_spec(saved_model)
    except errors.ModelError:  # Loading says what it is that it is not.
        return spec, budget
    updates = coded_tensors(model.trainable, compression)
    if compression.update_bits is not None and spec.mode.trains:
        spec = spec.with_notices(_about_updates(spec, budget, updates, compression))
        if updates.sizes and budget.aggregator is not None:
            sentence = rounding_assumption(compression.update_bits, str(updates))
            budget = dataclasses.replace(budget, assumptions=(*budget.assumptions, sentence))
    if compression.model_bits is not None:
        spec = spec.with_notices(_about_model(spec, coded_tensors(model.weights, compression), compression))
    return spec, budget


def _about_updates(spec: TaskSpec, budget: PrivacyBudget, coded: CodedTensors, compression: Compression) -> Iterator[str]:
    bits, goal = compression.update_bits, spec.privacy.report_goal
    if not coded.sizes:
        yield f"--compress_updates has no effect: {_nothing_above(compression)}"
        return
    error = rounding_error(bits, max(coded.sizes))
    mean_error = error / math.sqrt(goal)
    yield (
        f"Of an update, {coded} travel in {bits} bits. Of values that are normally distributed, rounding moves one update by "
        f"{error:.2g} of its length and the mean of {goal:,} by {mean_error:.2g}, and shortens both to {1 / math.hypot(1, error):.3g} of it."
    )
    if spec.form is PlanForm.DISTRIBUTE_AGGREGATE:
        yield (
            "Servers cannot decode in DistributeAggregate form: phones do, and send float32 values on a grid (grid mode). Such a file is as large as "
            "without compression, and gzip, which phones apply to it, makes it small."
        )
    if bits <= _FEW_BITS and mean_error >= _LARGE_ERROR:
        yield f"Warning: {_rounding_is_large(bits, goal, mean_error, budget, coded)}"


def _rounding_is_large(bits: int, goal: int, mean_error: float, budget: PrivacyBudget, coded: CodedTensors) -> str:
    noise = budget.noise_multiplier * math.sqrt(coded.total_values) / goal
    beside = f"; the noise moves it by {noise:.2g} of the clip" if budget.aggregator is not None else ""
    dominates = "more than the noise does" if budget.aggregator is not None and mean_error > noise else "which may slow training down"
    return (
        f"with {bits} bits, rounding moves the mean of {goal:,} updates by {mean_error:.2g} of its length, {dominates}{beside}. Take more bits, up to "
        f"{MAX_BITS}, or a larger report_goal."
    )


def _about_model(spec: TaskSpec, coded: CodedTensors, compression: Compression) -> Iterator[str]:
    if not coded.sizes:
        yield f"--compress_model has no effect: {_nothing_above(compression)}"
        return
    if not (spec.mode.trains or compression.evaluation):
        yield "--compress_model has no effect on an evaluation task without --compress_evaluation."
        return
    whom = "Phones" if compression.evaluation or not spec.mode.evaluates else "Phones that train"
    yield f"{whom} download {coded} in {compression.model_bits} bits, rounded to the nearest. The server keeps the model as it is."
    if compression.model_bits <= _FEW_MODEL_BITS:
        yield (
            f"Warning: with {compression.model_bits} bits, rounding moves the model that phones get by {1 / (2 * levels(compression.model_bits)):.2g} of its length, of "
            f"weights that are uniformly distributed. Averaging over phones does not mend it: all get the same. Take {DEFAULT_MODEL_BITS} bits, which "
            f"move it by {1 / (2 * levels(DEFAULT_MODEL_BITS)):.2g}."
        )
    if compression.evaluation and spec.mode.evaluates:
        yield "Evaluation metrics are those of the rounded model (--compress_evaluation)."


def _nothing_above(compression: Compression) -> str:
    return f"the model has no tensor of float32 with more than {compression.above:,} elements (--compress_above)."
