"""Plans as they stand in files; without TensorFlow."""

from __future__ import annotations

import pathlib

from google.protobuf import message

from odp_taskbuilder import errors
from odp_taskbuilder.proto import plan_pb2


def parse_plan(content: bytes, path: pathlib.Path) -> plan_pb2.Plan:
    """A Plan from the content of a file. Raises ArtifactError, which names the file, where it is none that a server would
    run."""
    try:
        plan = plan_pb2.Plan.FromString(content)
    except message.DecodeError as error:
        raise errors.ArtifactError(f"{path} is no Plan: {error}.") from error
    if len(plan.phase) != 1:
        raise errors.ArtifactError(f"{path} is no Plan that a server would run: it has {len(plan.phase)} phases, not 1.")
    return plan


def parse_client_only_plan(content: bytes, path: pathlib.Path) -> plan_pb2.ClientOnlyPlan:
    """A ClientOnlyPlan from the content of a file. Raises ArtifactError, which names the file, where it is none that a device
    would run."""
    try:
        plan = plan_pb2.ClientOnlyPlan.FromString(content)
    except message.DecodeError as error:
        raise errors.ArtifactError(f"{path} is no ClientOnlyPlan: {error}.") from error
    if not plan.tflite_graph:
        raise errors.ArtifactError(f"{path} is no ClientOnlyPlan that a device would run: it has no TFLite graph.")
    return plan
