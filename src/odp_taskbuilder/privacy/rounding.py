"""Numbers for people, rounded so that a bound stays one and no processor's last bit shows.

Exponentials and logarithms differ in their last bit between processors, and with them every epsilon. A figure is therefore stated in
steps so much larger that two machines state the same one, but where it falls within rounding of an edge.
"""

from __future__ import annotations

import decimal
import math

# Below this, epsilons are made of the accountant's grid.
_SMALLEST_STEP = decimal.Decimal("1e-6")


def rounded_up(value: float, digits: int = 7) -> float:
    """The smallest number of so many significant digits that is not below the value.

    >>> rounded_up(9.99973131), rounded_up(0.22200422, digits=4), rounded_up(18.0), rounded_up(43.21)
    (9.999732, 0.2221, 18.0, 43.21)
    """
    # By the shortest digits that name the value: the binary 43.21 is a little above the decimal one, which would be lifted to 43.21001.
    return float(_upwards(digits).create_decimal(repr(float(value))))


def next_below(value: float, digits: int) -> float:
    """The largest number of so many significant digits that is below the value.

    >>> next_below(0.2221, digits=4), next_below(1.0, digits=4)
    (0.222, 0.9999)
    """
    return float(_upwards(digits).next_minus(decimal.Decimal(repr(value))))


def stated_epsilon(epsilon: float, digits: int, target_epsilon: float = math.inf) -> float:
    """An epsilon as it is stated: rounded up to so many significant digits, in steps of 1e-6 at least.

    An epsilon within the target is not stated as one beyond: the target bounds it, too.

    >>> stated_epsilon(5.99867731, 5), stated_epsilon(7.48e-05, 5), stated_epsilon(9.9999231, 5, target_epsilon=9.99995)
    (5.9987, 7.5e-05, 9.99995)
    """
    if not 0 < epsilon < math.inf:
        return epsilon
    exact = decimal.Decimal(epsilon)
    step = max(_SMALLEST_STEP, decimal.Decimal(1).scaleb(exact.adjusted() - digits + 1))
    stated = float((exact / step).to_integral_value(decimal.ROUND_CEILING) * step)
    return min(stated, target_epsilon) if epsilon <= target_epsilon else stated


def _upwards(digits: int) -> decimal.Context:
    return decimal.Context(prec=digits, rounding=decimal.ROUND_CEILING)
