"""Names of tensors in checkpoints and graphs, derived from TFF types (spec: plan.md, section 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

# Prefixes of checkpoint tensors. What stands under a prefix is fixed: two artifacts that are stored apart must agree.
SERVER = "server"
METRICS = "metrics"
CLIENT = "client"
UPDATE = "update"
INTERMEDIATE_UPDATE = "intermediate_update"
AGGREGATED_UPDATE = "aggregated_update"
INTERMEDIATE_STATE = "intermediate_state"


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One tensor of a TFF type.

    Attributes:
      name: `prefix/part/...`, where a part is a field's name, or its index where it has none.
      dtype: TensorFlow's.
      shape: dimensions, None where unknown.
    """

    name: str
    dtype: tf.DType
    shape: tuple

    @property
    def zero_shape(self) -> list[int]:
        """The shape of an all-zero value: size 0 where the type leaves the size open (tree aggregators' states do)."""
        return [0 if size is None else size for size in self.shape]


def leaves(tff_type: tff.Type, prefix: str) -> list[Leaf]:
    """The tensors of `tff_type` in the type's order, depth first, named below `prefix`."""
    return list(_walk(tff_type, prefix))


def _walk(tff_type: tff.Type, path: str) -> Iterator[Leaf]:
    if isinstance(tff_type, tff.FederatedType):
        yield from _walk(tff_type.member, path)
    elif isinstance(tff_type, tff.TensorType):
        # TFF speaks of strings as np.str_, whose TensorFlow dtype is string like that of np.bytes_.
        dtype = tf.string if tff_type.dtype.type in (np.str_, np.bytes_) else tf.as_dtype(tff_type.dtype)
        yield Leaf(path, dtype, tuple(tff_type.shape))
    elif isinstance(tff_type, tff.StructType):
        for index, (name, element) in enumerate(tff.structure.iter_elements(tff_type)):
            yield from _walk(element, f"{path}/{index if name is None else name}")
    else:
        raise ValueError(f"{path}: a {type(tff_type).__name__} has no tensors that could be stored")
