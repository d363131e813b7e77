"""A picture of how data flows between the server and a device in one round: one panel per task."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts.tensors import shape_text
from odp_taskbuilder.inspection.checkpoint_facts import CheckpointFacts
from odp_taskbuilder.inspection.inspect import Inspection, TaskTraffic
from odp_taskbuilder.inspection.plan_facts import DistributeAggregateServer, MapReduceServer, PlanFacts
from odp_taskbuilder.ops.tflite import OpKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Centres of columns and lanes, extent of a lane around its centre, and size of a box, in inches.
_COLUMNS = (1.25, 3.75, 6.25, 8.75, 11.25, 13.75)
_SERVER, _DEVICE = 3.35, 0.9
_ABOVE, _BELOW = 1.0, 0.75
_BOX_WIDTH, _BOX_HEIGHT = 2.0, 0.85
_PANEL_WIDTH, _PANEL_HEIGHT = 15.0, 4.5
_LANES = {_SERVER: ("server", "#eef3fa"), _DEVICE: ("device", "#f1f7ee")}
# What is stored or sent, and what is executed.
_DATA, _STEP = "#ffffff", "#dfe6ef"
_LINE, _TEXT, _FAINT = "#3b4a5a", "#1d2733", "#64748b"
_MAX_FEATURES = 3
_MAX_METRICS = 4


def draw_data_flow(inspection: Inspection, path: pathlib.Path) -> None:
    """Writes the picture; the suffix of the path decides the format.

    Raises:
      UsageError: there is no plan among the files, or matplotlib does not know the format.
      StorageError: the file cannot be written.
    """
    if not inspection.traffic:
        raise errors.UsageError("There is no plan among these files whose data flow could be drawn.")
    # Imported here: it takes most of a second.
    import matplotlib
    from matplotlib import figure

    panels = [(entry, _plan_of(inspection, entry)) for entry in inspection.traffic]
    heights = [_PANEL_HEIGHT if plan.server is not None else _DEVICE + _ABOVE for _, plan in panels]
    # Text stays text in SVG: it can be searched and copied. A dollar sign in a name is a dollar sign.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "odp-task", "text.parse_math": False}):
        canvas = figure.Figure(figsize=(_PANEL_WIDTH, sum(heights) + 0.4 * len(heights)), layout="constrained")
        axes = canvas.subplots(len(panels), 1, squeeze=False, height_ratios=heights).ravel()
        for (entry, plan), height, panel_axes in zip(panels, heights, axes):
            _Panel(panel_axes, height).draw(entry, plan, _state_of(inspection, entry))
        try:
            canvas.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
        except ValueError as error:
            raise errors.UsageError(f"Cannot draw to {path}: {error}.") from error
        except OSError as error:
            raise errors.StorageError(f"Cannot write {path}: {error.strerror}") from error


def _plan_of(inspection: Inspection, entry: TaskTraffic) -> PlanFacts:
    plans = (
        file.facts
        for file in inspection.files
        if isinstance(file.facts, PlanFacts) and (file.path.parent, file.task) == (entry.directory, entry.task)
    )
    return max(plans, key=lambda plan: plan.server is not None)


def _state_of(inspection: Inspection, entry: TaskTraffic) -> Optional[CheckpointFacts]:
    """The server checkpoint of the task."""
    states = (
        file.facts
        for file in inspection.files
        if isinstance(file.facts, CheckpointFacts) and (file.path.parent, file.task) == (entry.directory, entry.task)
    )
    return next(states, None)


class _Panel:
    """One task. Boxes are named by column and lane."""

    def __init__(self, axes: Axes, height: float):
        self._axes = axes
        axes.set_xlim(0, _PANEL_WIDTH)
        axes.set_ylim(0, height)
        axes.set_aspect("equal")
        axes.axis("off")

    def draw(self, entry: TaskTraffic, plan: PlanFacts, state: Optional[CheckpointFacts]) -> None:
        traffic, graph = entry.traffic, plan.client.graph
        form = f", {plan.form} form" if plan.form else ""
        self._axes.set_title(f"{entry.task}{form}", loc="left", fontsize=12, color=_TEXT, fontweight="bold")
        self._lane(_DEVICE)
        batches = "all batches" if graph.max_batches in (-1, None) else f"{graph.max_batches} batches"
        self._box(0, _DEVICE, "examples", _features(plan), _DATA)
        self._box(1, _DEVICE, "batch, parse, take", [f"batches of {graph.batch_size or '?'}", batches], _STEP)
        self._box(2, _DEVICE, "TFLite graph", _ops(plan), _STEP)
        self._box(3, _DEVICE, "update", _tensors(len(traffic.upload), traffic.upload_bytes), _DATA)
        for left, right in ((0, 1), (1, 2), (2, 3)):
            self._arrow((left, _DEVICE), (right, _DEVICE))
        self._note(2, _DEVICE, -1, f"plan: {_bytes(traffic.plan_bytes)}")
        if plan.server is None:
            self._note(2, _DEVICE, 1, f"model down: {_bytes(traffic.download_bytes)}")
            return
        self._lane(_SERVER)
        stored = ["initial or later"] if state is None else _tensors(len(state.tensors), state.num_bytes)
        self._box(0, _SERVER, "server checkpoint", stored, _DATA)
        self._box(2, _SERVER, "prepare", [f"{len(traffic.download)} tensors to broadcast"], _STEP)
        self._box(3, _SERVER, "aggregate", _aggregations(plan), _STEP)
        self._box(4, _SERVER, "apply", ["aggregate to state"], _STEP)
        self._box(5, _SERVER, "new checkpoint", ["state and metrics"], _DATA)
        for left, right in ((0, 2), (3, 4), (4, 5)):
            self._arrow((left, _SERVER), (right, _SERVER))
        self._arrow((2, _SERVER), (2, _DEVICE), f"model down\n{_bytes(traffic.download_bytes)}")
        self._arrow((3, _DEVICE), (3, _SERVER), f"update up\n{_bytes(traffic.upload_bytes)}")
        self._state_arc()
        self._metrics([metric.name for metric in plan.server.metrics])

    def _lane(self, lane: float) -> None:
        from matplotlib.patches import FancyBboxPatch

        name, colour = _LANES[lane]
        bottom, height = lane - _BELOW, _ABOVE + _BELOW
        patch = FancyBboxPatch(
            (0.1, bottom), _PANEL_WIDTH - 0.2, height, boxstyle="round,pad=0,rounding_size=0.12", fc=colour, ec="none"
        )
        self._axes.add_patch(patch)
        self._axes.text(0.22, bottom + height - 0.08, name, fontsize=9, color=_FAINT, va="top", style="italic")

    def _box(self, column: int, lane: float, title: str, lines: Iterable[str], colour: str) -> None:
        from matplotlib.patches import FancyBboxPatch

        x, y = _COLUMNS[column], lane
        corner = (x - _BOX_WIDTH / 2, y - _BOX_HEIGHT / 2)
        style = "round,pad=0,rounding_size=0.08"
        self._axes.add_patch(FancyBboxPatch(corner, _BOX_WIDTH, _BOX_HEIGHT, boxstyle=style, fc=colour, ec=_LINE, lw=1.0))
        self._axes.text(x, y + 0.24, title, ha="center", va="center", fontsize=9.5, color=_TEXT, fontweight="bold")
        self._axes.text(x, y + 0.08, "\n".join(lines), ha="center", va="top", fontsize=7.8, color=_TEXT, linespacing=1.25)

    def _arrow(self, start: tuple[int, float], end: tuple[int, float], label: str = "") -> None:
        (column, lane), (to_column, to_lane) = start, end
        if lane == to_lane:
            tail = (_COLUMNS[column] + _BOX_WIDTH / 2, lane)
            head = (_COLUMNS[to_column] - _BOX_WIDTH / 2, lane)
        else:
            down = -1 if to_lane < lane else 1
            tail = (_COLUMNS[column], lane + down * _BOX_HEIGHT / 2)
            head = (_COLUMNS[to_column], to_lane - down * _BOX_HEIGHT / 2)
        arrow = {"arrowstyle": "-|>", "color": _LINE, "lw": 1.2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 12}
        self._axes.annotate("", xy=head, xytext=tail, arrowprops=arrow)
        x, y = (tail[0] + head[0]) / 2, (tail[1] + head[1]) / 2
        self._axes.text(x + 0.12, y, label, fontsize=8.5, color=_TEXT, va="center", ha="left", fontweight="bold")

    def _state_arc(self) -> None:
        """The state goes to `apply` as well, past the devices."""
        top = _SERVER + _BOX_HEIGHT / 2
        arrow = {
            "arrowstyle": "-|>",
            "color": _FAINT,
            "lw": 1.0,
            "shrinkA": 0,
            "shrinkB": 0,
            "connectionstyle": "arc3,rad=-0.06",
        }
        self._axes.annotate("", xy=(_COLUMNS[4], top), xytext=(_COLUMNS[0], top), arrowprops=arrow)
        self._axes.text(_COLUMNS[2], top + 0.34, "state", fontsize=8, color=_FAINT, ha="center", va="bottom")

    def _metrics(self, names: list[str]) -> None:
        """In the gap between the lanes, below `apply`."""
        if len(names) > _MAX_METRICS:
            names = [*names[: _MAX_METRICS - 1], f"and {len(names) - _MAX_METRICS + 1} more"]
        top = _SERVER - _BOX_HEIGHT / 2
        arrow = {"arrowstyle": "-|>", "color": _FAINT, "lw": 1.0, "shrinkA": 0, "shrinkB": 0}
        x = _COLUMNS[4]
        self._axes.annotate("", xy=(x, top - 0.42), xytext=(x, top), arrowprops=arrow)
        self._axes.text(x, top - 0.46, "\n".join(names), fontsize=7.8, color=_TEXT, ha="center", va="top", linespacing=1.3)

    def _note(self, column: int, lane: float, side: int, text: str) -> None:
        y = lane + side * (_BOX_HEIGHT / 2 + 0.16)
        self._axes.text(_COLUMNS[column], y, text, fontsize=8, color=_TEXT, ha="center", va="center", fontweight="bold")


def _features(plan: PlanFacts) -> list[str]:
    features = plan.client.graph.features
    lines = [f"{feature.name} {feature.dtype}{shape_text(feature.shape)}" for feature in features[:_MAX_FEATURES]]
    return lines + ([f"and {len(features) - _MAX_FEATURES} more"] if len(features) > _MAX_FEATURES else [])


def _ops(plan: PlanFacts) -> list[str]:
    ops = plan.client.ops
    counts = {kind: sum(use.count for use in ops.ops if use.kind is kind) for kind in OpKind}
    version = ops.min_module_version
    needs = "no phone runs it" if version is None else f"module {version or 'any'}"
    return [f"{counts[OpKind.BUILTIN]} builtin, {counts[OpKind.FLEX]} flex ops", needs]


def _tensors(count: int, num_bytes: Optional[int]) -> list[str]:
    return [f"{count} tensors", _bytes(num_bytes)]


def _bytes(number: Optional[int]) -> str:
    return "size unknown" if number is None else f"{number:,} bytes"


def _aggregations(plan: PlanFacts) -> list[str]:
    if isinstance(plan.server, DistributeAggregateServer):
        return sorted({aggregation.intrinsic for aggregation in plan.server.aggregations})
    if isinstance(plan.server, MapReduceServer):
        return ["sum in the graph", "partial and final"]
    return []
