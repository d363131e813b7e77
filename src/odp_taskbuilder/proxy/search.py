"""Proxy-task search: for each proxy the references train under it while the rank correlation of their scores with those of their full
training is watched. The best proxy is the one that agrees at the least cost.

One lucky evaluation is no agreement: by default two in a row must show the desired correlation, each with a p-value that few unrelated
rankings reach (On Noisy Evaluation in Federated Hyperparameter Tuning, MLSys 2023, tells what such evaluations are worth).
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import shlex
import shutil
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.base.keyword_only import keyword_only
from odp_taskbuilder.proxy import plots
from odp_taskbuilder.proxy.jobs import TrialResult
from odp_taskbuilder.proxy.selection import Reference, read_selection
from odp_taskbuilder.proxy.space import Proxy
from odp_taskbuilder.proxy.statistics import (
    INVALID_CORRELATION,
    INVALID_VALUE,
    MIN_PAIRS,
    MIN_VALID_SHARE,
    RankCorrelation,
    kendall,
)
from odp_taskbuilder.proxy.variance import copies_spread
from odp_taskbuilder.proxy.workshop import Entry, Workshop, read_json

STATE, BEST_SCRIPT = "SEARCH_CONTROLLER_STATE.json", "best_proxy_task.sh"
_DIRECTORY = "search"
_PROGRESS = f"{_DIRECTORY}/search.json"
# Of the way from the worst full score to the best one, what a proxy's best score must have come. Candidates rank by how soon they learn
# also where nothing can be learnt: labels shuffled among each client's examples gave tau 0.82 with scores at chance.
_LEARNT = 0.2

MET_CORRELATION = "Met desired correlation"
MET_ACCURACY = "Met desired accuracy"
TIME_LIMIT = "Exceeded training time limit"
NOT_BEST = "Exceeded best training time"
LATENCY_FAILED = "Failed desired latency correlation"
JOB_FAILED = "Proxy task job failed"
COMPLETED = "Ran till completion"
EXCESS_FAILURES = "Excess trial failures"


@keyword_only
@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """When a proxy agrees, and when it is given up.

    Attributes:
      desired_accuracy_correlation: Kendall's tau of the scores.
      hold: evaluations in a row that must show it.
      max_p: p-value that each of them may have at most. Below 1, a proxy also agrees only where it learns: where its best score is above the
        worst full score by a fifth of what the full scores differ by. `hold=1, max_p=1` is the rule of Google's tool.
      desired_latency_correlation: of the latencies, measured before anything is trained; None asks for none.
      desired_accuracy: median score at which a proxy ends, agreed or not; None for none.
      time_limit_hours: median training time at which it ends; None for none.
      early_stop_proxy_task_if_not_best: end a proxy that costs more than the best one so far.
      rounds: that a proxy has at most; None takes those of the full training.
      cost: what is least of the best proxy, "time" or "client_updates".
    """

    desired_accuracy_correlation: float = 0.65
    hold: int = 2
    max_p: float = 0.05
    desired_latency_correlation: Optional[float] = None
    desired_accuracy: Optional[float] = None
    time_limit_hours: Optional[float] = None
    early_stop_proxy_task_if_not_best: bool = False
    rounds: Optional[int] = None
    cost: str = "time"


@dataclasses.dataclass(frozen=True)
class FoundProxy:
    """A proxy at its end.

    Attributes:
      correlation: of the last evaluation.
      rounds: that it ran.
      cost_share: client runs of a trial, in those of the full training.
    """

    name: str
    stopping_state: str
    correlation: float
    p_value: float
    rounds: int
    training_hours: float
    cost_share: float

    @property
    def agrees(self) -> bool:
        return self.stopping_state == MET_CORRELATION


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """A search at its end.

    Attributes:
      best: name of the proxy that agrees at the least cost; None if none does.
    """

    proxies: tuple[FoundProxy, ...]
    best: Optional[str]


def search(
    workshop: Workshop,
    proxies: Sequence[Proxy],
    options: SearchOptions,
    *,
    previous_selection: Optional[pathlib.Path] = None,
    previous: Optional[pathlib.Path] = None,
) -> SearchResult:
    """Runs what the directory does not hold yet; proxies that are finished there are not run again.

    Args:
      previous_selection: directory of the selection with the full scores; None takes this one's.
      previous: directory of another search to go on from, where this one holds none.

    Raises:
      ModelError: the references differ no more than copies of one do.
      UsageError: there is no finished selection, or a proxy of a known name has other arguments.
    """
    _check_names(proxies)
    selection = read_selection(workshop, previous_selection)
    references = selection.references
    _require_spread(workshop, references)
    _take_over(workshop, previous)
    progress = workshop.read(_PROGRESS) or {"best": None, "proxies": {}}
    settings = dataclasses.asdict(options)
    entries = _reference_entries(workshop, references)
    for proxy in proxies:
        state = progress["proxies"].setdefault(proxy.name, _new_state(proxy))
        if state["dimensions"] != dataclasses.asdict(proxy.dimensions):
            raise errors.UsageError(
                f"{workshop.root} holds a proxy {proxy.name!r} with other arguments.", next_step="Give a new proxy a name of its own."
            )
        _Watch(workshop, proxy, options, references, entries, progress).run()
    result = _result(progress, references, selection_updates(workshop, previous_selection))
    progress["options"] = settings
    _write(workshop, progress)
    if result.best is not None:
        workshop.write(f"{_DIRECTORY}/{BEST_SCRIPT}", _script(workshop, progress["proxies"][result.best], result.best))
        (workshop.root / _DIRECTORY / BEST_SCRIPT).chmod(0o755)
    return result


class _Watch:
    """One proxy, watched until it agrees or is given up."""

    def __init__(
        self,
        workshop: Workshop,
        proxy: Proxy,
        options: SearchOptions,
        references: Sequence[Reference],
        entries: Mapping[str, Entry],
        progress: dict[str, Any],
    ):
        self._workshop = workshop
        self._proxy = proxy
        self._options = options
        self._references = {reference.name: reference for reference in references}
        self._entries = entries
        self._progress = progress
        self._state = progress["proxies"][proxy.name]

    def run(self) -> None:
        state, most = self._state, self._max_rounds()
        if state["stopping_state"] == COMPLETED and state["steps"] and state["steps"][-1]["round"] < most:
            state["stopping_state"] = None  # More rounds were added.
        if state["stopping_state"] is not None:
            return
        trials = self._trials()
        if not self._latency_agrees(trials):
            return
        every = max(self._workshop.evaluation_every(entry) for entry in self._entries.values())
        done = state["steps"][-1]["round"] if state["steps"] else 0
        for number in [*range((done // every + 1) * every, most, every), most]:
            active = {name: trial for name, trial in trials.items() if name not in state["failures"]}
            rounds = {name: min(number, self._references[name].rounds) for name in active}
            results = self._workshop.run(active, rounds, self._proxy.name)
            self._add(number, results, rounds)
            state["stopping_state"] = self._why_to_stop(is_last=number == most)
            self._save()
            if state["stopping_state"] is not None:
                break
        self._plot()
        step = state["steps"][-1]
        self._workshop.tell(
            f"{self._proxy.name}: {state['stopping_state']} after {step['round']} rounds, tau {step['tau']:.3f}, p {step['p']:.2g}"
        )

    def _max_rounds(self) -> int:
        longest = max(reference.rounds for reference in self._references.values())
        return min(self._options.rounds or longest, longest)

    def _trials(self) -> dict[str, Any]:
        dimensions = self._proxy.dimensions
        scaled = self._workshop.scaled(list(self._entries.values()), dimensions.model_scale)
        return {entry.name: self._workshop.trial(entry, self._proxy.name, dimensions) for entry in scaled}

    def _latency_agrees(self, trials: Mapping[str, Any]) -> bool:
        """Measures latencies once, and ends a proxy whose do not rank as the full ones."""
        state, desired = self._state, self._options.desired_latency_correlation
        if not self._workshop.measures_latency:
            return True
        if state["latencies"] is None:
            latencies = {name: found.milliseconds for name, found in self._workshop.latencies(trials).items()}
            state["latencies"] = latencies
            pairs = [(self._references[name].latency, value) for name, value in latencies.items()]
            found = kendall(*zip(*pairs)) if pairs else RankCorrelation(INVALID_CORRELATION, INVALID_CORRELATION, 0)
            state["latency_tau"], state["latency_p"] = found.tau, found.p_value
            valid = [pair for pair in pairs if None not in pair]
            if valid:
                plots.plot_latencies(valid, self._workshop.root / _DIRECTORY / self._proxy.name / "latency_correlation.png")
        if desired is not None and state["latency_tau"] < desired:
            state["stopping_state"] = LATENCY_FAILED
            self._save()
            self._workshop.tell(f"{self._proxy.name}: {LATENCY_FAILED}, tau {state['latency_tau']:.3f}")
            return False
        return True

    def _add(self, number: int, results: Mapping[str, TrialResult], rounds: Mapping[str, int]) -> None:
        """Adds a step to the state."""
        state = self._state
        state["failures"].update({name: result.failure for name, result in results.items() if result.failure is not None})
        scores = {name: result.score_at(rounds[name]) for name, result in results.items()}
        names = list(self._references)
        found = kendall([self._references[name].score for name in names], [scores.get(name) for name in names])
        good = [result for result in results.values() if result.failure is None]
        state["steps"].append(
            {
                "round": number,
                "tau": found.tau,
                "p": found.p_value,
                "scores": {name: score for name, score in scores.items() if score is not None},
                "accuracy": statistics.median(score for score in scores.values() if score is not None) if good else INVALID_VALUE,
                "hours": statistics.median(result.training_seconds for result in good) / 3600 if good else INVALID_VALUE,
                "client_updates": statistics.median(result.client_updates for result in good) if good else INVALID_VALUE,
                "communicated_bytes": statistics.median(result.communicated_bytes for result in good) if good else INVALID_VALUE,
            }
        )

    def _why_to_stop(self, *, is_last: bool) -> Optional[str]:
        state, options = self._state, self._options
        step, total = state["steps"][-1], len(self._references)
        valid = len(step["scores"])
        if not valid:
            return JOB_FAILED
        if valid < MIN_PAIRS or valid < MIN_VALID_SHARE * total:
            return EXCESS_FAILURES
        held = state["steps"][-options.hold :]
        if len(held) == options.hold and all(self._is_correlated(past) and self._learns(past) for past in held):
            return MET_CORRELATION
        if options.desired_accuracy is not None and step["accuracy"] >= options.desired_accuracy:
            return MET_ACCURACY
        if options.time_limit_hours is not None and step["hours"] > options.time_limit_hours:
            return TIME_LIMIT
        best = _best(self._progress, options.cost)
        if options.early_stop_proxy_task_if_not_best and best is not None and _cost(step, options.cost) > _cost(
            self._progress["proxies"][best]["steps"][-1], options.cost
        ):
            return NOT_BEST
        return COMPLETED if is_last else None

    def _is_correlated(self, step: Mapping[str, Any]) -> bool:
        return step["tau"] >= self._options.desired_accuracy_correlation and 0 <= step["p"] <= self._options.max_p

    def _learns(self, step: Mapping[str, Any]) -> bool:
        full = [reference.score for reference in self._references.values()]
        return self._options.max_p >= 1 or max(step["scores"].values()) >= min(full) + _LEARNT * (max(full) - min(full))

    def _save(self) -> None:
        self._progress["best"] = _best(self._progress, self._options.cost)
        _write(self._workshop, self._progress)

    def _plot(self) -> None:
        steps, directory = self._state["steps"], self._workshop.root / _DIRECTORY / self._proxy.name
        plots.plot_correlation(
            [step["round"] for step in steps],
            [step["hours"] for step in steps],
            [step["tau"] if step["tau"] != INVALID_CORRELATION else math.nan for step in steps],
            [step["accuracy"] for step in steps],
            self._options.desired_accuracy_correlation,
            directory / "correlation.png",
        )


def best_proxy(workshop: Workshop, name: Optional[str]) -> tuple[Proxy, int]:
    """A proxy that the directory's search ran, and how many rounds; by default the best one.

    Raises:
      UsageError: there is none.
    """
    from odp_taskbuilder.proxy.space import Dimensions

    progress = workshop.read(_PROGRESS)
    name = name or (progress and progress["best"])
    if progress is None or name is None:
        raise errors.UsageError(
            f"{workshop.root} holds no proxy that agrees with the full training.", next_step="Run `odp-task proxy search` first."
        )
    state = progress["proxies"].get(name)
    if state is None or not state["steps"]:
        raise errors.UsageError(f"{workshop.root} holds no proxy {name!r}.", next_step=f"There are: {', '.join(progress['proxies']) or 'none'}.")
    return Proxy(name, Dimensions(**state["dimensions"])), state["steps"][-1]["round"]


def selection_updates(workshop: Workshop, previous: Optional[pathlib.Path]) -> float:
    """Client runs of a full training, the mean of the references'."""
    path = workshop.root / "selection/selection.json"
    if previous is not None:
        path = next(found for found in (previous / "selection/selection.json", previous / "selection.json") if found.exists())
    last = read_json(path)["iterations"][-1]
    return statistics.fmean(last["client_updates"][name] for name in last["scores"])


