"""Clients whose examples nobody would send, and whether what they report is finite and within the clip.

An epsilon rests on the clip: whatever a phone's data, its update is not longer (spec: privacy.md, section 8). A plan whose clip holds for
ordinary values only looks like any other until it is run on others.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Optional

import numpy as np

from odp_taskbuilder.artifacts.coded_tensors import decoded
from odp_taskbuilder.data import examples
from odp_taskbuilder.data.synthetic import Feature

# Not finite; a time in milliseconds; beyond the root of the largest float32; the largest float32.
_FLOATS = (math.nan, math.inf, -math.inf, 1.75e12, 1e25, float(np.finfo(np.float32).max))
# As labels they are no class; as ids they are in no table.
_INTEGERS = (-1, 1000, 2**62, -(2**63))
# More than one step of training wherever batches are this small.
_EXAMPLES = 3
# What the clip of a float32 update may be passed by.
_ROUNDING = 1e-6
# Where clients find the clip among what they are sent; the tree aggregators' limit for zeroing stands before it. A task without
# differential privacy sends weights only.
_CLIPS = ("client/2/sum_params", "client/2", "client/1/sum_params", "client/1")
_UPDATE = re.compile(r"update/1/(sum_state/)?\d+")


@dataclasses.dataclass(frozen=True)
class WildUpdate:
    """What one wild client reported.

    Attributes:
      client: what is unusual about its examples.
      failure: why it reported nothing; None if it did.
      not_finite: names of the tensors with values that are not.
      norm: L2 norm of the update; None where the task has no clip, the client reported nothing, a value is not finite, or no weights are
        found in it.
    """

    client: str
    failure: Optional[str]
    not_finite: tuple[str, ...]
    norm: Optional[float]


@dataclasses.dataclass(frozen=True)
class WildUpdates:
    """What all of them did, and the clip that they were sent: None for a task without differential privacy."""

    clip: Optional[float]
    updates: tuple[WildUpdate, ...]

    def problems(self) -> Iterator[str]:
        """What does not hold: the values that are not finite, and the longest of the updates beyond the clip."""
        for update in self.updates:
            if update.not_finite:
                yield f"a client {update.client} sends values that are not finite: {', '.join(update.not_finite)}"
        too_long = [update for update in self.updates if update.norm is not None and update.norm > self.clip * (1 + _ROUNDING)]
        if too_long:
            longest = max(too_long, key=lambda update: update.norm)
            yield (
                f"the clip does not hold: a client {longest.client} sends an update of norm {longest.norm:.6g}, where the clip is "
                f"{self.clip:.6g}; no epsilon holds for this plan unless every example's values are bounded before they reach it"
            )

    def doubts(self) -> Iterator[str]:
        """What could not be looked at."""
        reported = [update for update in self.updates if update.failure is None]
        if self.updates and not reported:
            yield f"no client with unusual examples could be run: {self.updates[0].failure}"
        if self.clip is not None and any(update.norm is None and not update.not_finite for update in reported):
            yield "the weights in an update are not where they are looked for: whether the clip holds was not found out"


def wild_clients(features: Sequence[Feature]) -> Iterator[tuple[str, list[bytes]]]:
    """Clients: what is unusual about each, in words that follow "a client", and its serialized examples.

    Values are ordinary otherwise: float32 in [0, 1), integers 0 or 1, strings "0" or "1".
    """
    kinds = {feature.kind for feature in features}
    for value in _FLOATS if "float32" in kinds else ():
        yield f"with {value:g} in every float", _examples(features, "float32", value, every=True)
        yield f"with one {value:g} in each float feature", _examples(features, "float32", value, every=False)
    for value in _INTEGERS if "int64" in kinds else ():
        yield f"with {value} in every integer", _examples(features, "int64", value, every=True)


def clip_of(client_checkpoint: Mapping[str, np.ndarray]) -> Optional[float]:
    """The L2 clip that clients are sent; None for a task without differential privacy."""
    return next((float(client_checkpoint[name]) for name in _CLIPS if name in client_checkpoint), None)


def check_update(client: str, update: Mapping[str, np.ndarray], clip: Optional[float]) -> WildUpdate:
    """Looks at an update as the server reads it: tensors by name.

    Args:
      clip: as `clip_of`.
    """
    not_finite = tuple(name for name, value in update.items() if value.dtype.kind == "f" and not np.isfinite(value).all())
    norm = None if clip is None or not_finite else _norm(update)
    return WildUpdate(client, None, not_finite, norm)


def _norm(update: Mapping[str, np.ndarray]) -> Optional[float]:
    """L2 norm over the weights in an update under a DP aggregator, coded ones as the server decodes them; None where there are none."""
    weights = [value.astype(np.float64) for name, value in decoded(update).items() if _UPDATE.fullmatch(name)]
    if not weights:
        return None
    return math.sqrt(sum(float(np.sum(np.square(value))) for value in weights))


def _examples(features: Sequence[Feature], kind: str, value: float, *, every: bool) -> list[bytes]:
    """Examples with a value in all features of a kind: everywhere, or in the first place of the second example."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(_EXAMPLES):
        arrays = {feature.name: _ordinary(rng, feature) for feature in features}
        for feature in features:
            values = arrays[feature.name].reshape(-1)
            if feature.kind == kind and values.size and (every or number == 1):
                values[slice(None) if every else 0] = value
        made.append(examples.encode(arrays))
    return made


def _ordinary(rng: np.random.Generator, feature: Feature) -> np.ndarray:
    if feature.kind == "float32":
        return np.asarray(rng.random(feature.shape), np.float32)
    integers = np.asarray(rng.integers(2, size=feature.shape), np.int64)
    return integers if feature.kind == "int64" else integers.astype(str)
