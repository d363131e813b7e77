"""What a run says of its rounds, one by one and at its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Callable, Optional

from odp_taskbuilder.metrics.run import PROGRESS_PREFIX
from odp_taskbuilder.simulation.communication import Communication
from odp_taskbuilder.simulation.jobs import BadClient, Comparison, SessionResult
from odp_taskbuilder.simulation.spending import SpentPrivacy

REPORTS_METRIC = f"{PROGRESS_PREFIX}reports"
# Set by the learning process when it leaves the model as it was (spec: metrics.md).
_REJECTED_METRIC = "finalizer/update_non_finite"


@dataclasses.dataclass(frozen=True)
class RoundReport:
    """A round that was just run.

    Attributes:
      task: "training" or "evaluation".
      number: of the round, from 1.
      checkpoint_round: training round whose checkpoint was used.
      metrics: as they were written.
      privacy: spent so far, at some ten training rounds of a run with a DP aggregator; else None.
      zeroed_clients: clients that reported nothing but zeros; None where that is not known.
      without_effect: why a training round left the model as it was; None if it did not.
    """

    task: str
    number: int
    checkpoint_round: int
    metrics: Mapping[str, float]
    clients: int
    bad_clients: tuple[BadClient, ...]
    seconds: float
    privacy: Optional[SpentPrivacy]
    zeroed_clients: Optional[int] = None
    without_effect: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class TaskSummary:
    """One task at the end of a run.

    Attributes:
      metrics: of the last round; empty if there was none.
      communication: of all rounds, those of a resumed run included.
    """

    rounds: int
    metrics: Mapping[str, float]
    communication: Communication


@dataclasses.dataclass
class CompiledShare:
    """How much of a run was compiled.

    Attributes:
      compiled, interpreted: clients that reported, by how they ran. The compared ones count as compiled.
      compared: clients that ran in both ways.
      kinks: those of them whose updates differ because rounding sends them two ways; they count as interpreted.
      amplified: those of them whose updates differ by more than rounding, and no more than rounding of their weights makes of it.
      worst: the comparison with the largest difference; None before the first.
    """

    compiled: int = 0
    interpreted: int = 0
    compared: int = 0
    kinks: int = 0
    amplified: int = 0
    worst: Optional[Comparison] = None

    def add(self, result: SessionResult) -> None:
        self.compiled += result.compiled
        self.interpreted += result.reports - result.compiled
        self.compared += len(result.comparisons) + len(result.kinks)
        self.kinks += len(result.kinks)
        self.amplified += sum(comparison.amplified for comparison in result.comparisons)
        found = [comparison for comparison in (self.worst, *result.comparisons) if comparison is not None]
        self.worst = max(found, key=lambda comparison: comparison.difference, default=None)


@dataclasses.dataclass(frozen=True)
class Summary:
    """A run at its end.

    Attributes:
      evaluation: None if there is no evaluation task.
      privacy: spent by the training rounds; None without a DP aggregator, and where the noise was not the plan's.
      noise_of_reports: the report goal whose noise the rounds had in place of that of their own size; None where they had the plan's.
      clients, seconds: run by this command, without what it resumed.
      bad_clients: that were skipped by this command.
      rounds_without_effect: training rounds, those of a resumed run included, that left the model as it was.
      zeroed_clients: reports of the rounds run by this command that held nothing but zeros.
      oversized_examples: examples of the clients run by this command that are larger than phones take.
      mean_client_seconds, max_client_seconds: what the client plan took of those clients; None where none was timed.
      compiled: how much of this command's work the compiled engine did; None where it was not there.
    """

    population: str
    training: TaskSummary
    evaluation: Optional[TaskSummary]
    privacy: Optional[SpentPrivacy]
    clients: int
    bad_clients: int
    rounds_without_effect: int
    zeroed_clients: int
    oversized_examples: int
    seconds: float
    mean_client_seconds: Optional[float]
    max_client_seconds: Optional[float]
    compiled: Optional[CompiledShare] = None
    noise_of_reports: Optional[int] = None


OnRound = Callable[[RoundReport], None]


def why_without_effect(metrics: Mapping[str, float]) -> Optional[str]:
    """Why a training round left the model as it was; None if it did not.

    Args:
      metrics: as the round's file holds them.
    """
    if not metrics[REPORTS_METRIC]:
        return "no client reported"
    if any(value for name, value in metrics.items() if name.endswith(_REJECTED_METRIC)):
        return "the server rejected the aggregate, which is not finite"
    return None
