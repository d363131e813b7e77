"""Metrics over rounds as a figure."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence

from odp_taskbuilder import errors
from odp_taskbuilder.base import figure_file, plain_text
from odp_taskbuilder.metrics.run import Run, metric_names, short_name

_COLUMNS = 3
# What fits a figure that somebody looks at.
_MAX_PANELS = 60
# Names come from anyone: `$` begins no formula in them, and LaTeX, where somebody's settings want it, is not run on them.
_PLAIN = {"parse_math": False, "usetex": False}
# Beyond this many rounds a mark on every one of them hides the line.
_MARKED_ROUNDS = 40


def plot_runs(runs: Sequence[Run], path: pathlib.Path) -> None:
    """Writes a figure with one panel per metric and one line per run; undefined values are gaps. The suffix of the path
    decides the format.

    Raises:
      UsageError: there is nothing to plot, or too much, or matplotlib does not know the format.
      StorageError: the file cannot be written.
    """
    # Imported here: it takes most of a second, and a table needs none of it.
    from matplotlib import figure, ticker

    names = metric_names(runs)
    if not names:
        raise errors.UsageError("There is no metric to plot.")
    if len(names) > _MAX_PANELS:
        raise errors.UsageError(
            f"There are {len(names):,} metrics to plot; a figure shows up to {_MAX_PANELS}.", next_step="Choose some with --metric."
        )
    columns = min(_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    canvas = figure.Figure(figsize=(4.6 * columns, 3.1 * rows + 0.5), layout="constrained")
    panels = canvas.subplots(rows, columns, squeeze=False).ravel()
    for panel, name in zip(panels, names):
        for position, run in enumerate(runs):
            points = [(number, values[name]) for number, values in run.rounds.items() if name in values]
            if points:
                mark = "o" if len(points) <= _MARKED_ROUNDS else None
                # The colour belongs to the run, so that it is the same in every panel.
                panel.plot(*zip(*points), marker=mark, markersize=3, linewidth=1.4, color=f"C{position % 10}", label=plain_text.escaped(run.name))
        panel.set_title(plain_text.escaped(short_name(name)), fontsize=10, **_PLAIN)
        panel.set_xlabel("round", fontsize=9)
        panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    # One legend for all panels; a run that lacks the first metric is in another panel.
    lines = {line.get_label(): line for panel in panels for line in panel.get_lines()}
    legend = canvas.legend(
        lines.values(), lines.keys(), loc="outside upper center", ncols=min(4, len(lines)), fontsize=9, frameon=False
    )
    for text in legend.get_texts():
        text.update(_PLAIN)
    figure_file.save_figure(canvas, path)
