"""How much the score of one candidate varies when nothing but chance differs, and how smoothly it grows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.proxy import plots
from odp_taskbuilder.proxy.failures import table_of_causes
from odp_taskbuilder.proxy.jobs import TrialResult
from odp_taskbuilder.proxy.space import SEEDS
from odp_taskbuilder.proxy.statistics import GOOD_SMOOTHNESS, GOOD_VARIANCE, coefficient_of_variation, smoothness
from odp_taskbuilder.proxy.workshop import FULL, Entry, Workshop

MAX_ATTEMPTS = 10
_STATE, _RESULT, _COPIES = "variance/measurement_state.json", "variance/variance_and_smoothness.json", "variance/copies.json"


@dataclasses.dataclass(frozen=True)
class VarianceOptions:
    """What is measured.

    Attributes:
      copies: of one candidate.
      fixed: those of SEEDS that are the same in all copies.
    """

    copies: int = 5
    fixed: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Variance:
    """A measurement.

    Attributes:
      candidate: whose copies were trained.
      scores: final ones of the copies.
      variance: coefficient of variation of them.
      smoothness: mean of the copies' (statistics.smoothness).
    """

    candidate: str
    scores: tuple[float, ...]
    variance: float
    smoothness: float

    @property
    def variance_info(self) -> str:
        shown = f"coefficient of variation {self.variance:.3g}"
        if self.variance <= GOOD_VARIANCE:
            return f"Good: the {shown} is at most {GOOD_VARIANCE:g}."
        return f"Not good: the {shown} is above {GOOD_VARIANCE:g}. Scores of single trainings say little; train longer or on more clients."

    @property
    def smoothness_info(self) -> str:
        if self.smoothness <= GOOD_SMOOTHNESS:
            return f"Good: the smoothness {self.smoothness:.3g} is at most {GOOD_SMOOTHNESS:g}."
        return (
            f"Not good: the smoothness {self.smoothness:.3g} is above {GOOD_SMOOTHNESS:g}. Scores go up and down while they grow; lower the "
            "learning rates or evaluate on more clients."
        )


def measure_variance(workshop: Workshop, options: VarianceOptions) -> Variance:
    """Finds a candidate that trains, trains copies of it, and writes state, result and plot to DIR/variance.

    Raises:
      ModelError: none of the first ten candidates trains.
      UsageError: the directory holds a measurement of other options.
    """
    settings = {"copies": options.copies, "fixed": sorted(options.fixed)}
    former = workshop.read(_COPIES)
    if former is not None and former["settings"] != settings:
        raise errors.UsageError(
            f"{workshop.root} holds a measurement with {former['settings']}, not {settings}.", next_step="Repeat its options, or name another --dir."
        )
    failures: dict[str, str] = {}
    for entry in _first_candidates(workshop):
        results = _train_copies(workshop, entry, options)
        failed = [result.failure for result in results.values() if result.failure is not None]
        if failed:
            failures[entry.name] = failed[0]
            workshop.tell(f"{entry.name} does not train: {failed[0]}")
            continue
        measured = _measured(entry.name, list(results.values()))
        _write(workshop, entry, results, measured, settings)
        return measured
    raise errors.ModelError(
        f"None of the first {len(failures)} candidates trains:\n{table_of_causes(failures)}", next_step="Mend the search space or the data."
    )


def copies_spread(workshop: Workshop) -> Optional[tuple[str, list[float]]]:
    """The candidate and the scores of a measurement in the directory; None if there is none."""
    document = workshop.read(_COPIES)
    return None if document is None else (document["candidate"], document["scores"])


def _first_candidates(workshop: Workshop) -> list[Entry]:
    """As many as there are, ten at most."""
    for number in range(MAX_ATTEMPTS, 0, -1):
        try:
            return workshop.candidates(number)
        except errors.UsageError as error:
            if "are asked for" not in error.message:
                raise
    raise errors.UsageError("The search space has no candidates.")


def _train_copies(workshop: Workshop, entry: Entry, options: VarianceOptions) -> dict[str, TrialResult]:
    """The first copy tells whether the candidate trains at all."""
    if entry.failure is not None:
        return {entry.name: TrialResult(entry.name, entry.failure)}
    seeds = {name: [0 if name in options.fixed else number for number in range(options.copies)] for name in SEEDS}
    weights_seeds = [workshop.settings["seed"] + seed for seed in seeds["weights"]]
    copies = workshop.copies(entry, f"variance/copies/{entry.name}", weights_seeds)
    trials = {
        f"copy_{number + 1}": dataclasses.replace(
            workshop.trial(
                copy, f"variance_copy_{number + 1}", sampling_seed=0, noise_seed=0
            ),
            sampling_seed=workshop.settings["seed"] + seeds["sampling"][number],
            noise_seed=workshop.settings["seed"] + seeds["noise"][number],
        )
        for number, copy in enumerate(copies)
    }
    rounds = dict.fromkeys(trials, entry.rounds)
    first = next(iter(trials))
    results = workshop.run({first: trials[first]}, rounds, "copy")
    if results[first].failure is None:
        results.update(workshop.run({name: trial for name, trial in trials.items() if name != first}, rounds, "copies"))
    for name, result in results.items():
        if result.failure is None:
            workshop.write_trial_metrics(trials[name], result, -1.0, entry.rounds)
    return results


def _measured(name: str, results: Sequence[TrialResult]) -> Variance:
    scores = tuple(result.score for result in results)
    smooth = [smoothness(*zip(*result.curve)) for result in results]
    return Variance(name, scores, coefficient_of_variation(scores), sum(smooth) / len(smooth))


def _write(
    workshop: Workshop, entry: Entry, results: Mapping[str, TrialResult], measured: Variance, settings: Mapping[str, Any]
) -> None:
    directories = [str(workshop.root / "trials" / f"variance_{name}" / entry.name) for name in results]
    workshop.write(_COPIES, {"candidate": entry.name, "scores": measured.scores, "settings": settings})
    workshop.write(
        _STATE, {"workable_model_dir": str(entry.directory), "training_job_name": f"{FULL}/{entry.name}", "finished_model_dirs": directories}
    )
    workshop.write(
        _RESULT,
        {
            "variance_value": measured.variance if math.isfinite(measured.variance) else -1.0,
            "variance_info": measured.variance_info,
            "smoothness_value": measured.smoothness,
            "smoothness_info": measured.smoothness_info,
        },
    )
    plots.plot_curves({name: result.curve for name, result in results.items()}, workshop.metric, workshop.root / "variance/variance.png")
