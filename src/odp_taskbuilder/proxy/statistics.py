"""The numbers that proxy tasks are judged by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Optional

import numpy as np

# What stands in the files for a correlation, or its p-value, that cannot be computed (Google's tools write the same).
INVALID_CORRELATION = -5.0
# And for a score, a time or a step.
INVALID_VALUE = -1.0
MIN_PAIRS = 5
MIN_VALID_SHARE = 0.7
# Verdicts of Google's tool.
GOOD_VARIANCE = 0.4
GOOD_SMOOTHNESS = 10.0

# Where the slope of a curve is sampled: ten points each, more of them towards its end.
_SAMPLED = ((0.0, 0.7), (0.7, 0.9), (0.9, 1.0))
_SAMPLES = 10


@dataclasses.dataclass(frozen=True)
class RankCorrelation:
    """Kendall's tau-b of pairs, and the probability of one at least as far from 0 if there were no relation (two-sided).

    Attributes:
      tau, p_value: INVALID_CORRELATION where there are too few pairs, or all of one side are equal.
      pairs: that entered.
    """

    tau: float
    p_value: float
    pairs: int

    @property
    def is_valid(self) -> bool:
        return self.tau != INVALID_CORRELATION


def kendall(first: Sequence[Optional[float]], second: Sequence[Optional[float]]) -> RankCorrelation:
    """Kendall's tau-b of two lists of the same length; None, NaN and infinities take their pair out, 0.0 is a number like others.

    Needs MIN_PAIRS pairs and MIN_VALID_SHARE of all. The p-value is exact without ties, and asymptotic with them
    (scipy.stats.kendalltau; Kendall, Rank Correlation Methods, 1970).
    """
    pairs = [(a, b) for a, b in zip(first, second) if _is_number(a) and _is_number(b)]
    if len(pairs) < MIN_PAIRS or len(pairs) < MIN_VALID_SHARE * len(first):
        return RankCorrelation(INVALID_CORRELATION, INVALID_CORRELATION, len(pairs))
    from scipy import stats  # Takes a second to import.

    columns = tuple(zip(*pairs))
    has_ties = any(len(set(column)) < len(column) for column in columns)
    tau, p_value = stats.kendalltau(*columns, method="asymptotic" if has_ties else "exact")
    if not math.isfinite(tau):
        return RankCorrelation(INVALID_CORRELATION, INVALID_CORRELATION, len(pairs))
    return RankCorrelation(float(tau), float(p_value), len(pairs))


def coefficient_of_variation(scores: Sequence[float]) -> float:
    """Standard deviation (of all: divided by their number) over the magnitude of the mean; 0 of equal scores, infinite at mean 0."""
    deviation, mean = float(np.std(scores)), abs(float(np.mean(scores)))
    if deviation == 0:
        return 0.0
    return deviation / mean if mean else math.inf


def smoothness(steps: Sequence[float], scores: Sequence[float]) -> float:
    """How much a score curve falls: the magnitude of the sum of its negative slopes; 0 for one that never does.

    Steps and scores are scaled to [0, 1]; the slope is that of the linear interpolation, at ten points each of [0, 0.7), [0.7, 0.9)
    and [0.9, 1).

    >>> smoothness([1, 2, 3], [0.1, 0.5, 0.9])
    0.0
    """
    x, y = np.asarray(steps, float), np.asarray(scores, float)
    if len(x) < 2 or np.ptp(y) == 0:
        return 0.0
    x, y = (x - x[0]) / (x[-1] - x[0]), (y - y.min()) / np.ptp(y)
    slopes = np.diff(y) / np.diff(x)
    points = np.concatenate([np.linspace(start, end, _SAMPLES, endpoint=False) for start, end in _SAMPLED])
    sampled = slopes[np.clip(np.searchsorted(x, points, side="right") - 1, 0, len(slopes) - 1)]
    return float(abs(sampled[sampled < 0].sum()))


def least_missed(points: Mapping[str, Sequence[float]], number: int) -> list[str]:
    """The names whose removal costs the spread of the others least, in the order of removal.

    The spread in one coordinate, scaled to [0, 1], is the sum of the square roots of the gaps between neighbours: it grows with the
    range and with every point in it, most where points are evenly spaced, and not at all by a point on top of another. Coordinates are
    added up. One point goes at a time; of equals the last by name.

    Args:
      points: name -> coordinates, all finite; as many for each.
    """
    names = sorted(points)
    table = np.asarray([points[name] for name in names], float).reshape(len(names), -1)
    ranges = np.ptp(table, axis=0)
    table = (table - table.min(axis=0)) / np.where(ranges > 0, ranges, 1.0)
    kept, removed = list(range(len(names))), []
    for _ in range(min(number, len(names))):
        spreads = [_spread(table[[other for other in kept if other != position]]) for position in kept]
        # Later names first, so that of equals the last one goes.
        best = max(range(len(kept)), key=lambda index: (round(spreads[index], 12), index))
        removed.append(names[kept.pop(best)])
    return removed


def _spread(table: np.ndarray) -> float:
    return float(np.sqrt(np.diff(np.sort(table, axis=0), axis=0)).sum())


def _is_number(value: Optional[float]) -> bool:
    return value is not None and math.isfinite(value)
