"""The ops of the client graphs in built plans."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set, manifest, plan_reader
from odp_taskbuilder.ops.allowlist import Allowlist
from odp_taskbuilder.ops.provenance import Origin
from odp_taskbuilder.ops.report import OpsReport, ReplacedOp, ops_report, with_kernels


@dataclasses.dataclass(frozen=True)
class ClientOps:
    """The ops of one client graph.

    Attributes:
      name: the file, or the task.
      origins: flex op -> what it comes from; empty where that cannot be told.
    """

    name: str
    ops: OpsReport
    origins: Mapping[str, tuple[Origin, ...]] = dataclasses.field(default_factory=dict)


def client_ops(path: Union[str, os.PathLike], *, allowlist: Optional[Allowlist] = None) -> list[ClientOps]:
    """Lists the ops of a Plan or ClientOnlyPlan, or of the ClientOnlyPlans in a directory, with their kernel classes.

    Raises:
      StorageError: a file cannot be read.
      ArtifactError: a file is corrupt, or there is no plan.
    """
    path = pathlib.Path(path)
    return [ClientOps(str(file), _file_ops(file, allowlist)) for file in (_plans(path) if path.is_dir() else [path])]


def _plans(directory: pathlib.Path) -> list[pathlib.Path]:
    names = [prefix + artifact_set.CLIENT_ONLY_PLAN for prefix in ("", artifact_set.EVALUATION_PREFIX)]
    found = [directory / name for name in names if (directory / name).exists()]
    if not found:
        raise errors.ArtifactError(f"{directory} holds neither {' nor '.join(names)}")
    return found


def _file_ops(path: pathlib.Path, allowlist: Optional[Allowlist]) -> OpsReport:
    with plan_reader.open_plan(path) as plan:
        report = with_kernels(ops_report(plan.tflite_graph, allowlist=allowlist))
    return dataclasses.replace(report, replaced=tuple(replaced_ops_beside(path)))


def replaced_ops_beside(path: pathlib.Path) -> Sequence[ReplacedOp]:
    """What the manifest in the directory of a Plan or ClientOnlyPlan says was replaced in its client graph; nothing without one."""
    try:
        replaced = manifest.read_manifest(path.parent).replaced_ops
    except errors.OdpTaskError:
        return ()
    prefix = artifact_set.EVALUATION_PREFIX if path.name.startswith(artifact_set.EVALUATION_PREFIX) else ""
    return replaced.get(prefix + artifact_set.CLIENT_ONLY_PLAN, ())
