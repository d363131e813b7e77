"""Model selection: which candidates are trained to their end, so that proxies can be compared with them.

All begin; after each iteration those go that the spread of scores and latencies misses least; the others go on from where they are. What
remains is no choice of the best, but of candidates that differ: a proxy must tell them apart.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.proxy import plots
from odp_taskbuilder.proxy.failures import require_few, table_of_causes
from odp_taskbuilder.proxy.statistics import INVALID_VALUE, MIN_PAIRS, least_missed
from odp_taskbuilder.proxy.workshop import FULL, Entry, Workshop, read_json

STATE = "MODEL_SELECTION_STATE.json"
_DIRECTORY, _PROGRESS = "selection", "selection/selection.json"
_COMPLETE_PERCENT = 101.0
LATENCY_METRIC = "latency_in_milliseconds"


@dataclasses.dataclass(frozen=True)
class SelectionOptions:
    """Attributes:
    start, remove, final: number of candidates at the beginning, after each iteration fewer, at the end.
    """

    start: int = 30
    remove: int = 5
    final: int = 10

    def __post_init__(self) -> None:
        if not MIN_PAIRS <= self.final <= self.start or self.remove < 1:
            raise errors.UsageError(
                f"Of --start {self.start} candidates --final {self.final} cannot remain, by --remove {self.remove} at a time.",
                next_step=f"--final is at least {MIN_PAIRS}, which a rank correlation needs, and at most --start.",
            )

    def schedule(self) -> list[tuple[int, float]]:
        """(number of candidates, percent of the full training that they have after it) of each iteration.

        >>> SelectionOptions(30, 5, 10).schedule()
        [(30, 3.33), (25, 7.33), (20, 12.33), (15, 19.0), (10, 101.0)]
        """
        number, percent, result = self.start, 0.0, []
        while number > self.final:
            percent += 100 / number
            result.append((number, round(percent, 2)))
            number = max(self.final, number - self.remove)
        return [*result, (self.final, _COMPLETE_PERCENT)]


@dataclasses.dataclass(frozen=True)
class Reference:
    """A candidate that was trained to its end.

    Attributes:
      rounds: of its training.
      latency: milliseconds; None where it was not measured.
    """

    name: str
    score: float
    rounds: int
    latency: Optional[float]
    curve: tuple[tuple[int, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Selection:
    """A selection at its end.

    Attributes:
      references: what remained, best first.
      failures: of candidates, with their causes.
      full_trainings: client runs of all trials, in those of a full training.
    """

    references: tuple[Reference, ...]
    failures: Mapping[str, str]
    full_trainings: float


def select(workshop: Workshop, options: SelectionOptions, previous: Optional[pathlib.Path] = None) -> Selection:
    """Runs the iterations that the directory does not hold yet.

    Args:
      previous: directory of another selection to go on from, where this one holds none.

    Raises:
      ModelError: more than a fifth of the candidates fail in the first iteration, or later too few remain.
      UsageError: the directory holds a selection of other numbers.
    """
    _take_over(workshop, previous)
    progress = workshop.read(_PROGRESS) or {"options": dataclasses.asdict(options), "iterations": []}
    if progress["options"] != dataclasses.asdict(options):
        former = progress["options"]
        raise errors.UsageError(
            f"{workshop.root} holds a selection with --start {former['start']} --remove {former['remove']} --final {former['final']}.",
            next_step="Repeat these, or name another --dir.",
        )
    entries = {entry.name: entry for entry in workshop.candidates(options.start)}
    # Where the full training has become longer, the last iteration goes on.
    last = progress["iterations"][-1] if progress["iterations"] else None
    if last is not None and last["percent"] == _COMPLETE_PERCENT and any(
        entries[name].rounds > rounds for name, rounds in last["rounds"].items() if name in last["scores"]
    ):
        progress["iterations"].pop()
    failures: dict[str, str] = {}
    latencies: dict[str, Optional[float]] = {}
    active = list(entries)
    for number, (planned, percent) in enumerate(options.schedule()):
        if number < len(progress["iterations"]):
            iteration = progress["iterations"][number]
        else:
            iteration = _iteration(workshop, [entries[name] for name in active], percent, latencies, f"iteration {number + 1}")
            if number == 0:
                require_few(iteration["failures"], options.start)
            following = options.schedule()[number + 1][0] if percent != _COMPLETE_PERCENT else planned
            iteration["removed"] = _removed(iteration, following)
            progress["iterations"].append(iteration)
            _write(workshop, options, progress, number)
        failures.update(iteration["failures"])
        latencies.update(iteration["latencies"])
        active = [name for name in iteration["scores"] if name not in iteration["removed"]]
        if len(active) < MIN_PAIRS:
            raise errors.ModelError(
                f"After iteration {number + 1} {len(active)} candidates are left; a rank correlation needs {MIN_PAIRS}.\n"
                f"{table_of_causes(failures)}",
                next_step="Begin with more candidates, or mend those that fail, in another --dir.",
            )
    return _selection(progress, failures)


def read_selection(workshop: Workshop, previous: Optional[pathlib.Path] = None) -> Selection:
    """The finished selection of the directory, or of another one.

    Raises:
      UsageError: there is none, or it is not finished.
    """
    path = workshop.root / _PROGRESS if previous is None else _located(previous)
    progress = read_json(path)
    if progress is None or not progress["iterations"] or progress["iterations"][-1]["percent"] != _COMPLETE_PERCENT:
        raise errors.UsageError(
            f"{path.parent.parent} holds no finished selection, which says what full trainings score.", next_step="Run `odp-task proxy select` first."
        )
    failures = {name: cause for iteration in progress["iterations"] for name, cause in iteration["failures"].items()}
    return _selection(progress, failures)


def _iteration(
    workshop: Workshop, entries: Sequence[Entry], percent: float, latencies: Mapping[str, Optional[float]], what: str
) -> dict[str, Any]:
    """Trains and measures; returns what is kept of it, as JSON values."""
    rounds = {entry.name: _rounds(entry.rounds, percent) for entry in entries}
    trials = {entry.name: workshop.trial(entry, FULL) for entry in entries}
    results = workshop.run(trials, rounds, what)
    failures = {name: result.failure for name, result in results.items() if result.failure is not None}
    new = {name: trial for name, trial in trials.items() if name not in failures and name not in latencies}
    measured: dict[str, Optional[float]] = {name: latency for name, latency in latencies.items() if name in results}
    for name, found in workshop.latencies(new).items():
        if found.failure is not None:
            failures[name] = found.failure
        measured[name] = found.milliseconds
    good = {name: result for name, result in results.items() if name not in failures}
    for name, result in good.items():
        latency = measured.get(name)
        total = next(entry.rounds for entry in entries if entry.name == name)
        workshop.write_trial_metrics(trials[name], result, INVALID_VALUE if latency is None else latency, total)
    return {
        "percent": percent,
        "names": [entry.name for entry in entries],
        "rounds": rounds,
        "scores": {name: result.score for name, result in good.items()},
        "latencies": {name: measured[name] for name in good if name in measured},
        "client_updates": {name: result.client_updates for name, result in good.items()},
        "training_seconds": {name: result.training_seconds for name, result in good.items()},
        "curves": {name: result.curve for name, result in good.items()},
        "failures": failures,
    }


def _rounds(total: int, percent: float) -> int:
    return total if percent == _COMPLETE_PERCENT else min(total, max(1, math.ceil(total * percent / 100)))


def _removed(iteration: Mapping[str, Any], keep: int) -> list[str]:
    scores, latencies = iteration["scores"], iteration["latencies"]
    points = {name: (score, latencies[name]) if name in latencies else (score,) for name, score in scores.items()}
    return least_missed(points, max(0, len(scores) - keep))


def _write(workshop: Workshop, options: SelectionOptions, progress: Mapping[str, Any], number: int) -> None:
    workshop.write(_PROGRESS, progress)
    workshop.write(f"{_DIRECTORY}/{STATE}", _published(workshop, options, progress))
    iteration = progress["iterations"][number]
    plots.plot_scores(iteration, workshop.metric, workshop.root / _DIRECTORY / f"iteration_{number + 1}" / "filtered_trial_scores.png")
    workshop.tell(
        f"iteration {number + 1}: {len(iteration['scores'])} candidates after {min(iteration['percent'], 100):g} % of the training, "
        f"{len(iteration['failures'])} failed; dropped: {', '.join(iteration['removed']) or 'none'}"
    )


def _published(workshop: Workshop, options: SelectionOptions, progress: Mapping[str, Any]) -> dict[str, Any]:
    """The state as readers of Google's tool expect it."""
    mode = workshop.settings["latency"]
    iterations = [
        {
            "num_trials": len(iteration["names"]),
            "trials_to_retrain": [name for name in iteration["scores"] if name not in iteration["removed"]],
            "search_job_name": f"selection_iteration_{number + 1}",
            "search_job_link": str(workshop.root / "trials" / FULL),
            "latency_calculator_job_name": mode,
            "latency_calculator_job_link": "",
            "desired_training_step_pct": iteration["percent"],
        }
        for number, iteration in enumerate(progress["iterations"])
    ]
    return {
        "start_num_models": options.start,
        "final_num_models": options.final,
        "num_models_to_remove_per_iter": options.remove,
        "accuracy_metric_id": workshop.metric,
        "latency_metric_id": LATENCY_METRIC,
        "iterations": iterations,
    }


