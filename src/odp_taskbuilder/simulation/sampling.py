"""Which clients take part in a round: a function of the seed and the round alone, so that a resumed run draws the same ones."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence

import numpy as np

from odp_taskbuilder import errors


class Sampling(enum.Enum):
    """How a cohort is drawn from the clients that may take part."""

    FIXED = "fixed"  # clients_per_round of them, without replacement.
    POISSON = "poisson"  # Each with the same probability, clients_per_round on average: what privacy accounting assumes.


def generator(seed: int, stream: str, number: int) -> np.random.Generator:
    """The random numbers of one round of one purpose.

    Args:
      stream: names the purpose; different names give independent numbers.
    """
    return np.random.default_rng([seed, number, *stream.encode()])


def noise_seed(seed: int, number: int) -> int:
    """The seed of the noise of one training round, of 32 bits."""
    return int(generator(seed, "noise", number).integers(2**32))


def draws_seed(seed: int, task_id: int, number: int) -> int:
    """The seed of what clients draw in a round of a task, of 64 bits."""
    return int(generator(seed, f"draws of task {task_id}", number).integers(2**64, dtype=np.uint64))


def client_seed(draws_seed: int, client_id: str) -> int:
    """The seed of what one client draws in a round, of 64 bits; the same whoever runs before it, and on whichever worker."""
    return int.from_bytes(hashlib.blake2b(f"{draws_seed} {client_id}".encode(errors="surrogateescape"), digest_size=8).digest(), "little")


class CohortSampler:
    """Draws the training cohorts of rounds 1, 2, ... in turn.

    A client may take part if it has enough examples and, after it took part in round r, again from round r + minimum_separation
    (spec: task_config.md, section 1.4). Whoever is drawn counts as having taken part.
    """

    def __init__(
        self,
        client_ids: Sequence[str],
        *,
        sampling: Sampling,
        clients_per_round: int,
        minimum_separation: int,
        seed: int,
    ):
        """Prepares round 1.

        Args:
          client_ids: the clients with enough examples, in an order that does not change.
        """
        self._client_ids = client_ids
        self._sampling = sampling
        self._clients_per_round = clients_per_round
        self._minimum_separation = minimum_separation
        self._seed = seed
        self._round = 0
        self._may_return_in = np.zeros(len(client_ids), np.int64)

    def next_cohort(self) -> list[str]:
        """The clients of the next round, in the order of `client_ids`.

        Raises:
          UsageError: fewer than clients_per_round may take part.
        """
        self._round += 1
        rng = generator(self._seed, "cohort", self._round)
        allowed = np.flatnonzero(self._may_return_in <= self._round)
        if self._sampling is Sampling.POISSON:
            # The probability is that of accounting, a share of all clients, whoever has to wait.
            rate = min(1.0, self._clients_per_round / len(self._client_ids))
            drawn = allowed[rng.random(len(self._client_ids))[allowed] < rate]
        else:
            if len(allowed) < self._clients_per_round:
                raise errors.UsageError(
                    f"Round {self._round} needs {self._clients_per_round} clients; {len(allowed)} of {len(self._client_ids)} "
                    f"may take part, as one that took part may come back after {self._minimum_separation} rounds.",
                    next_step="Use data of more clients, or lower --clients_per_round or the task's minimum_separation.",
                )
            drawn = np.sort(rng.choice(allowed, self._clients_per_round, replace=False))
        self._may_return_in[drawn] = self._round + self._minimum_separation
        return [self._client_ids[position] for position in drawn]


def draw_evaluation_cohort(client_ids: Sequence[str], size: int, seed: int, number: int) -> list[str]:
    """The clients of one evaluation round: no policy applies to them (spec: task_config.md, section 6)."""
    positions = generator(seed, "evaluation cohort", number).choice(len(client_ids), size, replace=False)
    return [client_ids[position] for position in np.sort(positions)]
