"""What is asked of the worker processes of proxy tasks, and what they answer."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Optional

from odp_taskbuilder.base.keyword_only import keyword_only
from odp_taskbuilder.proxy.sources import Source


@dataclasses.dataclass(frozen=True)
class WriteCandidates:
    """Ask a source for its first candidates, and write those that are not there to `directory/<name>/`; yields CandidateEntry's.

    Attributes:
      seed: of the source's random numbers.
      weights_seed: of the models' initial weights.
      scale: that models are made with.
      names: only these; None takes all.
    """

    source: Source
    directory: pathlib.Path
    number: int
    seed: int
    weights_seed: int
    scale: float = 1.0
    names: Optional[tuple[str, ...]] = None


@dataclasses.dataclass(frozen=True)
class CandidateEntry:
    """A candidate of a source.

    Attributes:
      digest: SHA-256 of its task config.
      failure: why its model or config cannot be had; None if they are in its directory.
    """

    name: str
    digest: str
    failure: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class ListProxies:
    """Ask a user's function for proxies; yields (name, arguments) pairs.

    Attributes:
      baseline: the arguments of the full training, for functions that take them.
    """

    function: str
    baseline: dict


@keyword_only
@dataclasses.dataclass(frozen=True)
class Trial:
    """One training of one candidate, whole or under a proxy.

    Attributes:
      name: of the candidate.
      candidate: directory with its model and config.
      artifacts: where they are built to, unless they are there.
      directory: where the rounds are kept.
      metric: name of an evaluation metric, with `-` before it where less is better.
      total_rounds: of the candidate's full training, by which an engine is chosen.
      noise_seed, sampling_seed: of the run.
      model_failure: why there is no model; the trial fails then.
    """

    name: str
    candidate: pathlib.Path
    artifacts: pathlib.Path
    directory: pathlib.Path
    metric: str
    data: str
    evaluation_data: Optional[str]
    population_share: float
    clients_per_round: Optional[int]
    examples_per_client: Optional[int]
    evaluation_clients: Optional[int]
    evaluation_every: int
    engine: str
    total_rounds: int
    sampling_seed: int
    noise_seed: int
    model_failure: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class RunTrial:
    """Run the rounds of a trial up to a number; yields a TrialResult."""

    trial: Trial
    rounds: int


@dataclasses.dataclass(frozen=True)
class MeasureLatency:
    """Measure the client plan of a trial; yields a LatencyResult.

    Attributes:
      command: a user's command; None measures in this machine's interpreter.
    """

    trial: Trial
    command: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """A trial, as far as it has run.

    Attributes:
      failure: why it failed; None if it did not.
      curve: (training round, score) of each evaluation.
      training_seconds: of the training rounds on this machine, without building and evaluation.
      client_updates: training reports.
      communicated_bytes: of the training rounds, both ways.
    """

    name: str
    failure: Optional[str] = None
    curve: tuple[tuple[int, float], ...] = ()
    training_seconds: float = 0.0
    client_updates: int = 0
    communicated_bytes: int = 0

    @property
    def score(self) -> float:
        """Of the last evaluation."""
        return self.curve[-1][1]

    def score_at(self, number: int) -> Optional[float]:
        """Of the evaluation after a training round; None if there was none."""
        return None if self.failure is not None else dict(self.curve).get(number)


@dataclasses.dataclass(frozen=True)
class LatencyResult:
    """Attributes:
    milliseconds: None if it could not be measured.
    failure: why.
    """

    name: str
    milliseconds: Optional[float] = None
    failure: Optional[str] = None
