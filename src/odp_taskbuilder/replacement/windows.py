"""The geometry of convolutions and pooling: windows that move over the spatial dimensions of a tensor.

Everything here is written for any number of spatial dimensions and for tensors [batch, *spatial, channels], of which the batch may
be unknown. A tap is one position in the window.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Optional

import tensorflow as tf

from odp_taskbuilder.replacement.equivalent import Node, NoEquivalentError

Tap = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Windows:
    """Where the windows of one op lie. All attributes have one entry per spatial dimension.

    Attributes:
      inputs, outputs: sizes of the op's input and output.
      window: taps of the window.
      strides: distance of two windows.
      dilations: distance of two taps.
      before, after: padding.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def padded(self) -> tuple[int, ...]:
        """Sizes of the input with its padding."""
        return tuple(map(sum, zip(self.before, self.inputs, self.after)))

    @property
    def taps(self) -> list[Tap]:
        """The taps in row-major order."""
        return [*itertools.product(*map(range, self.window))]

    def pad(self, tensor: tf.Tensor, value: float = 0.0) -> tf.Tensor:
        """The input with its padding."""
        return _pad(tensor, self.before, self.after, value)

    def read(self, padded: tf.Tensor, tap: Tap) -> tf.Tensor:
        """What a tap sees: [batch, *outputs, channels]. `padded` may reach further than the windows do."""
        starts = [tap_ * dilation for tap_, dilation in zip(tap, self.dilations)]
        stops = [start + (size - 1) * stride + 1 for start, size, stride in zip(starts, self.outputs, self.strides)]
        slices = [slice(*bounds) for bounds in zip(starts, stops, self.strides)]
        return padded[(slice(None), *slices, slice(None))]

    def add_up(self, parts: Mapping[Tap, tf.Tensor]) -> tf.Tensor:
        """The transpose of `read`, over all taps at once: every part is added where its tap saw it; [batch, *inputs, channels].

        Taps whose offsets leave the same remainder after division by the strides lie on one grid, which they are added on; the grids
        are interleaved by concatenation.
        """
        grid = tuple(max(math.ceil(padded / stride), 1) for padded, stride in zip(self.padded, self.strides))
        sums: dict[Tap, tf.Tensor] = {}
        for tap, part in parts.items():
            offsets = [tap_ * dilation for tap_, dilation in zip(tap, self.dilations)]
            shifts = [offset // stride for offset, stride in zip(offsets, self.strides)]
            remainder = tuple(offset % stride for offset, stride in zip(offsets, self.strides))
            room = [size - shift - output for size, shift, output in zip(grid, shifts, self.outputs)]
            moved = _pad(part, shifts, room)
            sums[remainder] = sums[remainder] + moved if remainder in sums else moved
        zeros = tf.zeros_like(next(iter(sums.values())))
        channels = zeros.shape[-1]
        rows = {remainder: sums.get(remainder, zeros) for remainder in itertools.product(*map(range, self.strides))}
        for axis in range(len(grid) - 1, -1, -1):
            rows = {
                key: _interleave([rows[(*key, i)] for i in range(self.strides[axis])], axis + 1, channels)
                for key in dict.fromkeys(remainder[:-1] for remainder in rows)
            }
        (whole,) = rows.values()
        slices = [slice(before, before + size) for before, size in zip(self.before, self.inputs)]
        return whole[(slice(None), *slices, slice(None))]


def _interleave(tensors: Sequence[tf.Tensor], axis: int, channels: int) -> tf.Tensor:
    """Element i of the result along `axis` comes from tensor i modulo their number."""
    if len(tensors) == 1:
        return tensors[0]
    outer, size, inner = tensors[0].shape[1:axis], tensors[0].shape[axis], tensors[0].shape[axis + 1 :]
    flat = [tf.reshape(tensor, [-1, *outer, size, inner.num_elements()]) for tensor in tensors]
    return tf.reshape(tf.concat(flat, axis=-1), [-1, *outer, size * len(tensors), *inner])


def _pad(tensor: tf.Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> tf.Tensor:
    """Pads the spatial dimensions; a negative number behind them cuts off."""
    stops = [size + min(room, 0) for size, room in zip(tensor.shape[1:-1], after)]
    if any(room < 0 for room in after):
        tensor = tensor[(slice(None), *(slice(0, stop) for stop in stops), slice(None))]
    after = [max(room, 0) for room in after]
    if not any((*before, *after)):
        return tensor
    return tf.pad(tensor, [(0, 0), *zip(before, after), (0, 0)], constant_values=value)


def windows_of(
    node: Node,
    inputs: Sequence[Optional[int]],
    outputs: Sequence[Optional[int]],
    window: Sequence[Optional[int]],
    *,
    has_dilations: bool,
) -> Windows:
    """Reads the attributes `strides`, `padding`, `dilations` and `explicit_paddings` of a channels-last node.

    Args:
      inputs, outputs, window: sizes along the spatial dimensions.

    Raises:
      NoEquivalentError: one of them is unknown.
    """
    if None in (*inputs, *outputs, *window):
        raise NoEquivalentError("a height, width, depth or length is unknown")
    strides = tuple(node.attr("strides")[1:-1])
    dilations = tuple(node.attr("dilations")[1:-1]) if has_dilations else (1,) * len(strides)
    before, after = zip(*_paddings(node, inputs, outputs, window, strides, dilations))
    return Windows(tuple(inputs), tuple(outputs), tuple(window), strides, dilations, before, after)


def _paddings(
    node: Node, inputs: Sequence[int], outputs: Sequence[int], window: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Iterator[tuple[int, int]]:
    kind = node.attr("padding")
    explicit = node.attr("explicit_paddings") if kind == "EXPLICIT" else []
    for axis, (size, output, taps, stride, dilation) in enumerate(zip(inputs, outputs, window, strides, dilations)):
        if kind == "EXPLICIT":
            yield tuple(explicit[2 * axis + 2 : 2 * axis + 4])
        elif kind == "SAME":
            total = max((output - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
            yield total // 2, total - total // 2
        else:
            yield 0, 0


def require_channels_last(node: Node) -> None:
    """Raises NoEquivalentError for layouts that TensorFlow's own kernels for the CPU do not run either."""
    if not node.attr("data_format").endswith("C"):
        raise NoEquivalentError(f"its channels come first ({node.attr('data_format')})")
