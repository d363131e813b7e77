"""What a run does, beside what its tasks say."""

from __future__ import annotations

import dataclasses
from typing import Optional

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
      noise_as_deployed: a training round stands for one of the task's report goal G: the sum of its c reports counts G / c times,
        so that their mean sees noise of standard deviation noise_multiplier * clip / G. Rounds of fewer clients than the report goal
        are admitted then, and no epsilon holds.
      noise_seed: of the noise that the server plan adds, for runs that are to be repeated; no epsilon holds then. None takes another
        one each time.
      evaluation_every: evaluate after every so many training rounds, and after the last one, on the newest checkpoint; None keeps to
        the task's schedule. Evaluation rounds have the numbers of the training rounds then.
      evaluation_clients: size of an evaluation cohort; None takes the evaluation task's report goal.
    """

    rounds: int
    clients_per_round: int
    sampling: Sampling = Sampling.FIXED
    seed: int = 0
    skip_bad_clients: bool = False
    evaluation_checkpoint: CheckpointChoice = CheckpointChoice.NEWEST
    hours_per_round: float = 1.0
    noise_as_deployed: bool = False
    noise_seed: Optional[int] = None
    evaluation_every: Optional[int] = None
    evaluation_clients: Optional[int] = None

    @property
    def spends_as_accounted(self) -> bool:
        """Whether the noise is what the accounting of a fleet's rounds assumes."""
        return not self.noise_as_deployed and self.noise_seed is None
