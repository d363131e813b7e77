"""Whether a compiled update is the interpreter's: tensor by tensor, and what may explain a difference.

Two ways of adding up the same numbers differ by float32's rounding. Where the plan goes on smoothly so does the update; at a kink (relu at
zero, two equal candidates of a maximum, a comparison) rounding decides which way a client goes, and its update jumps. Both ways are right
then. `explained_by_rounding` tells such a client from a wrong translation by making the same jump happen: it runs the compiled client
from weights that differ by no more than rounding does, and asks whether the differences that this makes add up to the one that was found. Other
plans amplify rounding without a kink (deep ones, small differences of large numbers, a gradient that is zero but for rounding): there such
weights move every tensor of the update about as far as it differs. A wrong translation is not mended by other weights, nor as small.

A plan that rounds what it sends (--compress_updates) makes steps of such differences: of its tensors those are compared that are rounded,
and `compare_rounding` looks at what becomes of them.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Callable, Optional

import numpy as np

from odp_taskbuilder.simulation.jobs import Comparison

if TYPE_CHECKING:
    # It loads TensorFlow, which the process that deals out the work does without.
    from odp_taskbuilder.simulation.update_sums import Tensors

# Relative L2 distance of a tensor of an update to the interpreter's.
MAX_DIFFERENCE = 1e-5
# A tensor may also differ by float32's resolution of the largest one of its update: it can be the small difference of large numbers.
_RESOLUTION = 1e-7
# Weights that differ by so much, relative to each, a multiple of float32's 6e-8: less than the rounding of a sum of a hundred products.
_NUDGES = (1e-7, 2e-7, 4e-7)
_MAX_NUDGED_RUNS = 48
# Each is as large as an update.
_MAX_JUMPS = 16
# Of the differences that nudges make, how much of each may be in the one that is explained: all of it or nothing, but for rounding.
_MAX_SHARE = 1.5
# A difference is amplified rounding if it is at most three times what each of a few of the largest nudges makes: these move weights only, and
# rounding happens in every operator behind them. Each, so that a kink that some of them meet is not taken for the rule.
_MAX_AMPLIFIED = 3.0
_AMPLIFYING_NUDGES = 4
# A plan's rounding translated operator by operator makes of one and the same tensor the same values, but for a few where a processor divides
# otherwise.
_MAX_SHARE_OTHERWISE = 0.01
# Of the step between two rounded values: their scales may differ, since they depend on all codes, and two steps are too much.
_MAX_STEPS = 1.5
# A tensor that differs by more of a step may end up a step further, where the dither starts anew.
_DITHER_PERIOD = 1e-4
# Relative, of the length after rounding over the one before: epsilon rests on it.
_MAX_LENGTHENING = 1e-6


class Explanation(enum.Enum):
    """How rounding makes updates differ."""

    KINK = "some client goes another way"
    AMPLIFIED = "the plan makes large differences of small ones"


class DifferentError(Exception):
    """A client's updates differ, and rounding does not explain it.

    Attributes:
      comparison: names the tensor that differs most.
    """

    def __init__(self, comparison: Comparison):
        super().__init__(comparison)
        self.comparison = comparison


def compared(
    client_id: str, checkpoint: Tensors, own: Tensors, interpreted: Tensors, run: Callable[[Tensors], Optional[Tensors]]
) -> Optional[Comparison]:
    """Compares a client's compiled update with the interpreter's. None if they differ because the client lies on a kink.

    Args:
      checkpoint: what the client downloads.
      run: makes the compiled update from another checkpoint; None if it is wild.

    Raises:
      DifferentError: they differ, and rounding does not explain it.
    """
    comparison, agrees = _compared(client_id, own, interpreted)
    if agrees:
        return comparison
    explanation = explained_by_rounding(checkpoint, own, interpreted, run)
    if explanation is None:
        raise DifferentError(comparison)
    return dataclasses.replace(comparison, amplified=True) if explanation is Explanation.AMPLIFIED else None


def _compared(client_id: str, own: Tensors, interpreted: Tensors) -> tuple[Comparison, bool]:
    """What differs most of two updates, and whether that is allowed."""
    if own.keys() != interpreted.keys():
        return Comparison(client_id, min(own.keys() ^ interpreted.keys()), np.inf), False
    allowed = _allowed(interpreted)
    worst, tensor, worst_excess = 0.0, min(own), 0.0
    for name, value in interpreted.items():
        distance, norm = _distance(own[name], value), _norm(value)
        excess = distance / allowed[name] if allowed[name] else (np.inf if distance else 0.0)
        if not excess <= worst_excess:
            worst, tensor, worst_excess = (distance / norm if norm else distance), name, excess
    return Comparison(client_id, tensor, float(worst)), worst_excess <= 1


@dataclasses.dataclass(frozen=True)
class RoundedTensor:
    """A tensor that the plan rounds, in one client's update.

    Attributes:
      own, interpreted: compiled and in the interpreter, as the server decodes it.
      own_unrounded, interpreted_unrounded: before it was rounded.
      again: what the translation of the plan's rounding, operator by operator, makes of `interpreted_unrounded`.
      step: between two neighbouring values of `again`.
    """

    own: np.ndarray
    interpreted: np.ndarray
    own_unrounded: np.ndarray
    interpreted_unrounded: np.ndarray
    again: np.ndarray
    step: float


def compare_rounding(client_id: str, tensors: Mapping[str, RoundedTensor]) -> None:
    """Compares how the tensors of an update were rounded. That they were the same before is for `compared` to tell.

    Raises:
      DifferentError: what the plan's rounding makes of the interpreter's tensor is not what the interpreter makes of it; a compiled value is
        more than one step from the interpreter's; or rounding lengthened a tensor.
    """
    for name, tensor in tensors.items():
        interpreted = tensor.interpreted.astype(np.float64)
        away = np.abs(tensor.again - interpreted)
        otherwise = away > MAX_DIFFERENCE * np.abs(interpreted)
        apart = np.abs(tensor.own - interpreted)
        moved = np.abs(tensor.own_unrounded.astype(np.float64) - tensor.interpreted_unrounded)
        allowed = np.where(moved > _DITHER_PERIOD * tensor.step, _MAX_STEPS + 1, _MAX_STEPS) * tensor.step + moved
        longest = _norm(tensor.own_unrounded) * (1 + _MAX_LENGTHENING)
        if (
            np.count_nonzero(otherwise) > max(1, _MAX_SHARE_OTHERWISE * otherwise.size)
            or np.any(away > _MAX_STEPS * tensor.step)
            or np.any(apart > allowed)
            or _norm(tensor.own) > longest
        ):
            worst = max(_distance(tensor.again, interpreted), _distance(tensor.own, interpreted))
            raise DifferentError(Comparison(client_id, name, worst / (_norm(interpreted) or 1.0), in_rounding=True))


def _norm(value: np.ndarray) -> float:
    return float(np.linalg.norm(np.ravel(value).astype(np.float64)))


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return np.inf
    return _norm(a.astype(np.float64) - b.astype(np.float64))


def explained_by_rounding(
    checkpoint: Tensors, own: Tensors, interpreted: Tensors, run: Callable[[Tensors], Optional[Tensors]], seed: int = 0
) -> Optional[Explanation]:
    """How rounding explains that two updates differ; None if it does not. Args: as of `compared`."""
    if own.keys() != interpreted.keys() or any(own[name].shape != value.shape for name, value in interpreted.items()):
        return None
    # Of a scalar that is zero nothing is allowed, and something must be the unit.
    units = {name: allowed or MAX_DIFFERENCE for name, allowed in _allowed(interpreted).items() if interpreted[name].size}
    starts = np.cumsum([0, *(interpreted[name].size for name in units)])[:-1]

    def difference(update: Tensors) -> np.ndarray:
        """To the compiled update, in units of what is allowed in each tensor."""
        return np.concatenate([np.ravel(update[name].astype(np.float64) - own[name]) / unit for name, unit in units.items()])

    def distances(rest: np.ndarray) -> np.ndarray:
        """Of each tensor."""
        return np.sqrt(np.add.reduceat(np.square(rest), starts))

    rng = np.random.default_rng(seed)

    def nudged_updates() -> Iterator[tuple[float, np.ndarray]]:
        """Sizes of nudges, and how far they take the update."""
        for count in range(_MAX_NUDGED_RUNS):
            size = _NUDGES[count % len(_NUDGES)]
            update = run({name: _nudged(value, size, rng) for name, value in checkpoint.items()})
            if update is not None:
                yield size, difference(update)

    updates = nudged_updates()
    first = list(itertools.islice(updates, _AMPLIFYING_NUDGES * len(_NUDGES)))
    moved = [distances(jump) for size, jump in first if size == max(_NUDGES)]
    if not moved:
        return None
    missing = difference(interpreted)

    def is_made_of(jumps: Iterable[np.ndarray], reach: np.ndarray) -> bool:
        """Whether jumps add up to what is missing, each tensor up to its reach."""

        def is_within(rest: np.ndarray) -> bool:
            return bool(np.all(distances(rest) <= reach))

        kept: list[np.ndarray] = []
        for jump in jumps:
            # None at all, or the same again, tells nothing.
            if is_within(jump) or any(is_within(jump - other) for other in kept):
                continue
            kept.append(jump)
            columns = np.stack(kept, 1)
            shares, *_ = np.linalg.lstsq(columns, missing, rcond=None)
            if is_within(missing - columns @ np.clip(shares, -_MAX_SHARE, _MAX_SHARE)):
                return True
            if len(kept) == _MAX_JUMPS:
                break
        return False

    # A client that lies right on a kink jumps by nearly every nudge: that is no amplifying yet.
    if is_made_of((jump for _, jump in first), np.ones(len(starts))):
        return Explanation.KINK
    reach = np.maximum(1, _MAX_AMPLIFIED * np.min(moved, 0))
    if bool(np.all(distances(missing) <= reach)):
        return Explanation.AMPLIFIED
    return Explanation.KINK if is_made_of((jump for _, jump in itertools.chain(first, updates)), reach) else None


def _nudged(value: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    if value.dtype.kind != "f":
        return value
    return (value * (1 + size * rng.standard_normal(value.shape))).astype(value.dtype)


def _allowed(interpreted: Tensors) -> dict[str, float]:
    """By how much a compiled tensor of an update may differ, as L2 distance."""
    largest = max((_norm(value) for value in interpreted.values() if value.ndim), default=0.0)
    return {name: MAX_DIFFERENCE * _norm(value) + (_RESOLUTION * largest if value.ndim else 0.0) for name, value in interpreted.items()}
