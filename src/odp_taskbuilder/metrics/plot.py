"""Metrics over rounds as a figure."""

from __future__ import annotations

import io
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.base import figure_file, plain_text
from odp_taskbuilder.metrics.run import TRAINING_BYTES, TRAINING_WIRE_BYTES, Run, metric_names, short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

_TRAINING, _EVALUATION = "train/", "eval/"
_COLUMNS = 3
# What fits a figure that somebody looks at.
_MAX_PANELS = 60
# Names come from anyone: `$` begins no formula in them, and LaTeX, where somebody's settings want it, is not run on them.
_PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}
# Inches of a panel that stands alone: as wide on a phone, its text keeps the size of text there.
_SINGLE = (3.4, 2.5)
# Beyond this many rounds a mark on every one of them hides the line.
_MARKED_ROUNDS = 40


# What metrics are plotted over: name of the choice -> the metric of a round that says how far training had come, and the label.
OVER = {"bytes": (TRAINING_BYTES, "MiB of files"), "wire": (TRAINING_WIRE_BYTES, "MiB after gzip")}


def plot_runs(runs: Sequence[Run], path: pathlib.Path, over: Optional[str] = None) -> list[str]:
    """Writes a figure with one panel per metric. The suffix of the path decides the format.

    The tasks of a run have one colour in all panels. A metric of training (solid) and of evaluation (dashed) share a panel, in which an
    evaluation stands over the training round that it evaluated, where that is known. Undefined values are gaps.

    Args:
      over: one of OVER: plot over what all clients of a simulation's training had transferred until a round, both ways. None for rounds.

    Returns:
      The metrics that were left out, because they are 0 in all rounds; none if all are.

    Raises:
      UsageError: there is nothing to plot, or too much, or matplotlib does not know the format.
      StorageError: the file cannot be written.
    """
    panels, zero = _panels(runs, over)
    # Imported here: it takes most of a second, and a table needs none of it.
    from matplotlib import figure

    columns = 2 if len(panels) == 4 else min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    canvas = figure.Figure(figsize=(4.6 * columns, 3.1 * rows + 0.5), layout="constrained")
    for place, (title, metrics) in zip(_places(canvas, len(panels), rows, columns), panels.items()):
        _draw(canvas.add_subplot(place), title, metrics, runs, over)
    # One legend for all panels; a run that lacks the first metric is in another panel.
    lines = {str(line.get_label()): line for panel in canvas.axes for line in panel.get_lines()}
    legend = canvas.legend(
        list(lines.values()), list(lines), loc="outside upper center", ncols=min(4, len(lines)), fontsize=9, frameon=False
    )
    for text in legend.get_texts():
        text.update(_PLAIN)
    figure_file.save_figure(canvas, path)
    return zero


def svg_panels(runs: Sequence[Run]) -> tuple[dict[str, str], list[str]]:
    """The panels of the figure one by one, as documents of SVG with text as text, without title and legend.

    Returns:
      What training and evaluation call the metric -> the panel, and the metrics that were left out as in `plot_runs`.

    Raises:
      UsageError: as `plot_runs`.
    """
    panels, zero = _panels(runs, None)
    import matplotlib
    from matplotlib import figure

    drawn = {}
    # The same runs give the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "odp-task", "text.usetex": False}):
        for title, metrics in panels.items():
            canvas = figure.Figure(figsize=_SINGLE, layout="constrained")
            axes = canvas.add_subplot()
            _draw(axes, title, metrics, runs, None)
            axes.set_title("")
            file = io.StringIO()
            canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
            drawn[_title(title, metrics)] = file.getvalue()
    return drawn, zero


def colour_of(group: int) -> str:
    """The colour of the runs of a group, by its number, as CSS writes it."""
    from matplotlib import colors

    return colors.to_hex(f"C{group % 10}")


def _panels(runs: Sequence[Run], over: Optional[str]) -> tuple[dict[str, list[str]], list[str]]:
    """What training and evaluation call a metric -> its metrics, and those that are left out."""
    names = [name for name in metric_names(runs) if over is None or name != OVER[over][0]]
    if not names:
        raise errors.UsageError("There is no metric to plot.")
    zero = [name for name in names if not any(values.get(name) for run in runs for values in run.rounds.values())]
    if len(zero) == len(names):
        zero = []
    panels: dict[str, list[str]] = {}
    for name in names:
        if name not in zero:
            panels.setdefault(_panel_name(name), []).append(name)
    if len(panels) > _MAX_PANELS:
        raise errors.UsageError(
            f"There are {len(panels):,} metrics to plot; a figure shows up to {_MAX_PANELS}.", next_step="Choose some with --metric."
        )
    return panels, zero


def _title(name: str, metrics: Sequence[str]) -> str:
    return name if len(metrics) > 1 else short_name(metrics[0])


def _panel_name(metric: str) -> str:
    """What training and evaluation call the same: `loss` for `train/loss` and `eval/loss`."""
    return short_name(metric).removeprefix(_TRAINING).removeprefix(_EVALUATION)


def _places(canvas: Figure, count: int, rows: int, columns: int) -> Iterator[SubplotSpec]:
    """Places for panels, row by row; those of the last row share its width."""
    last = count - columns * (rows - 1)
    grid = canvas.add_gridspec(rows, columns * last)
    for number in range(count):
        row, column = divmod(number, columns)
        width = last if row < rows - 1 else columns
        yield grid[row, column * width : (column + 1) * width]


def _draw(panel: Axes, title: str, metrics: Sequence[str], runs: Sequence[Run], over: Optional[str]) -> None:
    from matplotlib import ticker

    groups = list(dict.fromkeys(run.group or run.name for run in runs))
    for run in runs:
        colour = f"C{groups.index(run.group or run.name) % 10}"
        for metric in metrics:
            is_evaluation = short_name(metric).startswith(_EVALUATION)
            points = [
                (_position(run, number, over, is_evaluation), values[metric])
                for number, values in run.rounds.items()
                if metric in values and (over is None or OVER[over][0] in values)
            ]
            if points:
                mark = "o" if len(points) <= _MARKED_ROUNDS else None
                style = "--" if is_evaluation else "-"
                label = plain_text.escaped(run.name)
                panel.plot(*zip(*points), style, marker=mark, markersize=3, linewidth=1.4, color=colour, label=label)
    panel.set_title(plain_text.escaped(_title(title, metrics)), fontsize=10, **_PLAIN)
    if over is None:
        panel.set_xlabel("training round" if any(run.evaluated for run in runs) else "round", fontsize=9)
        panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    else:
        panel.set_xlabel(OVER[over][1], fontsize=9)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.3)


def _position(run: Run, number: int, over: Optional[str], is_evaluation: bool) -> float:
    """Where a round is on the horizontal axis."""
    if over is not None:
        return run.rounds[number][OVER[over][0]] / (1 << 20)
    return run.evaluated.get(number, number) if is_evaluation else number
