"""What a search space is made of, and where it comes from.

    from odp_taskbuilder.proxy import Candidate, ProxyTaskConfig

    def candidates(rng):                        # --space my_space.py:candidates
        for width in (8, 16, 32):
            yield Candidate(f"width_{width}", lambda scale, width=width: make_model(scale * width), TASK_CONFIG)

    def proxies(baseline):                      # --proxies my_space.py:proxies
        return [ProxyTaskConfig("fifth", {"population_share": 0.2})]
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any, Callable, Optional, Union

from odp_taskbuilder import errors

# What chance decides in a training, each by a seed of its own.
SEEDS = ("weights", "sampling", "noise")
# Of candidates and proxies, which name directories.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,+=@-]{0,99}")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A model with its settings.

    Attributes:
      name: letters, digits and any of `_.,+=@-`, unique in its space; names a directory.
      model: a function of a scale that returns what `model_of` takes, of which 1 is the candidate itself and less a smaller version; or
        the directory of a saved FunctionalModel.
      task_config: text of a task config, or the path of one.
    """

    name: str
    model: Union[Callable[[float], Any], pathlib.Path, str]
    task_config: Union[str, pathlib.Path]


@dataclasses.dataclass(frozen=True)
class ProxyTaskConfig:
    """A proxy by the arguments in which it differs from the full training.

    Attributes:
      docker_args_map: see Dimensions; the name is that of Google's tool, whose generators run unchanged where their keys are these.
    """

    name: str
    docker_args_map: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Dimensions:
    """What a training may have less of. Rounds are no dimension: a search watches them.

    Attributes:
      population_share: of the training clients, in (0, 1].
      clients_per_round: None takes as many as the report goal, or as there are.
      examples_per_client: the first ones of each, at most so many; None takes all.
      model_scale: what models are made with.
      evaluation_clients: of each evaluation, drawn anew; None takes all.
      data, evaluation_data: data arguments; None takes those of the full training.
    """

    population_share: float = 1.0
    clients_per_round: Optional[int] = None
    examples_per_client: Optional[int] = None
    model_scale: float = 1.0
    evaluation_clients: Optional[int] = None
    data: Optional[str] = None
    evaluation_data: Optional[str] = None


@dataclasses.dataclass(frozen=True)
class Proxy:
    """A proxy of a checked name and checked dimensions."""

    name: str
    dimensions: Dimensions


def check_name(name: object, what: str) -> str:
    """Returns the name of a candidate or proxy.

    Raises:
      UsageError: it cannot name a directory.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise errors.UsageError(
            f"{name!r} cannot be the name of a {what}.",
            next_step="A name has up to 100 letters, digits and characters of _.,+=@-, and begins with a letter or digit.",
        )
    return name


def checked_proxy(config: Any) -> Proxy:
    """A proxy from anything that has `name` and `docker_args_map`; values may be texts.

    Raises:
      UsageError: it has not, or a value is impossible.
    """
    if not (hasattr(config, "name") and isinstance(getattr(config, "docker_args_map", None), Mapping)):
        raise errors.UsageError(
            f"Expected ProxyTaskConfig(name, docker_args_map), found {_shortened(config)}.",
            next_step="A proxy's function returns a list of odp_taskbuilder.proxy.ProxyTaskConfig.",
        )
    name = check_name(config.name, "proxy")
    return Proxy(name, dimensions_of(config.docker_args_map, f"proxy {name!r}"))


def dimensions_of(values: Mapping[str, Any], where: str) -> Dimensions:
    """Checked dimensions; None leaves one as it is.

    Raises:
      UsageError: a name is unknown, or a value impossible.
    """
    known = {field.name for field in dataclasses.fields(Dimensions)}
    result: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise errors.UsageError(
                f"{where[:1].upper()}{where[1:]} sets {name!r}, which is no dimension of a training.",
                next_step=f"There are: {', '.join(sorted(known))}.",
            )
        if value is not None:
            result[name] = _value(name, value, where)
    return Dimensions(**result)


def _value(name: str, value: Any, where: str) -> Any:
    if name in ("data", "evaluation_data"):
        return str(value)
    whole = name not in ("population_share", "model_scale")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    most = 1.0 if name == "population_share" else math.inf
    if isinstance(value, bool) or not (0 < number <= most and number < math.inf) or (whole and number != int(number)):
        expected = "a share in (0, 1]" if name == "population_share" else "a whole number from 1" if whole else "a number above 0"
        raise errors.UsageError(f"{name} of {where} must be {expected}, found {_shortened(value)}.")
    return int(number) if whole else number


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def grid(variations: Mapping[str, list[Any]]) -> list[Proxy]:
    """All combinations of values, named after them.

    >>> [proxy.name for proxy in grid({"population_share": ["0.2", "0.5"], "clients_per_round": ["5"]})]
    ['population_share=0.2,clients_per_round=5', 'population_share=0.5,clients_per_round=5']
    """
    combinations: list[dict[str, Any]] = [{}]
    for name, values in variations.items():
        combinations = [{**former, name: value} for former in combinations for value in values]
    return [Proxy(",".join(f"{n}={_plain(v)}" for n, v in values.items()), dimensions_of(values, "the grid")) for values in combinations]


def _plain(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9_.+@-]", "_", str(value))
