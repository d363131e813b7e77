"""Decompression of Snappy blocks, in which newer TensorFlow releases store the index of variables.

Format: google/snappy `format_description.txt`. An index has a few kilobytes; this is written for safety, not for speed.
"""

from __future__ import annotations


def decompress(data: bytes, limit: int) -> bytes:
    """Returns the content of one raw Snappy block.

    Raises:
      ValueError: the block is malformed, or its content is longer than `limit` bytes.
    """
    try:
        return _decompress(data, limit)
    except IndexError:
        raise ValueError("a compressed block is cut off") from None


def _decompress(data: bytes, limit: int) -> bytes:
    expected, position = _length(data)
    if expected > limit:
        raise ValueError(f"a compressed block has {expected} bytes; at most {limit} are read")
    out = bytearray()
    while position < len(data):
        tag = data[position]
        position += 1
        kind, upper = tag & 3, tag >> 2
        if kind == 0:
            position = _literal(data, position, upper, out)
            continue
        if kind == 1:
            length, offset = 4 + (upper & 7), (upper >> 3) << 8 | data[position]
            position += 1
        else:
            width = 2 if kind == 2 else 4
            length, offset = 1 + upper, int.from_bytes(data[position : position + width], "little")
            position += width
        if not 0 < offset <= len(out):
            raise ValueError("a compressed block refers to bytes before its start")
        # Source and destination may overlap: a short pattern repeats itself.
        start = len(out) - offset
        pattern = out[start : start + length]
        out += (pattern * (length // len(pattern) + 1))[:length]
        if len(out) > expected:
            break
    if len(out) != expected:
        raise ValueError("a compressed block does not have the length that it states")
    return bytes(out)


def _literal(data: bytes, position: int, upper: int, out: bytearray) -> int:
    """Copies bytes that stand for themselves; returns the position behind them."""
    length = upper + 1
    if upper >= 60:
        width = upper - 59
        length = int.from_bytes(data[position : position + width], "little") + 1
        position += width
    if position + length > len(data):
        raise IndexError
    out += data[position : position + length]
    return position + length


def _length(data: bytes) -> tuple[int, int]:
    value = 0
    for position in range(5):
        value |= (data[position] & 0x7F) << (7 * position)
        if data[position] < 0x80:
            return value, position + 1
    raise ValueError("the length of a compressed block is too long")
