"""A curve of epsilon as a figure."""

from __future__ import annotations

import math
import pathlib
from typing import Any

from odp_taskbuilder.base import figure_file
from odp_taskbuilder.privacy.assumptions import meant_for
from odp_taskbuilder.privacy.curve import CurveVariable, PrivacyCurve

_AXIS_LABELS = {
    CurveVariable.ROUNDS: "training rounds",
    CurveVariable.NOISE: "noise multiplier (standard deviation of the noise / clip norm)",
    CurveVariable.REPORT_GOAL: "report goal (clients per round)",
}
# A curve that spans more than this ratio is drawn over a logarithmic epsilon.
_WIDE = 50


def plot_curve(curve: PrivacyCurve, path: pathlib.Path) -> None:
    """Writes the curve with its target line. The suffix of the path decides the format.

    Raises:
      UsageError: matplotlib does not know the format.
      StorageError: the file cannot be written.
    """
    # Imported here: it takes most of a second, and a table needs none of it.
    from matplotlib import figure, ticker

    spec = curve.spec
    canvas = figure.Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = canvas.subplots()
    finite = [point for point in curve.points if math.isfinite(point.epsilon)]
    # A client of a tree can come back at certain rounds, where epsilon jumps: between two points, the later one bounds it.
    jumps = spec.aggregator.is_tree and curve.variable is CurveVariable.ROUNDS
    axes.plot(
        [p.value for p in finite],
        [p.epsilon for p in finite],
        marker="o",
        markersize=3.5,
        drawstyle="steps-pre" if jumps else "default",
        label="epsilon (upper bound)",
    )
    axes.axhline(spec.target_epsilon, color="C3", linestyle="--", label=f"target epsilon {spec.target_epsilon:g}")
    axes.set_xscale("log")
    logarithmic: list[Any] = [axes.xaxis]
    positive = [point.epsilon for point in finite if point.epsilon > 0]
    if positive and max(positive) > _WIDE * min(positive):
        axes.set_yscale("log")
        logarithmic.append(axes.yaxis)
    else:
        axes.set_ylim(bottom=0)
    for axis in logarithmic:
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(ticker.NullFormatter())
    axes.set_xlabel(_AXIS_LABELS[curve.variable])
    axes.set_ylabel("epsilon of the whole training (no unit)")
    axes.set_title(f"{curve.setting()}\ndelta {spec.delta:.4g}, {meant_for(spec)}", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure_file.save_figure(canvas, path)
