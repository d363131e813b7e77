"""A part of client data: fewer clients, fewer examples of each."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Optional

import numpy as np

from odp_taskbuilder.data.client_data import ClientData


@dataclasses.dataclass(frozen=True)
class DataPart:
    """A data argument and what of it is taken.

    Attributes:
      text: the data argument (data_spec).
      share: of the clients, in (0, 1]; at least one is taken. Of the same seed, a smaller share is part of a larger one.
      max_examples: the first examples of each client, so many at most; None takes all.
      seed: of the choice of clients.
    """

    text: str
    share: float = 1.0
    max_examples: Optional[int] = None
    seed: int = 0


class PartOfClientData(ClientData):
    """Another ClientData, of which a part is taken."""

    def __init__(self, inner: ClientData, part: DataPart):
        self.source = inner.source
        self._inner = inner
        self._part = part
        ids = inner.client_ids
        order = np.random.default_rng(part.seed).permutation(len(ids))[: max(1, math.ceil(part.share * len(ids)))]
        self.client_ids = tuple(ids[position] for position in np.sort(order))

    def num_examples(self, client_id: str) -> int:
        number = self._inner.num_examples(client_id)
        return number if self._part.max_examples is None else min(number, self._part.max_examples)

    def examples(self, client_id: str) -> Iterator[bytes]:
        return itertools.islice(self._inner.examples(client_id), self._part.max_examples)

    def fingerprint(self) -> str:
        part = self._part
        return f"{self._inner.fingerprint()} {part.share} {part.max_examples} {part.seed}"

    def location(self, client_id: str) -> str:
        return self._inner.location(client_id)
