"""Lossy compression of what phones send and receive: which tensors, in how many bits.

Not part of the task config, whose schema existing servers share: an option of the build (`BuildOptions.compression`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Optional

from odp_taskbuilder import errors
from odp_taskbuilder.base.keyword_only import keyword_only

MIN_BITS, MAX_BITS = 2, 8
# Of a model: one byte each in a checkpoint, whose integers take two from 128 on, and freshly initialised weights reach that with 8 bits.
DEFAULT_MODEL_BITS = 7
DEFAULT_ABOVE = 10_000
# Names of the two tensors that take the place of one in files, below its name.
CODES, SCALE = "codes", "scale"


@keyword_only
@dataclasses.dataclass(frozen=True)
class Compression:
    """Which tensors travel as codes instead of float32.

    Attributes:
      update_bits: of a code in what phones send, 2 to 8; None sends updates as they are.
      model_bits: of a code in what phones receive, 2 to 8; None sends the model as it is.
      above: tensors of float32 with more elements than this are coded, all others travel as they are.
      evaluation: phones that evaluate receive codes, too, and their metrics are those of the rounded model.

    Raises:
      errors.UsageError: a number is out of range, or `evaluation` goes without `model_bits`.
    """

    update_bits: Optional[int] = None
    model_bits: Optional[int] = None
    above: int = DEFAULT_ABOVE
    evaluation: bool = False

    def __post_init__(self) -> None:
        for name, bits in (("compress_updates", self.update_bits), ("compress_model", self.model_bits)):
            if bits is not None and not (_is_integer(bits) and MIN_BITS <= bits <= MAX_BITS):
                raise errors.UsageError(f"{name} takes {MIN_BITS} to {MAX_BITS} bits, found {bits!r}.")
        if not _is_integer(self.above) or self.above < 0:
            raise errors.UsageError(f"compress_above takes a number of elements, 0 or more, found {self.above!r}.")
        if self.evaluation and self.model_bits is None:
            raise errors.UsageError(
                "compress_evaluation sends a compressed model to phones that evaluate, and no compress_model says in how many bits.",
                next_step="State both, or leave compress_evaluation out.",
            )

    @property
    def is_on(self) -> bool:
        return self.update_bits is not None or self.model_bits is not None

    def codes(self, dtype: object, shape: Sequence[int]) -> bool:
        """Whether a tensor of such dtype (its name, or NumPy's dtype or class) and shape travels as codes."""
        return getattr(dtype, "__name__", str(dtype)) == "float32" and math.prod(shape) > self.above


def levels(bits: int) -> int:
    """The largest magnitude of a code: codes are the integers from -levels to levels."""
    return 2 ** (bits - 1) - 1


def rounding_error(bits: int, num_values: int) -> float:
    """The length of an update's rounding error over its own, for normally distributed values; learning/compression.py says how it is rounded.

    In steps, the values' standard deviation is L over the largest of `num_values` deviates, about sqrt(2 ln(num_values)). Rounding y with
    a dither adds the variance f (1 - f), f the fraction of y: 1/6 on average where values spread over many steps, E|y| - E[y^2] where
    they stay within one.

    >>> [round(rounding_error(bits, 1_606_144), 3) for bits in (8, 4, 2)]
    [0.017, 0.312, 1.807]
    """
    deviation = levels(bits) / math.sqrt(2 * math.log(max(2, num_values)))
    variance = min(1 / 6, max(0.0, math.sqrt(2 / math.pi) * deviation - deviation**2)) if deviation < 0.5 else 1 / 6
    return math.sqrt(variance) / deviation


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
