"""What a build does beside what its config says."""

from __future__ import annotations

import dataclasses
from typing import Optional

from odp_taskbuilder.base import phone_limits
from odp_taskbuilder.base.keyword_only import keyword_only
from odp_taskbuilder.config.compression import Compression
from odp_taskbuilder.config.spec import ResolveOptions

# Where artifacts go, each population's into a directory of its own.
DEFAULT_OUTPUT = "odp_artifacts"


@keyword_only
@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """What a build does beside what its config says.

    Attributes:
      resolve: options that take part in resolving the config.
      skip_flex_ops_check: build even when phones lack an op of the client graph.
      trust_model: load the model without scanning it first. Loading may execute parts of it, with the rights of this process.
      keep_ops: leave the model's ops, loops and conditionals as they are, though phones may lack some.
      keep_node_names: leave the names of the graph's nodes in the client graphs: `odp-task ops` tells by them where an op comes from.
      artifact_only: the tasks are to carry the config's artifact URLs and nothing for a task server.
      max_client_checkpoint_bytes: refuse a model whose checkpoint is larger on phones, as a file; None for no limit.
      allow_runtime: refuse client plans that need a later release of TensorFlow Lite than this; None for no limit.
      compression: what phones send and receive in fewer bits; nothing unless given.
    """

    resolve: ResolveOptions = ResolveOptions()
    skip_flex_ops_check: bool = False
    trust_model: bool = False
    keep_ops: bool = False
    keep_node_names: bool = False
    artifact_only: bool = False
    max_client_checkpoint_bytes: Optional[int] = phone_limits.MAX_CLIENT_CHECKPOINT_BYTES
    allow_runtime: Optional[str] = phone_limits.MAX_RUNTIME
    compression: Compression = Compression()
