"""What a run sends and receives, taken from the sizes of the files themselves: before compression and encryption on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from odp_taskbuilder.metrics.run import COMMUNICATION_PREFIX


@dataclasses.dataclass(frozen=True)
class Communication:
    """Bytes between the server and the clients of one task.

    Attributes:
      broadcast: downloaded by all clients together: plan and checkpoint.
      aggregated: uploaded by all clients together.
    """

    broadcast: int = 0
    aggregated: int = 0

    def __add__(self, other: Communication) -> Communication:
        return Communication(self.broadcast + other.broadcast, self.aggregated + other.aggregated)


def communication_metrics(round_: Communication, total: Communication, clients: int, reports: int) -> dict[str, float]:
    """A round's communication as metrics: bytes and bits, per client, per round, and up to and with this round.

    Args:
      total: of all rounds so far, this one included.
      clients: that downloaded.
      reports: clients that uploaded.
    """
    values = {}
    for direction, round_bytes, total_bytes, parties in (
        ("broadcast", round_.broadcast, total.broadcast, clients),
        ("aggregated", round_.aggregated, total.aggregated, reports),
    ):
        for unit, factor in (("bytes", 1), ("bits", 8)):
            values[f"{COMMUNICATION_PREFIX}{direction}_{unit}_per_client"] = float(factor * round_bytes / max(1, parties))
            values[f"{COMMUNICATION_PREFIX}{direction}_{unit}"] = float(factor * round_bytes)
            values[f"{COMMUNICATION_PREFIX}{direction}_{unit}_cumulative"] = float(factor * total_bytes)
    return values


def cumulative(metrics: Mapping[str, float]) -> Communication:
    """The total that a round's metrics state."""
    return Communication(
        int(metrics.get(f"{COMMUNICATION_PREFIX}broadcast_bytes_cumulative", 0)),
        int(metrics.get(f"{COMMUNICATION_PREFIX}aggregated_bytes_cumulative", 0)),
    )
