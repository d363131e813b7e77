"""More clients than there is data of: each one draws its examples, with repetition, from those of one client that there is."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Optional

import numpy as np

from odp_taskbuilder.data.client_data import ClientData

# Of the clients that were drawn from last, in memory.
_MAX_KEPT_BYTES = 16 << 20


class RepeatedClientData(ClientData):
    """Clients `repeated_0...`, made when they are asked for; their ids alone are in memory, and up to 16 MiB of what they draw from.

    A client's examples depend on the seed, its position and the data drawn from, not on other clients. What clients have in common stays:
    each has examples of a single one, so that labels are as uneven as they were.
    """

    def __init__(self, data: ClientData, num_clients: int, num_examples: Optional[int], seed: int):
        """
        Args:
          data: has at least one client.
          num_examples: of each client; None: as many as the client has that it draws from.
        """
        self.source = data.source
        self._data = data
        self._num_examples = num_examples
        self._seed = seed
        width = len(str(num_clients - 1))
        self._positions = {f"repeated_{position:0{width}d}": position for position in range(num_clients)}
        self.client_ids = tuple(self._positions)
        self._kept: collections.OrderedDict[str, list[bytes]] = collections.OrderedDict()
        self._kept_bytes = 0

    def num_examples(self, client_id: str) -> int:
        origin, _ = self._drawn_from(client_id)
        found = self._data.num_examples(origin)
        return found if self._num_examples is None or not found else self._num_examples

    def examples(self, client_id: str) -> Iterator[bytes]:
        origin, rng = self._drawn_from(client_id)
        pool = self._pool(origin)
        if pool:
            for position in rng.integers(len(pool), size=len(pool) if self._num_examples is None else self._num_examples):
                yield pool[position]

    def fingerprint(self) -> str:
        return repr((self._data.fingerprint(), len(self.client_ids), self._num_examples, self._seed))

    def location(self, client_id: str) -> str:
        return self._data.location(self._drawn_from(client_id)[0])

    def _drawn_from(self, client_id: str) -> tuple[str, np.random.Generator]:
        rng = np.random.default_rng([self._seed, self._positions[client_id]])
        return self._data.client_ids[rng.integers(len(self._data.client_ids))], rng

    def _pool(self, origin: str) -> list[bytes]:
        if origin not in self._kept:
            self._kept[origin] = list(self._data.examples(origin))
            self._kept_bytes += sum(map(len, self._kept[origin]))
            while self._kept_bytes > _MAX_KEPT_BYTES and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._kept_bytes -= sum(map(len, oldest))
        self._kept.move_to_end(origin)
        return self._kept[origin]
