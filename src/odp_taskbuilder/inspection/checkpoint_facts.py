"""What a checkpoint holds: tensors with simple statistics, and what the server state in it says about privacy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Optional, Union

from odp_taskbuilder.artifacts import checkpoint_reader
from odp_taskbuilder.artifacts.checkpoint_reader import Checkpoint, Statistics, TensorInfo

# First part of the tensors' names -> what the checkpoint is (spec: plan.md, section 3.3).
_ROLES = {
    "server": "server state",
    "metrics": "server state",
    "client": "what devices download",
    "update": "update of one device",
    "intermediate_update": "partial aggregate",
    "aggregated_update": "aggregate",
    "intermediate_state": "state between preparing and finishing a round",
}
_AGGREGATOR = "server/aggregator/"
_MAX_TEXT = 200
# Last part of a name below server/aggregator -> what it means (spec: plan.md, section 3.4).
_PRIVACY_LEAVES = {
    "l2_norm_clip": "clip of an update's L2 norm",
    "clip_value": "clip of an update's L2 norm",
    "current_estimate": "adaptive clip: current estimate of the quantile",
    "target_quantile": "adaptive clip: target quantile",
    "learning_rate": "adaptive clip: learning rate",
    "stddev": "standard deviation of the noise on the sum",
    "denominator": "divisor of the sum",
    "noise_multiplier": "noise multiplier",
    "class_name": "event that the accounting composes",
    "is_init_state": "state of iteration 0",
}
_SEEDS = "value_generator_state/seeds"


@dataclasses.dataclass(frozen=True)
class TensorFacts:
    """One tensor.

    Attributes:
      num_bytes: of its values; None for strings.
      value: of a tensor with one element; strings as text.
      statistics: of a tensor of numbers; None where they were not asked for.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: Optional[int]
    value: Union[float, int, bool, str, None]
    statistics: Optional[Statistics]


@dataclasses.dataclass(frozen=True)
class PrivacyFacts:
    """What the state of a DP aggregator says.

    Attributes:
      aggregator: its kind, told from the names of its state.
      parameters: (tensor name below server/aggregator, meaning, value).
      noise_seeds: tensors from which the noise can be computed again.
    """

    aggregator: str
    parameters: tuple[tuple[str, str, Union[float, int, bool, str]], ...]
    noise_seeds: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class CheckpointFacts:
    """One checkpoint.

    Attributes:
      num_bytes: size of the file.
      role: what it is for, told from the names of its tensors.
      privacy: None where there is no server state.
    """

    num_bytes: int
    role: str
    tensors: tuple[TensorFacts, ...]
    privacy: Optional[PrivacyFacts]


def read_checkpoint_facts(checkpoint: Checkpoint, *, statistics: bool = True) -> CheckpointFacts:
    """Describes an open checkpoint.

    Args:
      statistics: reads every value, about 1 s per GB; otherwise only single values are read.

    Raises:
      ArtifactError: values do not fit their shapes.
    """
    tensors = tuple(_tensor(checkpoint, tensor, statistics) for tensor in checkpoint.tensors)
    first = tensors[0].name.partition("/")[0] if tensors else ""
    return CheckpointFacts(
        num_bytes=checkpoint.num_bytes,
        role=_ROLES.get(first, "unknown"),
        tensors=tensors,
        privacy=_privacy(tensors) if any(tensor.name.startswith("server/") for tensor in tensors) else None,
    )


def _tensor(checkpoint: Checkpoint, tensor: TensorInfo, statistics: bool) -> TensorFacts:
    value = None
    if tensor.size == 1 and tensor.dtype in checkpoint_reader.READABLE:
        value = checkpoint.read(tensor.name).item()
        if isinstance(value, bytes):
            value = value[:_MAX_TEXT].decode("utf-8", "replace")
    numbers = checkpoint.statistics(tensor.name) if statistics else None
    return TensorFacts(tensor.name, tensor.dtype, tensor.shape, tensor.num_bytes, value, numbers)


def _privacy(tensors: tuple[TensorFacts, ...]) -> PrivacyFacts:
    state = {tensor.name[len(_AGGREGATOR) :]: tensor for tensor in tensors if tensor.name.startswith(_AGGREGATOR)}
    return PrivacyFacts(
        aggregator=_aggregator(set(state)),
        parameters=tuple(_parameters(state)),
        noise_seeds=tuple(
            sorted(tensor.name for name, tensor in state.items() if name.endswith(_SEEDS) and not _is_zero(tensor))
        ),
    )


def _is_zero(tensor: TensorFacts) -> bool:
    """Seeds of zero are those of an evaluation task's initial checkpoint, which holds no noise."""
    return tensor.statistics is not None and tensor.statistics.norm == 0


def _parameters(state: dict[str, TensorFacts]) -> Iterator[tuple[str, str, Union[float, int, bool, str]]]:
    for name in sorted(state):
        meaning = _PRIVACY_LEAVES.get(name.rpartition("/")[2])
        if meaning is not None and state[name].value is not None:
            yield name, meaning, state[name].value


def _aggregator(names: set[str]) -> str:
    if not names:
        return "none: neither clip nor noise"
    tree = any("value_generator_state" in name for name in names)
    adaptive = any("quantile_estimator_state" in name for name in names)
    if tree:
        return "ADAPTIVE_TREE" if adaptive else "TREE_AGGREGATION"
    if adaptive:
        return "ADAPTIVE_GAUSSIAN"
    return "FIXED_GAUSSIAN" if any(name.endswith("l2_norm_clip") for name in names) else "unknown"
