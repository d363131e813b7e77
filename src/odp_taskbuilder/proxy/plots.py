"""Figures of proxy tasks."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from odp_taskbuilder.base import figure_file

Curve = Sequence[tuple[float, float]]
_PLAIN = {"parse_math": False, "usetex": False}


def plot_curves(curves: Mapping[str, Curve], metric: str, path: pathlib.Path) -> None:
    """Scores over rounds, one line for each name."""
    canvas, (panel,) = _panels(1)
    for name, curve in curves.items():
        panel.plot(*zip(*curve), marker="o", markersize=3, linewidth=1.2, label=name)
    _label(panel, "round", metric)
    panel.legend(fontsize=7)
    _save(canvas, path)


def plot_scores(iteration: Mapping[str, Any], metric: str, path: pathlib.Path) -> None:
    """Scores of an iteration of a selection against latencies, or against their rank; the dropped ones in red."""
    canvas, (panel,) = _panels(1)
    has_latency = bool(iteration["latencies"])
    ranked = sorted(iteration["scores"], key=iteration["scores"].__getitem__)
    for is_removed, colour, label in ((False, "C0", "kept"), (True, "red", "dropped")):
        names = [name for name in ranked if (name in iteration["removed"]) == is_removed]
        x = [iteration["latencies"][name] if has_latency else ranked.index(name) for name in names]
        panel.scatter(x, [iteration["scores"][name] for name in names], color=colour, label=label, s=18)
    _label(panel, "latency (ms)" if has_latency else "rank", metric)
    panel.legend(fontsize=8)
    _save(canvas, path)


def plot_correlation(
    rounds: Sequence[float], hours: Sequence[float], correlations: Sequence[float], accuracies: Sequence[float], desired: float, path: pathlib.Path
) -> None:
    """Rank correlation and median score of a proxy over rounds and over hours."""
    canvas, panels = _panels(2, 2)
    for column, (x, label) in enumerate(((rounds, "round"), (hours, "training hours"))):
        for row, (values, what) in enumerate(((correlations, "Kendall's tau"), (accuracies, "median score"))):
            panel = panels[2 * row + column]
            panel.plot(x, values, marker="o", markersize=3, linewidth=1.2)
            if row == 0:
                panel.axhline(desired, color="grey", linestyle="--", linewidth=0.9)
            _label(panel, label, what)
    _save(canvas, path)


def plot_latencies(pairs: Sequence[tuple[float, float]], path: pathlib.Path) -> None:
    """Latencies under a proxy against those of the full training."""
    canvas, (panel,) = _panels(1)
    panel.scatter(*zip(*pairs), s=18)
    _label(panel, "latency of the full task (ms)", "latency under the proxy (ms)")
    _save(canvas, path)


def _panels(rows: int, columns: int = 1) -> tuple[Any, Sequence[Any]]:
    # Imported here: it takes most of a second.
    from matplotlib import figure

    canvas = figure.Figure(figsize=(5.2 * columns, 3.4 * rows), layout="constrained")
    return canvas, list(canvas.subplots(rows, columns, squeeze=False).ravel())


def _label(panel: Any, x: str, y: str) -> None:
    panel.set_xlabel(x, fontsize=9)
    panel.set_ylabel(y, fontsize=9, **_PLAIN)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.3)


def _save(canvas: Any, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure_file.save_figure(canvas, path)
