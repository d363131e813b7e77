"""Metrics as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from odp_taskbuilder.base import plain_text
from odp_taskbuilder.metrics.run import Run, short_name


def format_run(run: Run) -> str:
    """A headline, then one line per round and one column per metric; a metric that a round lacks is a dash."""
    missing = f" (no metrics of round {_ranges(run.missing_rounds())})" if run.missing_rounds() else ""
    names = run.metric_names()
    rows = [["round", *map(short_name, names)]]
    for number, values in run.rounds.items():
        rows.append([str(number), *(f"{values[name]:.6g}" if name in values else "-" for name in names)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)
    return "\n".join([f"{plain_text.escaped(run.name)}{missing}", *lines])


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as text: `2, 5-7`."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
