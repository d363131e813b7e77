"""What is known of a build before its model is looked at: the config, resolved, and a destination that is ours to replace."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shlex
from typing import Union

from odp_taskbuilder import errors, installation
from odp_taskbuilder.artifacts import directory, manifest, tasks
from odp_taskbuilder.base.keyword_only import keyword_only
from odp_taskbuilder.base.stages import Stage
from odp_taskbuilder.config import LoadedConfig, resolve
from odp_taskbuilder.config.build_options import BuildOptions
from odp_taskbuilder.config.spec import TaskSpec
from odp_taskbuilder.push import push
from odp_taskbuilder.scan import files
from odp_taskbuilder.stores import inputs
from odp_taskbuilder.transport import deadline as deadlines

Path = Union[str, "os.PathLike[str]"]


@keyword_only
@dataclasses.dataclass(frozen=True)
class BuildRequest:
    """What is known of a build before its model is looked at.

    Attributes:
      destination: the directory to write to, which was found to be ours to replace.
      has_destinations: the artifacts are also to go where the config says.
      network: how patient to be there.
    """

    task_config: LoadedConfig
    spec: TaskSpec
    options: BuildOptions
    destination: pathlib.Path
    overwrite: bool
    has_destinations: bool
    network: deadlines.Network = deadlines.Network()

    def upload(self, stage: Stage) -> tuple[str, ...]:
        """Uploads what was written to the destinations that the config names, if any; returns their URLs.

        Raises:
          errors.StorageError: an upload failed; says what to run.
        """
        if not self.has_destinations:
            return ()
        try:
            with stage("uploading artifacts"):
                pushed = push.push(self.destination, push.PushOptions(overwrite=self.overwrite), self.network)
        except errors.OdpTaskError as error:
            command = f"odp-task push {shlex.quote(str(self.destination))}{' --overwrite' if self.overwrite else ''}"
            advice = f"The artifacts are complete in {self.destination}; `{command}` uploads them."
            error.next_step = advice if error.next_step is None else f"{error.next_step}\n{advice}"
            raise
        return tuple(done.url for done in pushed)


def check_request(
    task_config: Path, output: Path, options: BuildOptions, *, overwrite: bool, network: deadlines.Network
) -> BuildRequest:
    """Reads and resolves the config of a build and checks its destination; arguments and errors as for `build`."""
    installation.require_tff()
    return check_config(inputs.read_config(task_config, network), output, options, overwrite=overwrite, network=network)


def check_config(
    loaded: LoadedConfig, output: Path, options: BuildOptions, *, overwrite: bool, network: deadlines.Network
) -> BuildRequest:
    """The same for a config that was read."""
    has_destinations = options.artifact_only and bool(tasks.destinations(loaded.config))
    if has_destinations:
        options = dataclasses.replace(options, resolve=dataclasses.replace(options.resolve, require_artifact_urls=True))
    spec = resolve(loaded, options.resolve)
    in_vain = tasks.notices_about_destinations(
        loaded.config, artifact_only=options.artifact_only, storage_path=options.resolve.storage_path
    )
    spec = spec.with_notices(in_vain)
    destination = directory.population_directory(output, spec.population_name)
    directory.check_destination(destination, overwrite=overwrite)
    return BuildRequest(
        task_config=loaded,
        spec=spec,
        options=options,
        destination=destination,
        overwrite=overwrite,
        has_destinations=has_destinations,
        network=network,
    )


def input_digests(saved_model: Path, task_config: LoadedConfig) -> dict[str, str]:
    """Digests of the model's files and of the config, for the inputs of a manifest.

    Raises:
      errors.ModelError: there is no model, or a file of it cannot be read.
    """
    try:
        digests = manifest.digest_directory(files.require_saved_model(pathlib.Path(saved_model)), "saved_model")
    except OSError as error:
        raise errors.ModelError(
            f"The model in {os.fspath(saved_model)} cannot be read: {error.filename}: {error.strerror}.",
            next_step="Remove what does not belong to the model, or make it readable.",
        ) from error
    digests["task_config"] = manifest.digest_bytes(task_config.config.SerializeToString(deterministic=True))
    return digests
