"""One build of a task builder service, from request to response (spec: http_api.md, sections 1 and 5).

    request -> config checked -> places allowed? -> model copied -> built in a sandbox -> tasks created -> files uploaded

Everything up to the build can fail without a trace. After it the order of push.py applies: a task whose upload fails is not
started by its server, the response names it, and its artifacts and journal are kept for `odp-task push --resume`.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import logging
import pathlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import requests
from google.protobuf import message

from odp_taskbuilder import errors, sandbox
from odp_taskbuilder.base.keyword_only import keyword_only
from odp_taskbuilder.config import resolve
from odp_taskbuilder.config.spec import ResolveOptions, TaskSpec
from odp_taskbuilder.proto import task_builder_pb2, task_pb2
from odp_taskbuilder.push import artifact_files, auth, locating, push
from odp_taskbuilder.sandbox import failures
from odp_taskbuilder.server import access, build_failures, build_output, observability, work_directory
from odp_taskbuilder.server.admission import Admission
from odp_taskbuilder.server.zygote_keeper import ZygoteKeeper
from odp_taskbuilder.stores import TreeLimits, open_store
from odp_taskbuilder.transport import deadline as deadlines
from odp_taskbuilder.transport import session

# What takes long to import, done once before the first build.
_PRELOAD = ("tensorflow_federated", "odp_taskbuilder.server.build_worker")
_CLOSING = "The server is shutting down."
_BUILD_FUNCTION = "odp_taskbuilder.server.build_worker:build"


@keyword_only
@dataclasses.dataclass(frozen=True)
class ServiceOptions:
    """What a service may do, and how.

    Attributes:
      readable, writable: where models may be, and where a config's `artifact_building` may point to. Destinations that the task
        management server names are taken on its word: the operator chose that server.
      task_management_server: None looks it up for each build (locating.py).
      overwrite: let builds without a task replace objects that hold something else.
      limits: of each build.
      build_function, preload: what runs in the sandbox, and what is imported for it beforehand.
    """

    readable: access.AllowedPlaces = access.AllowedPlaces()
    writable: access.AllowedPlaces = access.AllowedPlaces()
    task_management_server: Optional[str] = None
    login: auth.Login = auth.Login()
    network: deadlines.Network = deadlines.Network(deadline=600.0)
    overwrite: bool = False
    model_limits: TreeLimits = TreeLimits()
    limits: sandbox.SandboxLimits = sandbox.SandboxLimits()
    build_function: str = _BUILD_FUNCTION
    preload: tuple[str, ...] = _PRELOAD


class BuildService:
    """Answers build requests; several threads may call it at once.

    Args:
      work_dir: of work_directory.py; what an operator must finish by hand stays there.
    """

    def __init__(self, options: ServiceOptions, admission: Admission, work_dir: pathlib.Path):
        self._options = options
        self._admission = admission
        self._work_dir = work_dir
        self._zygotes = ZygoteKeeper(options.preload)
        # Checks take nothing but processor time: several at once would not end sooner, and keep everything else waiting.
        self._checking = threading.Lock()
        self._lock = threading.Lock()
        self._closed = False
        self._deadlines: set[deadlines.Deadline] = set()

    def start(self) -> None:
        """Prepares for the first build, without waiting until that is done."""
        self._zygotes.start()

    @property
    def is_ready(self) -> bool:
        """Whether a build would begin at once."""
        return self._zygotes.is_ready

    def close(self) -> None:
        """Ends running builds and pushes, which are answered as failed, and lets no more begin."""
        self._admission.close()
        with self._lock:
            self._closed = True
            for deadline in self._deadlines:
                deadline.end_now(_CLOSING)
        self._zygotes.close()

    def handle(self, request: task_builder_pb2.BuildTaskRequest, artifacts_only: bool) -> task_builder_pb2.BuildTaskResponse:
        """Builds; whatever a request or its model causes becomes a response.

        Raises:
          admission.Busy, admission.Closing: the build was not begun.
        """
        try:
            with self._admission.place():
                with self._checking:
                    spec = self._checked(request, artifacts_only)
                with self._admission.worker(self._options.limits.wall_seconds), work_directory.of_build(self._work_dir) as job:
                    return self._build(job, request, spec, artifacts_only)
        except build_failures.BuildFailed as failure:
            return failure.response()
        except OSError as error:  # The work directory is full, or gone, and no task was asked for: pushes raise errors of ours.
            observability.log("work directory", level=logging.ERROR, error=str(error))
            return build_failures.of_building(f"The server cannot work in its directory: {error.strerror or error}").response()

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[deadlines.Deadline]:
        """One for work on the network; `close` ends it."""
        deadline = deadlines.Deadline(self._options.network.deadline)
        with self._lock:
            if self._closed:
                deadline.end_now(_CLOSING)
            self._deadlines.add(deadline)
        try:
            yield deadline
        finally:
            with self._lock:
                self._deadlines.discard(deadline)

    def _checked(self, request: task_builder_pb2.BuildTaskRequest, artifacts_only: bool) -> TaskSpec:
        flags = request.flags
        options = ResolveOptions(
            skip_dp_check=flags.skip_dp_check,
            skip_dp_aggregator=flags.skip_dp_aggregator,
            require_artifact_urls=artifacts_only,
        )
        try:
            spec = resolve(request.task_config, options)
        except errors.ConfigError as error:
            raise build_failures.of_config(error) from error
        model = request.saved_model.uri
        if not model:
            missing = errors.ModelError("saved_model.uri is not set; models inside of requests are not supported.")
            raise build_failures.of_model(model, missing)
        try:
            access.check(self._options.readable, model, "read models from", "--allow_read")
            for url in build_output.destinations(spec) if artifacts_only else ():
                access.check(self._options.writable, url, "write artifacts to", "--allow_write")
        except errors.StorageError as error:
            raise build_failures.of_access(error) from error
        return spec

    def _build(
        self, job: pathlib.Path, request: task_builder_pb2.BuildTaskRequest, spec: TaskSpec, artifacts_only: bool
    ) -> task_builder_pb2.BuildTaskResponse:
        server = None if artifacts_only else self._task_management_server()
        self._fetch_model(request.saved_model.uri, job / "model")
        report = self._build_in_sandbox(job, request, artifacts_only)
        try:
            artifacts = build_output.take(job, spec, artifacts_only)
            pushed = self._push_artifacts(artifacts) if server is None else self._push_group(artifacts, server)
        except build_failures.BuildFailed as failure:
            failure.report = report
            raise
        group = task_builder_pb2.TaskGroup(
            training_task=pushed.get(artifact_files.TRAINING), eval_task=pushed.get(artifact_files.EVALUATION)
        )
        return task_builder_pb2.BuildTaskResponse(task_group=group, task_report=report)

    def _task_management_server(self) -> str:
        option = self._options.task_management_server
        with self._deadline() as deadline:
            http = session.configure(requests.Session(), self._options.network, deadline)
            try:
                return deadlines.call_within(deadline, lambda: locating.find_task_management_server(option, http))
            except (errors.TaskServerError, errors.StorageError) as error:
                raise build_failures.of_location(error) from error

    def _fetch_model(self, uri: str, target: pathlib.Path) -> None:
        with self._deadline() as deadline:

            def fetch() -> None:
                open_store(uri, self._options.network, deadline).download_tree(uri, target, self._options.model_limits)

            try:
                deadlines.call_within(deadline, fetch)
            except errors.StorageError as error:
                failure = build_failures.of_building(error.message) if self._closed else build_failures.of_model(uri, error)
                raise failure from error

    def _build_in_sandbox(
        self, job: pathlib.Path, request: task_builder_pb2.BuildTaskRequest, artifacts_only: bool
    ) -> task_builder_pb2.TaskReport:
        flags = request.flags
        args = {
            "saved_model": str(job / "model"),
            "task_config": base64.b64encode(request.task_config.SerializeToString()).decode("ascii"),
            "options": {
                "skip_flex_ops_check": flags.skip_flex_ops_check,
                "skip_dp_check": flags.skip_dp_check,
                "skip_dp_aggregator": flags.skip_dp_aggregator,
                "artifact_only": artifacts_only,
            },
        }
        scratch = job / "scratch"
        scratch.mkdir()
        try:
            report, error, stage = _parse_answer(self._run(args, scratch, job / "model"))
        except errors.OdpTaskError as fault:
            raise build_failures.of_building(_CLOSING if self._closed else fault.message) from fault
        if error is not None:
            failure = build_failures.of_build(error, stage, request.saved_model.uri)
            # The model that was asked for, not the copy that was built from.
            failure.text = failure.text.replace(str(job / "model"), request.saved_model.uri)
            failure.report = report
            raise failure from error
        return report

    def _run(self, args: Mapping[str, Any], scratch: pathlib.Path, model: pathlib.Path) -> Any:
        zygote = self._zygotes.get()
        try:
            return zygote.run(
                self._options.build_function, args, scratch=scratch, readable=[model], limits=self._options.limits
            )
        except errors.ModelError:
            raise
        except (errors.OdpTaskError, ConnectionError) as error:  # Not the build has ended, but what it was forked from.
            self._zygotes.replace(zygote)
            if isinstance(error, errors.OdpTaskError):
                raise
            raise errors.OdpTaskError(f"The process that sandboxes are made from has ended: {error.strerror}") from error

    def _push_artifacts(self, artifacts: pathlib.Path) -> dict[str, task_pb2.Task]:
        options = push.PushOptions(overwrite=self._options.overwrite)
        with self._deadline() as deadline:
            try:
                push.push(artifacts, options, self._options.network, deadline=deadline)
            except errors.OdpTaskError as error:
                raise build_failures.of_upload(0, error) from error
        return {task.role: task.task for task in artifact_files.read(artifacts)}

    def _push_group(self, artifacts: pathlib.Path, server: str) -> dict[str, task_pb2.Task]:
        built = artifact_files.read(artifacts)
        digests = artifact_files.digests(artifacts, built)
        options = push.PushOptions(server=server, login=self._options.login)
        pushed: dict[str, task_pb2.Task] = {}
        uploading: Optional[artifact_files.Upload] = None
        with self._deadline() as deadline:
            group = push.TaskGroupPush(artifacts, built, digests, options, self._options.network, deadline)

            def steps() -> None:
                nonlocal uploading
                group.prepare()
                pushed.update(group.obtain_tasks())
                for uploading in group.uploads():
                    group.upload(uploading)

            try:
                deadlines.call_within(deadline, steps)
            except errors.OdpTaskError as error:
                failure = (
                    build_failures.of_task_creation(error)
                    if uploading is None
                    else build_failures.of_upload(uploading.task_id, error)
                )
                if group.is_started:
                    failure.text += f"\n{group.describe()}\n{self._keep(artifacts)}"
                raise failure from error
        return pushed

    def _keep(self, artifacts: pathlib.Path) -> str:
        """Keeps artifacts that are to be pushed later, and says how."""
        try:
            command = work_directory.keep(self._work_dir, artifacts, self._options.login)
        except OSError as error:
            observability.log("unfinished push", level=logging.ERROR, error=str(error))
            return "Its artifacts could not be kept."
        return f"On this server, finish it with: {command}"


def _parse_answer(answer: Any) -> tuple[task_builder_pb2.TaskReport, Optional[errors.OdpTaskError], str]:
    """Reads what the build said of itself; it handled an untrusted model, so it may say anything.

    Raises:
      errors.ModelError: that is no answer of a build.
    """
    try:
        report = task_builder_pb2.TaskReport.FromString(base64.b64decode(answer["report"]))
        error = failures.from_document(answer["error"]) if "error" in answer else None
        return report, error, str(answer.get("stage", ""))
    except (ValueError, TypeError, KeyError, AttributeError, message.DecodeError) as error:
        raise errors.ModelError("The build ended with something else than its report.") from error
