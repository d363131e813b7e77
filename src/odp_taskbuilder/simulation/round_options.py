"""What a run does, beside what its tasks say."""

from __future__ import annotations

import dataclasses

from odp_taskbuilder.base.keyword_only import keyword_only
from odp_taskbuilder.simulation.evaluation_schedule import CheckpointChoice
from odp_taskbuilder.simulation.sampling import Sampling


@keyword_only
@dataclasses.dataclass(frozen=True)
class RoundOptions:
    """What a run does, beside what the tasks say.

    Attributes:
      rounds: training rounds that the run is to have in the end.
      clients_per_round: size of a training cohort; with Poisson sampling its mean.
      skip_bad_clients: a client that fails is counted; otherwise it ends the run.
      evaluation_checkpoint: which checkpoint an evaluation round takes of those that the task's selector admits.
      hours_per_round: what a training round takes on the fleet, for selectors that count hours.
    """

    rounds: int
    clients_per_round: int
    sampling: Sampling = Sampling.FIXED
    seed: int = 0
    skip_bad_clients: bool = False
    evaluation_checkpoint: CheckpointChoice = CheckpointChoice.NEWEST
    hours_per_round: float = 1.0
