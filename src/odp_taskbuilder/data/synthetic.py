"""Made-up client data that fits a plan: for trying out what runs, not what is learnt."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from odp_taskbuilder.data import examples
from odp_taskbuilder.data.client_data import ClientData


@dataclasses.dataclass(frozen=True)
class Feature:
    """One feature that a plan parses.

    Attributes:
      name: its key in the Example.
      kind: float32, int64 or string.
      shape: of one example, without the batch axis.
    """

    name: str
    kind: str
    shape: tuple[int, ...]


class SyntheticClientData(ClientData):
    """Independent uniform values: float32 in [0, 1), int64 in [0, classes), string a decimal number in that range.

    A client's examples depend on the seed and its position only; they are made when they are asked for.
    """

    def __init__(self, features: Sequence[Feature], num_clients: int, num_examples: int, classes: int, seed: int):
        self.source = "synthetic"
        self._features = tuple(features)
        self._num_examples = num_examples
        self._classes = classes
        self._seed = seed
        width = len(str(num_clients - 1))
        self._positions = {f"client_{position:0{width}d}": position for position in range(num_clients)}
        self.client_ids = tuple(self._positions)

    def num_examples(self, client_id: str) -> int:
        return self._num_examples

    def examples(self, client_id: str) -> Iterator[bytes]:
        rng = np.random.default_rng([self._seed, self._positions[client_id]])
        for _ in range(self._num_examples):
            yield examples.encode({feature.name: self._values(rng, feature) for feature in self._features})

    def fingerprint(self) -> str:
        return repr((self._features, len(self.client_ids), self._num_examples, self._classes, self._seed))

    def _values(self, rng: np.random.Generator, feature: Feature) -> np.ndarray:
        if feature.kind == "float32":
            return rng.random(feature.shape, dtype=np.float32)
        integers = rng.integers(self._classes, size=feature.shape)
        return integers if feature.kind == "int64" else integers.astype(str)
