"""When evaluation rounds run beside training rounds, and on which checkpoint (spec: task_config.md, section 4)."""

from __future__ import annotations

import enum
import math

from odp_taskbuilder.config.spec import CheckpointSelector
from odp_taskbuilder.simulation.sampling import generator

# How far back the server looks for training checkpoints.
_WINDOW_HOURS = 24.0


class CheckpointChoice(enum.Enum):
    """Which of the checkpoints that the selector admits an evaluation round takes."""

    NEWEST = "newest"
    RANDOM = "random"  # What the server does.


def evaluation_rounds_due(training_clients: int, evaluation_share: float, report_goal: int) -> int:
    """How many evaluation rounds have completed when so many clients were handed the training task.

    Devices are handed either task in the ratio of the tasks' traffic weights, and a round completes with its report goal.

    >>> evaluation_rounds_due(training_clients=2000, evaluation_share=0.11, report_goal=200)
    1
    """
    return math.floor(training_clients * evaluation_share / report_goal)


def choose_checkpoint(
    selector: CheckpointSelector, choice: CheckpointChoice, last_round: int, hours_per_round: float, seed: int, number: int
) -> int:
    """The training round whose checkpoint an evaluation round reads.

    The server puts the rounds completed in the last 24 hours into buckets, of `every` rounds or hours, and takes the first
    round of a bucket.

    Args:
      last_round: the last training round that is complete, >= 1.
      number: of the evaluation round.
    """
    firsts: dict[int, int] = {}
    for candidate in range(1, last_round + 1):
        if (last_round - candidate) * hours_per_round <= _WINDOW_HOURS:
            bucket = (
                (candidate - 1) // selector.every
                if selector.unit == "round"
                else math.floor(candidate * hours_per_round / selector.every)
            )
            firsts.setdefault(bucket, candidate)
    candidates = sorted(firsts.values())
    if choice is CheckpointChoice.NEWEST:
        return candidates[-1]
    return candidates[generator(seed, "evaluation checkpoint", number).integers(len(candidates))]
