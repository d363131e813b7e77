"""Numbers for people, rounded so that a bound stays one."""

from __future__ import annotations

import decimal


def rounded_up(value: float, digits: int = 7) -> float:
    """The smallest number of so many significant digits that is not below the value.

    >>> rounded_up(9.99973131), rounded_up(0.22200422, digits=4), rounded_up(18.0)
    (9.999732, 0.2221, 18.0)
    """
    return float(decimal.Context(prec=digits, rounding=decimal.ROUND_CEILING).create_decimal(value))
