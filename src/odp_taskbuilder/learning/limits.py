"""Models and tasks that are too large for the server, told before anything is traced.

The server reads an artifact into one byte array, and refuses checkpoints with a tensor above 500 MiB (spec: plan.md, section 4.4). The
largest artifact is its own checkpoint: devices and aggregators exchange parts of that. It grows during the task: ADAM keeps two more tensors
for every trainable weight, and tree aggregators keep the noise of the last round and that of every tree node which still counts.
"""

from __future__ import annotations

import math

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.base.server_limits import MAX_ARTIFACT_BYTES, MAX_TENSOR_BYTES
from odp_taskbuilder.config.spec import DpAggregator, OptimizerKind, TaskSpec
from odp_taskbuilder.learning.model_checks import describe
from odp_taskbuilder.model.load import LoadedModel, WeightSpec

# Rounds after which TFF's adaptive tree starts anew: first, and from then on.
_FIRST_RESTART = 128
_RESTART_PERIOD = 1024


def check_sizes(model: LoadedModel, spec: TaskSpec) -> None:
    """Refuses a model whose server checkpoint becomes too large in some round of the task.

    Raises:
      errors.ModelError: the checkpoint would hold 2 GiB of values or more, or a tensor of more than 500 MiB. Says what takes how much.
    """
    parts = _checkpoint_parts(model, spec)
    tensors = [(num_bytes, what) for part in parts.values() for what, num_bytes in part.items()]
    num_bytes, what = max(tensors, default=(0, ""))
    if num_bytes > MAX_TENSOR_BYTES:
        raise errors.ModelError(
            f"The server's checkpoint would hold a tensor of {num_bytes:,} bytes: {what}. "
            f"Servers refuse tensors above {MAX_TENSOR_BYTES:,} bytes (500 MiB).",
            next_step=" ".join(["Split the weight into several.", *_remedies(spec)]),
        )
    sizes = {part: sum(part_tensors.values()) for part, part_tensors in parts.items()}
    total = sum(sizes.values())
    if total > MAX_ARTIFACT_BYTES:
        raise errors.ModelError(
            f"The server's checkpoint would grow to {total:,} bytes: "
            + ", ".join(f"{num_bytes:,} for {part}" for part, num_bytes in sizes.items())
            + f". The server reads it into one byte array, which holds at most {MAX_ARTIFACT_BYTES:,} bytes, just below 2 GiB.",
            next_step=" ".join(["Make the model smaller.", *_remedies(spec)]),
        )


def _checkpoint_parts(model: LoadedModel, spec: TaskSpec) -> dict[str, dict[str, int]]:
    """What the server's checkpoint holds at its largest: part -> description of a tensor -> bytes. Scalars are left out."""
    trainable, non_trainable = model.functional_model.initial_weights
    weights = {f"trainable weight {index}, {describe(weight)}": _num_bytes(weight) for index, weight in enumerate(trainable)}
    parts = {"the weights": dict(weights)}
    for index, weight in enumerate(non_trainable):
        parts["the weights"][f"non-trainable weight {index}, {describe(weight)}"] = _num_bytes(weight)
    if spec.learning.server_optimizer.kind is OptimizerKind.ADAM:
        parts["the state of ADAM on the server"] = {
            f"{moment} moments of {weight}": num_bytes
            for weight, num_bytes in weights.items()
            for moment in ("first", "second")
        }
    nodes = tree_nodes(spec)
    if nodes:
        parts[f"the noise of {spec.privacy.aggregator.value} within {spec.num_rounds} rounds"] = {
            **{f"last noise of {weight}": num_bytes for weight, num_bytes in weights.items()},
            **{f"noise of {nodes} tree nodes for {weight}": nodes * num_bytes for weight, num_bytes in weights.items()},
        }
    return parts


def tree_nodes(spec: TaskSpec) -> int:
    """The largest number of tree nodes whose noise a tree aggregator holds in any round of the task; 0 for other aggregators.

    After r rounds of a tree these are as many as r + 1 has binary digits 1.
    """
    if spec.privacy.skip_aggregator or not spec.privacy.aggregator.is_tree:
        return 0
    rounds = spec.num_rounds
    if spec.privacy.aggregator is DpAggregator.ADAPTIVE_TREE and rounds >= _FIRST_RESTART:
        rounds = max(_FIRST_RESTART - 1, min(rounds - _FIRST_RESTART, _RESTART_PERIOD - 1))
    return (rounds + 2).bit_length() - 1


def _remedies(spec: TaskSpec) -> list[str]:
    remedies = []
    if spec.learning.server_optimizer.kind is OptimizerKind.ADAM:
        remedies.append("server_optimizer SGD keeps no state for the weights.")
    if tree_nodes(spec):
        remedies.append("FIXED_GAUSSIAN and ADAPTIVE_GAUSSIAN keep no noise; fewer rounds need fewer tree nodes.")
    return remedies


def _num_bytes(weight: WeightSpec) -> int:
    return math.prod(weight.shape) * np.dtype(weight.dtype).itemsize
