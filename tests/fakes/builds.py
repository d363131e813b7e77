"""Builds that take no time, or end in ways that builds should not. They run in the server's sandbox, in place of the real one.

What a build does follows from its config's population name: a word, and what the word needs, as in `sleep-1.5`.
"""

from __future__ import annotations

import base64
import os
import pathlib
import random
import signal
import time

from google.protobuf import text_format

from odp_taskbuilder import errors, sandboxed_build
from odp_taskbuilder.artifacts import artifact_set, directory, tasks
from odp_taskbuilder.config import LoadedConfig, resolve
from odp_taskbuilder.config.spec import ResolveOptions
from odp_taskbuilder.proto import task_builder_pb2
from odp_taskbuilder.sandbox import failures

_ERRORS = {
    "config": errors.ConfigError([errors.Problem("the config's fault")]),
    "model": errors.ModelError("the model's fault"),
    "untrusted": errors.UntrustedModelError("ReadFile", next_step="--trust_model loads it as it is."),
    "privacy": errors.PrivacyBudgetError("epsilon 11"),
    "ops": errors.UnsupportedOpsError("Please contact Google to register these ops: {}", ops={}),
    "defect": RuntimeError("a defect"),
}


def build(saved_model: str, task_config: str, options: dict) -> dict:
    config = task_builder_pb2.TaskConfig.FromString(base64.b64decode(task_config))
    word, _, argument = config.population_name.partition("-")
    report = task_builder_pb2.TaskReport()
    report.applied_algorithms.learning_algo = task_builder_pb2.LearningAlgo.FED_AVG
    encoded_report = base64.b64encode(report.SerializeToString()).decode()
    assert (pathlib.Path(saved_model) / "saved_model.pb").read_bytes() == b"model"
    if word == "sleep":
        time.sleep(float(argument))
    elif word == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif word == "memory":
        print(len(bytearray(int(argument))))
    elif word == "garbage":
        return {"report": "no base64", "error": 17}
    elif word == "error" and argument == "defect":
        raise _ERRORS[argument]
    elif word == "error":
        stage = "composing the learning process"
        return {"error": failures.to_document(_ERRORS[argument]), "stage": stage, "report": encoded_report}
    spec = resolve(LoadedConfig(config), ResolveOptions(require_artifact_urls=options["artifact_only"]))
    rng = random.Random(config.population_name)

    def artifacts(task):
        return artifact_set.TaskArtifacts(
            rng.randbytes(20_000),
            rng.randbytes(10_000),
            lambda path: path.write_bytes(b"checkpoint"),
            text_format.MessageToString(task),
        )

    built = artifact_set.ArtifactSet(
        artifacts(tasks.training_task(spec, "341912000")),
        artifacts(tasks.evaluation_task(spec)) if spec.mode.evaluates else None,
        "",
    )
    directory.save(built, pathlib.Path(sandboxed_build.DIRECTORY), form="MapReduce", inputs={})
    if word == "empty":
        pathlib.Path(sandboxed_build.DIRECTORY, artifact_set.PLAN).write_bytes(b"")
    if word == "link":
        for name in (artifact_set.PLAN, artifact_set.MANIFEST):
            path = pathlib.Path(sandboxed_build.DIRECTORY, name)
            path.unlink()
            path.symlink_to("/etc/passwd")
    return {"report": encoded_report}
