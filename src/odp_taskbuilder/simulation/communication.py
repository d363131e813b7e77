"""What a run sends and receives: the sizes of the files themselves, and of what phones and servers make of them with gzip on the way."""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Mapping
from typing import BinaryIO, Union

from odp_taskbuilder.metrics.run import COMMUNICATION_PREFIX, TRAINING_BYTES, TRAINING_WIRE_BYTES

# What Java's GZIPOutputStream does on phones, and gzip where nothing else is said; the second number asks zlib for gzip's frame.
_GZIP_LEVEL, _GZIP_WINDOW = 6, 16 + zlib.MAX_WBITS
_CHUNK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Communication:
    """Bytes between the server and the clients of one task.

    Attributes:
      broadcast: downloaded by all clients together: plan and checkpoint.
      aggregated: uploaded by all clients together.
      broadcast_wire, aggregated_wire: of the same files after gzip, uploads estimated from one in each round; 0 where nobody looked.
    """

    broadcast: int = 0
    aggregated: int = 0
    broadcast_wire: int = 0
    aggregated_wire: int = 0

    def __add__(self, other: Communication) -> Communication:
        return Communication(*(mine + theirs for mine, theirs in zip(dataclasses.astuple(self), dataclasses.astuple(other))))


def gzip_size(file: BinaryIO) -> int:
    """The number of bytes that gzip makes of a file's content; 20 to 30 MB take a second."""
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    size = 0
    while chunk := file.read(_CHUNK_BYTES):
        size += len(compressor.compress(chunk))
    return size + len(compressor.flush())


def gzip_size_of(path: Union[str, os.PathLike]) -> int:
    """As `gzip_size`. Raises OSError."""
    with open(path, "rb") as file:
        return gzip_size(file)


def communication_metrics(round_: Communication, total: Communication, clients: int, reports: int) -> dict[str, float]:
    """A round's communication as metrics: bytes and bits, per client, per round, and up to and with this round; bytes after gzip where
    they are known.

    Args:
      total: of all rounds so far, this one included.
      clients: that downloaded.
      reports: clients that uploaded.
    """
    values = {}
    for direction, parties in (("broadcast", clients), ("aggregated", reports)):
        units = [("bytes", direction, 1), ("bits", direction, 8)]
        if getattr(round_, f"{direction}_wire"):
            units.append(("wire_bytes", f"{direction}_wire", 1))
        for unit, name, factor in units:
            round_bytes, total_bytes = getattr(round_, name), getattr(total, name)
            values[f"{COMMUNICATION_PREFIX}{direction}_{unit}_per_client"] = float(factor * round_bytes / max(1, parties))
            values[f"{COMMUNICATION_PREFIX}{direction}_{unit}"] = float(factor * round_bytes)
            values[f"{COMMUNICATION_PREFIX}{direction}_{unit}_cumulative"] = float(factor * total_bytes)
    return values


def training_metrics(training: Communication) -> dict[str, float]:
    """What training has cost until a round of either task, both ways: what a metric of the round is plotted over.

    Args:
      training: of all training rounds so far.
    """
    values = {TRAINING_BYTES: float(training.broadcast + training.aggregated)}
    if training.broadcast_wire and training.aggregated_wire:
        values[TRAINING_WIRE_BYTES] = float(training.broadcast_wire + training.aggregated_wire)
    return values


def cumulative(metrics: Mapping[str, float]) -> Communication:
    """The total that a round's metrics state."""
    names = ("broadcast_bytes", "aggregated_bytes", "broadcast_wire_bytes", "aggregated_wire_bytes")
    return Communication(*(int(metrics.get(f"{COMMUNICATION_PREFIX}{name}_cumulative", 0)) for name in names))
