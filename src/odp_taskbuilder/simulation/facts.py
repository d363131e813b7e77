"""What a run directory says of its run, beside metrics (metrics/run_facts.py)."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from typing import Union

from odp_taskbuilder.metrics.run_facts import Mechanism, RunFacts
from odp_taskbuilder.simulation.deployment import Deployment
from odp_taskbuilder.simulation.round_options import RoundOptions
from odp_taskbuilder.simulation.round_reports import Summary


def run_facts(deployment: Deployment, options: RoundOptions, *, clients: int, evaluation_clients: int) -> RunFacts:
    """The facts of a run that begins; `clients` are those that its rounds draw from."""
    tasks = {"training": deployment.training, "evaluation": deployment.evaluation}
    privacy = deployment.privacy
    return RunFacts(
        population=deployment.population,
        options=dict(_options(options)),
        clients=clients,
        evaluation_clients=evaluation_clients,
        config=tuple(deployment.config),
        client_plans={kind: task.described for kind, task in tasks.items() if task is not None and task.described is not None},
        mechanism=Mechanism(privacy.aggregator.value, privacy.noise_multiplier, privacy.clip_norm) if privacy else None,
    )


def with_end(facts: RunFacts, summary: Summary) -> RunFacts:
    """The facts of the run when it has ended."""
    return dataclasses.replace(
        facts, rounds=summary.training.rounds, privacy=summary.privacy, noise_of_reports=summary.noise_of_reports
    )


def _options(options: RoundOptions) -> Iterator[tuple[str, Union[str, float]]]:
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        # How many rounds there are, the metrics tell; an option that is off is none.
        if field.name != "rounds" and value is not None and value is not False:
            yield field.name, value.value if isinstance(value, enum.Enum) else value
