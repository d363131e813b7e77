"""Candidates ranked under a proxy: what a proxy is for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Optional

from odp_taskbuilder import errors
from odp_taskbuilder.proxy.failures import table_of_causes
from odp_taskbuilder.proxy.search import best_proxy
from odp_taskbuilder.proxy.workshop import Workshop


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Attributes:
    proxy, rounds: what they were trained under, and how long.
    scores: by candidate, best first.
    failures: of candidates, with their causes.
    directories: of the candidates' models and configs.
    """

    proxy: str
    rounds: int
    scores: Mapping[str, float]
    failures: Mapping[str, str]
    directories: Mapping[str, str]


def rank(workshop: Workshop, number: int, proxy: Optional[str] = None, rounds: Optional[int] = None) -> Ranking:
    """Trains the first candidates of the space under a proxy, and writes DIR/ranking/<proxy>.json.

    Args:
      proxy, rounds: None takes the best proxy of the directory's search, and the rounds after which it agreed.

    Raises:
      ModelError: every candidate fails.
      UsageError: there is no such proxy, or the space has fewer candidates.
    """
    chosen, agreed_after = best_proxy(workshop, proxy)
    rounds = rounds or agreed_after
    entries = workshop.candidates(number)
    scaled = workshop.scaled(entries, chosen.dimensions.model_scale)
    trials = {entry.name: workshop.trial(entry, chosen.name, chosen.dimensions) for entry in scaled}
    results = workshop.run(trials, {entry.name: min(rounds, entry.rounds) for entry in scaled}, chosen.name)
    failures = {name: result.failure for name, result in results.items() if result.failure is not None}
    good = sorted((name for name in results if name not in failures), key=lambda name: (-results[name].score, name))
    if not good:
        raise errors.ModelError(f"All {number} candidates failed:\n{table_of_causes(failures)}", next_step="Mend the search space or the data.")
    ranking = Ranking(
        chosen.name,
        rounds,
        {name: results[name].score for name in good},
        failures,
        {entry.name: str(entry.directory) for entry in entries},
    )
    workshop.write(f"ranking/{chosen.name}.json", dataclasses.asdict(ranking))
    return ranking