def _check_names(proxies: Sequence[Proxy]) -> None:
    seen: set[str] = set()
    for proxy in proxies:
        if proxy.name.casefold() in seen:
            raise errors.UsageError(f"Two proxies have the name {proxy.name!r}.", next_step="Give each a name of its own.")
        if proxy.name == "full" or proxy.name.startswith("variance_copy_"):
            raise errors.UsageError(f"A proxy cannot be named {proxy.name!r}: that is the full training.", next_step="Give it another name.")
        seen.add(proxy.name.casefold())
    if not proxies:
        raise errors.UsageError("There is no proxy to try.", next_step="Add --vary or --proxies.")


def _require_spread(workshop: Workshop, references: Sequence[Reference]) -> None:
    """Refuses references that differ no more than copies of one model do: nothing could rank them.

    Copies are those of `proxy variance` in the same directory; without them, the last evaluations of each reference stand in, which
    vary less than copies do.
    """
    spread = float(np.std([reference.score for reference in references], ddof=1))
    measured = copies_spread(workshop)
    if measured is not None:
        name, scores = measured
        chance, what = float(np.std(scores, ddof=1)), f"{len(scores)} copies of {name}"
    else:
        deviations = [np.std([score for _, score in reference.curve[-3:]], ddof=1) for reference in references if len(reference.curve) > 2]
        chance, what = float(np.mean(deviations)) if deviations else 0.0, "the last three evaluations of one reference"
    if spread <= chance:
        raise errors.ModelError(
            f"The {len(references)} references differ no more than chance does: their scores have standard deviation {spread:.4g}, those of "
            f"{what} {chance:.4g}. No proxy could rank them.",
            next_step="Widen the search space, or train longer or on more clients, in another --dir.",
        )