def _selection(progress: Mapping[str, Any], failures: Mapping[str, str]) -> Selection:
    last = progress["iterations"][-1]
    references = [
        Reference(
            name, score, last["rounds"][name], last["latencies"].get(name), tuple((number, value) for number, value in last["curves"][name])
        )
        for name, score in last["scores"].items()
    ]
    ran: dict[str, int] = {}
    for iteration in progress["iterations"]:
        ran.update(iteration["client_updates"])
    full = [last["client_updates"][name] for name in last["scores"]]
    cost = sum(ran.values()) / (sum(full) / len(full))
    return Selection(tuple(sorted(references, key=lambda reference: (-reference.score, reference.name))), dict(failures), cost)


def _located(previous: pathlib.Path) -> pathlib.Path:
    """The progress file in the directory of a former selection, given as --dir or as `selection` in it."""
    for path in (previous / _PROGRESS, previous / pathlib.Path(_PROGRESS).name):
        if path.exists():
            return path
    raise errors.UsageError(f"{previous} holds no model selection.", next_step="Name the --dir of a former `odp-task proxy select`.")


def _take_over(workshop: Workshop, previous: Optional[pathlib.Path]) -> None:
    """Copies another directory's trainings, candidates and progress, where this one has none."""
    if previous is None or workshop.read(_PROGRESS) is not None:
        return
    path = _located(previous)
    root = path.parent.parent
    if root.resolve() == workshop.root.resolve():
        return
    try:
        for name in ("candidates", f"trials/{FULL}"):
            if (root / name).is_dir():
                shutil.copytree(root / name, workshop.root / name, dirs_exist_ok=True)
        for name in ("candidates.json", f"{_DIRECTORY}/{STATE}"):
            if (root / name).exists():
                (workshop.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / name, workshop.root / name)
    except OSError as error:
        raise errors.StorageError(f"Cannot copy {root} to {workshop.root}: {error}") from error
    # Last: a copy that was interrupted is made again.
    workshop.write(_PROGRESS, read_json(path))
