"""Having a task builder server build what `build.build` would build here."""

from __future__ import annotations

import dataclasses
import os
from typing import Union

from odp_taskbuilder.config import resolve
from odp_taskbuilder.config.build_options import BuildOptions
from odp_taskbuilder.config.spec import ArtifactUrls
from odp_taskbuilder.proto import task_builder_pb2
from odp_taskbuilder.push import auth
from odp_taskbuilder.server import builder_client
from odp_taskbuilder.stores import inputs
from odp_taskbuilder.transport import deadline as deadlines


def build_remotely(
    server: str,
    saved_model: str,
    task_config: Union[str, os.PathLike[str]],
    options: BuildOptions = BuildOptions(),
    *,
    login: auth.Login = auth.Login(),
    network: deadlines.Network = deadlines.Network(),
) -> task_builder_pb2.BuildTaskResponse:
    """Checks a config here, where faults are shown with line and column, and sends it with the model's address to a server.

    It is sent as the options change it: with their population name, and with their storage path in its artifact URLs.

    Args:
      server: base URL of the task builder.
      saved_model: where the server finds the model; it is not read here.
      task_config: as `build.build` takes it.

    Raises:
      errors.ConfigError: the config is at fault, here or in the server's eyes.
      errors.TaskServerError, errors.StorageError: see builder_client.request_build.
    """
    loaded = inputs.read_config(task_config, network)
    spec = resolve(loaded, dataclasses.replace(options.resolve, require_artifact_urls=options.artifact_only))
    request = task_builder_pb2.BuildTaskRequest(
        task_config=loaded.config,
        flags=task_builder_pb2.ExperimentFlags(
            skip_flex_ops_check=options.skip_flex_ops_check,
            skip_dp_check=options.resolve.skip_dp_check,
            skip_dp_aggregator=options.resolve.skip_dp_aggregator,
        ),
    )
    request.saved_model.uri = saved_model
    request.task_config.population_name = spec.population_name
    learning = request.task_config.federated_learning
    if spec.training is not None and learning.learning_process.HasField("artifact_building"):
        _fill(learning.learning_process.artifact_building, spec.training.urls)
    if spec.evaluation is not None and learning.evaluation.HasField("artifact_building"):
        _fill(learning.evaluation.artifact_building, spec.evaluation.rounds.urls)
    response = builder_client.request_build(server, request, artifacts_only=options.artifact_only, login=login, network=network)
    builder_client.check_success(response)
    return response


def _fill(building: task_builder_pb2.ArtifactBuilding, urls: ArtifactUrls) -> None:
    building.plan_url, building.client_plan_url, building.checkpoint_url = urls.plan, urls.client_plan, urls.checkpoint