def _reference_entries(workshop: Workshop, references: Sequence[Reference]) -> dict[str, Entry]:
    """The candidates that the references are, from the space."""
    known = list(workshop.read("candidates.json") or {})
    names = [reference.name for reference in references]
    missing = [name for name in names if name not in known]
    number = max(known.index(name) for name in names) + 1 if not missing else 0
    if missing:
        raise errors.UsageError(
            f"{workshop.root} holds no candidate {missing[0]!r} of the selection.", next_step="Search in the --dir of the selection."
        )
    entries = {entry.name: entry for entry in workshop.candidates(number)}
    return {name: entries[name] for name in names}


def _new_state(proxy: Proxy) -> dict[str, Any]:
    return {
        "dimensions": dataclasses.asdict(proxy.dimensions),
        "steps": [],
        "failures": {},
        "latencies": None,
        "latency_tau": INVALID_CORRELATION,
        "latency_p": INVALID_CORRELATION,
        "stopping_state": None,
    }


def _cost(step: Mapping[str, Any], cost: str) -> float:
    return step["hours"] if cost == "time" else step["client_updates"]


def _best(progress: Mapping[str, Any], cost: str) -> Optional[str]:
    agreed = [name for name, state in progress["proxies"].items() if state["stopping_state"] == MET_CORRELATION]
    return min(agreed, key=lambda name: _cost(progress["proxies"][name]["steps"][-1], cost), default=None)


