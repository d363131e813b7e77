"""facts.json: what stands in a run directory beside metrics, for whoever compares runs.

A simulation writes the file when it starts, and again, with what its rounds have spent, when it ends. Nothing in it depends on when, where
and with how many processes the run was made. It may come from anyone: reading it takes nothing for granted.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import typing
from collections.abc import Mapping
from typing import Any, Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.config import paths
from odp_taskbuilder.config.show import ResolvedValue

FACTS = "facts.json"
# A config has some forty values.
_MAX_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class SpentPrivacy:
    """What rounds have spent.

    Attributes:
      epsilon: an upper bound for the population that the task is meant for, as `odp-task privacy` accounts for it.
      meant_for: that population, in words to stand beside the number.
      simulated_epsilon: an upper bound for as many clients as the simulation has, where that is fewer and counts; else None.
      simulated_clients: how many those are; None where there is no simulated_epsilon.
      delta: of both.
      rounds: training rounds that are accounted for.
      assumptions: what these epsilons assume, one sentence each.
    """

    epsilon: float
    meant_for: str
    simulated_epsilon: Optional[float]
    simulated_clients: Optional[int]
    delta: float
    rounds: int
    assumptions: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Mechanism:
    """What a DP aggregator does to a round: clip each update (the first clip, if it adapts), and add noise of standard deviation
    noise_multiplier * clip_norm to their sum."""

    aggregator: str
    noise_multiplier: float
    clip_norm: float


@dataclasses.dataclass(frozen=True)
class ClientPlan:
    """What phones execute.

    Attributes:
      size: bytes of the ClientOnlyPlan.
      builtin_ops: operators of TensorFlow Lite's own.
      other_ops: flex and custom op -> how many operators are of it.
      min_module_version: the first version of the phones' module that runs it; None when no listed one does.
      min_runtime: the first release of TensorFlow Lite that runs it; None where that is not known.
    """

    size: int
    builtin_ops: int
    other_ops: Mapping[str, int]
    min_module_version: Optional[int]
    min_runtime: Optional[str]


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """A run, beside its metrics.

    Attributes:
      options: of `odp-task simulate`, those that the results depend on.
      clients, evaluation_clients: that the rounds draw from.
      config: the values that the tasks were built with; empty where the artifacts do not tell.
      client_plans: "training" or "evaluation" -> what phones execute.
      mechanism: None without a DP aggregator.
      rounds: training rounds at the end of the run; None if it has not come to its end.
      privacy: spent by these rounds; None without a mechanism, before the end, and where the noise was not the plan's.
      noise_of_reports: the report goal whose noise the rounds had in place of that of their own size; None where they had the plan's.
    """

    population: str
    options: Mapping[str, Union[str, int, float, bool, None]]
    clients: int
    evaluation_clients: int
    config: tuple[ResolvedValue, ...]
    client_plans: Mapping[str, ClientPlan]
    mechanism: Optional[Mechanism]
    rounds: Optional[int] = None
    privacy: Optional[SpentPrivacy] = None
    noise_of_reports: Optional[int] = None

    def to_json(self) -> bytes:
        return (json.dumps(dataclasses.asdict(self), indent=2, default=lambda value: value.value) + "\n").encode()

    def hyperparameters(self) -> dict[str, Union[str, float]]:
        """What people vary from run to run, by short names; what is not known is left out."""
        config = {value.path: value.value for value in self.config}
        found: dict[str, Union[str, float, None]] = {
            "noise_multiplier": self.mechanism.noise_multiplier if self.mechanism else 0.0,
            "clip_norm": self.mechanism.clip_norm if self.mechanism else None,
            "dp_aggregator": self.mechanism.aggregator if self.mechanism else "none",
            "clients_per_round": self.options.get("clients_per_round"),
            "seed": self.options.get("seed"),
        }
        for name in ("type", "client_optimizer", "client_learning_rate", "server_optimizer", "server_learning_rate"):
            found["algorithm" if name == "type" else name] = config.get(f"{paths.LEARNING}.{name}")
        for name in ("batch_size", "max_training_batches_per_client"):
            found[name] = config.get(f"{paths.DATASET}.{name}")
        return {name: value if isinstance(value, str) else float(value) for name, value in found.items() if value is not None}


def read_facts(source: str) -> Optional[RunFacts]:
    """Reads the facts of a run directory; None where it has none, as a bucket and the runs of former versions.

    Raises:
      StorageError: the file cannot be read.
      ArtifactError: it is damaged, or something else.
    """
    path = os.path.join(source, FACTS)
    if source.startswith("gs://") or not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}") from error
    try:
        if len(content) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES:,} bytes")
        return _read(RunFacts, json.loads(content), "it")
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise errors.ArtifactError(
            f"{path} does not hold the facts of a run: {reason}.", next_step="The command that made the run writes it again."
        ) from error


def _read(kind: Any, value: Any, place: str) -> Any:
    """A JSON value as a value of a type that records here have. Raises ValueError."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        kinds = typing.get_type_hints(kind)
        if set(value) != set(kinds):
            raise ValueError(f"the names in {place} are not {', '.join(kinds)}")
        return typing.cast(Any, kind)(**{name: _read(kinds[name], part, name) for name, part in value.items()})
    if origin is Union:
        for choice in arguments:
            if value is None or choice is not type(None):
                try:
                    return _read(choice, value, place)
                except ValueError:
                    continue
    elif origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], part, f"{place}[]") for part in value)
    elif origin is not None and isinstance(value, dict):
        return {name: _read(arguments[1], part, f"{place}.{name}") for name, part in value.items()}
    elif kind is float and type(value) in (int, float):
        return float(value)
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    elif kind is type(value):
        return value
    raise ValueError(f"{place} is not what stands there")
