"""Epsilon over the number of rounds, the noise multiplier or the report goal."""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

from odp_taskbuilder import errors
from odp_taskbuilder.config.spec import PrivacySpec
from odp_taskbuilder.privacy.assumptions import curve_assumptions
from odp_taskbuilder.privacy.budget import mechanism_of, smallest_noise
from odp_taskbuilder.privacy.rounding import stated_epsilon


class CurveVariable(enum.Enum):
    """What varies along a curve: the field of PrivacySpec of that name."""

    ROUNDS = "rounds"
    NOISE = "noise_multiplier"
    REPORT_GOAL = "report_goal"

    @property
    def is_count(self) -> bool:
        return self is not CurveVariable.NOISE


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    value: float
    epsilon: float


@dataclasses.dataclass(frozen=True)
class PrivacyCurve:
    """Upper bounds of epsilon along one variable.

    Attributes:
      spec: what does not vary, with the noise that the curve was computed for.
      assumptions: what the numbers rest on, one sentence each.
    """

    variable: CurveVariable
    spec: PrivacySpec
    points: tuple[CurvePoint, ...]
    assumptions: tuple[str, ...]

    def setting(self) -> str:
        """What does not vary, in words."""
        values = []
        if self.variable is not CurveVariable.NOISE:
            values.append(f"noise multiplier {self.spec.noise_multiplier:.4g}")
        if self.variable is not CurveVariable.ROUNDS:
            values.append(f"{self.spec.rounds:,} rounds")
        if self.spec.aggregator.is_tree:
            values.append(f"minimum separation {self.spec.minimum_separation:,}")
            values.append(f"{self.spec.rounds_per_day:g} rounds a day")
        elif self.variable is not CurveVariable.REPORT_GOAL:
            values.append(f"report goal {self.spec.report_goal:,}")
        return f"{self.spec.aggregator.value}: {', '.join(values)}"


def epsilon_curve(spec: PrivacySpec, variable: CurveVariable, start: float, stop: float, steps: int) -> PrivacyCurve:
    """Epsilon at `steps` (at least 2) values from start to stop, in even ratios; counts are rounded, and then fewer where they coincide.

    Costs 0.1 to 3 s per point for the Gaussian aggregators. `empty_curve`, `curve_values` and `curve_point` are its parts, for who wants to
    show each point as it is there.

    Raises:
      UsageError: the range is empty or not positive.
      ConfigError: a value on the curve is out of range, or no noise meets the target.
    """
    curve = empty_curve(spec, variable, start, stop)
    points = tuple(curve_point(curve, value) for value in curve_values(variable, start, stop, steps))
    return dataclasses.replace(curve, points=points)


def empty_curve(spec: PrivacySpec, variable: CurveVariable, start: float, stop: float) -> PrivacyCurve:
    """A curve without points yet. Where the spec has no noise multiplier and the noise does not vary, it is calibrated to the spec's own
    rounds and report goal.

    Raises:
      UsageError: the range is empty or not positive.
      ConfigError: a value of the spec is out of range, or no noise meets the target.
    """
    if not 0 < start < stop < math.inf:
        raise errors.UsageError(f"A curve runs from a positive number to a larger one, not from {start!r} to {stop!r}.")
    if variable.is_count and round(start) < 1:
        raise errors.UsageError(f"A curve over {variable.value} starts at 1 or more, not at {start!r}.")
    if spec.noise_multiplier is None and variable is not CurveVariable.NOISE:
        spec = dataclasses.replace(spec, noise_multiplier=smallest_noise(spec).noise_multiplier)
    return PrivacyCurve(variable, spec, (), curve_assumptions(spec))


def curve_values(variable: CurveVariable, start: float, stop: float, steps: int) -> list[float]:
    """`steps` values in even ratios; counts are rounded, and fewer where they coincide."""
    import numpy as np  # Here: whoever needs a budget imports this package, and few draw curves.

    values = np.geomspace(start, stop, steps)
    return np.unique(np.rint(values).astype(int)).tolist() if variable.is_count else values.tolist()


def curve_point(curve: PrivacyCurve, value: float) -> CurvePoint:
    """Epsilon where the curve's variable has this value.

    Raises:
      ConfigError: the value is out of range.
    """
    changed: dict[str, Any] = {curve.variable.value: value}
    at_value = dataclasses.replace(curve.spec, **changed)
    mechanism = mechanism_of(at_value)
    epsilon = mechanism.epsilon(at_value.noise_multiplier)
    return CurvePoint(value, stated_epsilon(epsilon, mechanism.digits, curve.spec.target_epsilon))