def _result(progress: Mapping[str, Any], references: Sequence[Reference], full_updates: float) -> SearchResult:
    found = []
    for name, state in progress["proxies"].items():
        step: dict[str, Any] = state["steps"][-1] if state["steps"] else {"tau": INVALID_CORRELATION, "p": INVALID_CORRELATION, "round": 0, "hours": 0.0, "client_updates": 0}
        found.append(
            FoundProxy(name, state["stopping_state"] or "", step["tau"], step["p"], step["round"], step["hours"], step["client_updates"] / full_updates)
        )
    return SearchResult(tuple(found), progress["best"])


def _write(workshop: Workshop, progress: Mapping[str, Any]) -> None:
    workshop.write(_PROGRESS, progress)
    tasks = {name: _published(workshop, name, state) for name, state in progress["proxies"].items()}
    workshop.write(f"{_DIRECTORY}/{STATE}", {"proxy_tasks_map": tasks, "best_proxy_task_name": progress["best"] or ""})


def _published(workshop: Workshop, name: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """A proxy's state as readers of Google's tool expect it."""
    steps, is_over = state["steps"], state["stopping_state"] is not None
    last = steps[-1] if steps and is_over else None
    return {
        "proxy_task_stats": {
            "training_steps": [step["round"] for step in steps],
            "accuracy_correlation_over_step": [step["tau"] for step in steps],
            "accuracy_correlation_p_value_over_step": [step["p"] for step in steps],
            "median_accuracy_over_step": [step["accuracy"] for step in steps],
            "median_training_time_hrs_over_step": [step["hours"] for step in steps],
            "latency_correlation": state["latency_tau"],
            "latency_correlation_p_value": state["latency_p"],
            "stopping_state": state["stopping_state"] or "",
            "posted_stop_trials_message": is_over and state["stopping_state"] != COMPLETED,
            "final_training_time_in_hours": last["hours"] if last else INVALID_VALUE,
            "final_training_steps": last["round"] if last else INVALID_VALUE,
        },
        "proxy_task_name": name,
        "search_job_name": f"proxy_{name}",
        "search_job_link": str(workshop.root / "trials" / name),
        "latency_calculator_job_name": workshop.settings["latency"],
        "latency_calculator_job_link": "",
    }


def _script(workshop: Workshop, state: Mapping[str, Any], name: str) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in state["dimensions"].items() if value is not None)
    step = state["steps"][-1]
    command = f"odp-task proxy rank --dir {shlex.quote(str(workshop.root.resolve()))} --proxy {shlex.quote(name)} --rounds {step['round']}"
    return (
        "#!/bin/sh\n"
        f"# Trains candidates under the proxy that agreed with the full training at the least cost: {arguments}.\n"
        f"# Kendall's tau was {step['tau']:.3f}, p {step['p']:.2g}. Options are added to the command, for example --number 200.\n"
        # The space and the data may have been named from here.
        f"cd {shlex.quote(os.getcwd())} || exit 7\n"
        f'exec {command} "$@"\n'
    )


def _take_over(workshop: Workshop, previous: Optional[pathlib.Path]) -> None:
    """Copies another directory's trials and progress, where this one has none."""
    if previous is None or workshop.read(_PROGRESS) is not None:
        return
    path = next((path for path in (previous / _PROGRESS, previous / "search.json") if path.exists()), None)
    if path is None:
        raise errors.UsageError(f"{previous} holds no proxy search.", next_step="Name the --dir of a former `odp-task proxy search`.")
    root = path.parent.parent
    progress = read_json(path)
    try:
        for name in progress["proxies"]:
            if (root / "trials" / name).is_dir() and root.resolve() != workshop.root.resolve():
                shutil.copytree(root / "trials" / name, workshop.root / "trials" / name, dirs_exist_ok=True)
    except OSError as error:
        raise errors.StorageError(f"Cannot copy {root} to {workshop.root}: {error}") from error
    workshop.write(_PROGRESS, progress)
