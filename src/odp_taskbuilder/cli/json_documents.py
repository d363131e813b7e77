"""What `--json` prints: every field of every command's document, the source of docs/json.md.

A path is made of names joined by dots; `[]` stands for the items of a list, `*` for names that are data. Types are those of JSON, joined by
`|`; an integer is a number, too. What ends in `object` may hold anything: its content is described where the text says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Raised when a field goes or changes its meaning; new fields may come at any time.
SCHEMA_VERSION = 1

# Where floating-point numbers stand, "Infinity", "-Infinity" and "NaN" may, too, as in proto JSON.
_NOT_FINITE = ("Infinity", "-Infinity", "NaN")

_TENSOR = {
    "name": "text: of the tensor",
    "dtype": "text: TensorFlow's name of the type, such as float32",
    "shape": "null|list: null where the rank is unknown",
    "shape[]": "integer: size of a dimension, -1 where it is unknown",
    "bytes": "null|integer: size of its values; null where that is unknown",
}
_OP = {
    "name": "text: of the op",
    "kind": "text: builtin, flex or custom",
    "count": "integer: operators of it in the graph",
    "subgraphs.*": "integer: operators of it by number of the subgraph",
    "min_module_version": "null|integer: first version of the phone's module that has it; null where none is known",
    "version": "integer: of the operator, as the flatbuffer states it",
    "min_tflite_runtime": "null|text: first release of TensorFlow Lite that has this version of a builtin op",
    "kernel": "text: name of the kernel that runs a flex op",
}
_BUDGET = {
    "aggregator": "null|text: DP aggregator; null without one",
    "noise_multiplier": "number: standard deviation of the noise in units of the clip",
    "epsilon": "number: upper bound, of all rounds together",
    "delta": "number: of that epsilon",
    "target_epsilon": "number: what the config or --epsilon allows",
    "rounds": "integer: training rounds that are accounted for",
    "report_goal": "integer: clients per round",
    "population": "integer: devices that are assumed",
    "sampling_rate": "null|number: report_goal / population; null for the tree aggregators, which do not use it",
    "contributions_per_client": "integer: rounds in which one client may take part",
    "rounds_per_day": "null|number: pace of rounds that is assumed; null for the Gaussian aggregators, which do not use it",
    "calibrated": "boolean: the noise was chosen to meet the target",
    "meant_for": "text: the population that epsilon holds for, in words",
    "accountant": "text: method, and what neighbouring populations differ in",
    "assumptions[]": "text: what the number rests on and leaves out",
}
_DATA = {
    "source": "text: path of the data",
    "clients": "integer: number of clients",
    "examples": "integer: of all clients",
    "examples_per_client.*": "number: min, 25%, median, 75%, max and mean",
    "empty_clients": "integer: clients without examples",
    "largest_example": "integer: bytes of the largest serialized example",
    "oversized_examples": "integer: examples that are larger than phones take",
    "features.*.kinds[]": "text: float32, int64 or bytes",
    "features.*.min_length": "integer: values of the example that has the fewest",
    "features.*.max_length": "integer: values of the example that has the most",
    "labels": "null|object: null where the data has no such label",
    "labels.counts.*": "integer: examples by label",
    "labels.mean_distance": "number: total variation distance of a client's labels from those of all, mean over the clients",
    "labels.max_distance": "number: the largest of them",
    "labels.mean_labels_per_client": "number: different labels that a client has",
}
_TASK_ROUNDS = {
    "rounds": "integer: number of the last round",
    "metrics.*": "number: of the last round, as its metrics file holds them",
    "communication.broadcast": "integer: bytes sent to clients in all rounds",
    "communication.aggregated": "integer: bytes that came from clients in all rounds",
    "communication.broadcast_wire": "integer: of the bytes sent, after gzip; 0 where nobody looked",
    "communication.aggregated_wire": "integer: of the bytes that came, after gzip; 0 where nobody looked",
}


def _below(path: str, fields: Mapping[str, str]) -> dict[str, str]:
    return {f"{path}.{name}": text for name, text in fields.items()}


_BUILD = {
    "directory": "text: where the artifacts are",
    "from_cache": "boolean: built before, from the same inputs",
    "files.*.sha256": "text: in hexadecimal digits",
    "files.*.crc32c": "text: in base64, as Cloud Storage shows it",
    "files.*.size": "integer: bytes",
    "uploaded[]": "text: URLs that the artifacts were uploaded to",
    "task_report": "object: the TaskReport in proto JSON, its fields spelt as in report.pbtxt",
    "task_group": "object: the TaskGroup in proto JSON: training_task and eval_task, as in task.pbtxt",
    "notices[]": "text: what was decided for you",
    "warnings[].path": "text: field of the config",
    "warnings[].message": "text: what is rarely meant about it",
    "privacy": "object: what the training spends; absent for a task that does not train",
    **_below("privacy", {**_BUDGET, "clip_norm": "null|number: L2 clip of the updates; null without an aggregator"}),
}

# Command -> path -> "type: meaning".
DOCUMENTS: dict[str, dict[str, str]] = {
    "android app": {
        "written[]": "text: files that were written",
        "kept[]": "text: files that were there and stayed",
        "notices[]": "text: what else to do",
    },
    "android check": {
        "problems[].file": "text: of the app",
        "problems[].line": "integer: from 1",
        "problems[].column": "integer: from 1, in characters",
        "problems[].message": "text: what a phone would skip or drop without a word",
        "problems[].fix": "text: what to do",
    },
    "build": {
        **_BUILD,
        "builds[]": "object: of several configs or a sweep, in place of all other fields: one of each build, with the fields above if it succeeded",
        "builds[].task_config": "text: as given",
        "builds[].sweep.*": "text: field -> the value that this build has",
        "builds[].ok": "boolean: it succeeded",
        "builds[].error": "text: what is wrong; absent if it succeeded",
        "builds[].exit_code": "integer: of a command that builds only this; absent if it succeeded",
        **_below("builds[]", _BUILD),
    },
    "data describe": _DATA,
    "data partition": _below("parts[]", _DATA),
    "diff": {
        "differences[].path[]": "text: where a fact stands: file, section, ..., name",
        "differences[].left": "text: what A says; (absent) where it says nothing",
        "differences[].right": "text: what B says",
    },
    "doctor": {
        "platform.*": "text: system, release, machine, libc, python, environment",
        "versions.*": "text: installed distribution -> version",
        "tff_runtime": "boolean: `simulate --engine tff` can run",
        "processors": "integer: that this process may use",
        "memory_bytes": "null|integer: that this process may have in all",
        "available_memory_bytes": "null|integer: that are free now",
        "sandbox[].prevented": "text: what a sandbox is to prevent",
        "sandbox[].in_force": "boolean: it does so here",
        "sandbox[].means": "text: by what",
        "faults[].message": "text: what is wrong",
        "faults[].cure": "text: what to do about it",
        "faults[].prevents_builds": "boolean: nothing can be built before",
        "can_build": "boolean: no fault prevents builds",
    },
    "init": {
        "config": "text: file that was written",
        "artifact_config": "text: file with a destination for each artifact",
        "metrics[]": "text: metrics that the config asks for",
        "notices[]": "text: what phones would not take of the model",
    },
    "inspect": {
        "files[].path": "text: of the file",
        "files[].task": "text: training, evaluation, or the name of a file that tells neither",
        "files[].kind": "text: Plan, ClientOnlyPlan or checkpoint",
        "files[].bytes": "integer: size",
        "files[].form": "text: of a Plan: MapReduce or DistributeAggregate",
        "files[].version": "integer: of a Plan",
        "files[].client": "object: of a plan: session, examples, tensors read and written, and the ops of the client graph",
        "files[].server": "object: of a Plan: ops or sessions, checkpoints, aggregations, metrics, graphs",
        "files[].role": "text: of a checkpoint: what it is for",
        "files[].tensors[]": "object: of a checkpoint: name, dtype, shape, bytes, and value or statistics",
        "files[].privacy": "object: of a checkpoint: aggregator, parameters, and the tensors that hold seeds of the noise",
        "traffic[].directory": "text: where the plan lies",
        "traffic[].task": "text: as of files",
        "traffic[].plan_bytes": "integer: of the client plan",
        "traffic[].download_bytes": "null|integer: of the checkpoint that each device downloads per round",
        "traffic[].upload_bytes": "null|integer: of the update that each device uploads per round",
        **_below("traffic[].download[]", _TENSOR),
        **_below("traffic[].upload[]", _TENSOR),
        "traffic[].without_codes": "object: download_bytes and upload_bytes as they were without codes, where they are others",
        "configs[].directory": "text: of artifacts whose manifest tells what they were built with",
        "configs[].values.*.value": "null|text|number|boolean: by path of the field",
        "configs[].values.*.origin": "text: config, default, derived or option",
    },
    "metrics": {
        "runs[].run": "text: name of the run and of the task in it",
        "runs[].rounds.*.*": "number: by round, then by name of the metric",
    },
    "ops": {
        "graphs[].name": "text: file or task",
        "graphs[].unsupported[].name": "text: op that phones lack",
        "graphs[].unsupported[].origins[]": "object: part, name and backward of the layer, loss or metric that brings it",
        "graphs[].unsupported[].source": "null|text: what usually brings it",
        "graphs[].unsupported[].instead": "null|text: what avoids it",
        "graphs[].replaced[].name": "text: op that the build wrote with others",
        "graphs[].replaced[].count": "integer: how many operators",
        "graphs[].replaced[].by": "text: with what",
        "graphs[].replaced[].origins[]": "object: as of unsupported ops",
        "graphs[].min_module_version": "null|integer: version of the module that has all ops",
        "graphs[].min_tflite_runtime": "null|text: release of TensorFlow Lite that has all builtin ops",
        "graphs[].subgraphs[]": "text: names, by number",
        **_below("graphs[].ops[]", _OP),
    },
    "privacy curve": {
        "aggregator": "text: DP aggregator",
        "target_epsilon": "number: what the config or --epsilon allows",
        "delta": "number: of every epsilon",
        "population": "integer: devices that are assumed",
        "minimum_separation": "integer: rounds from one contribution of a client to its next",
        "rounds_per_day": "number: pace of rounds that is assumed",
        "rounds": "integer: where it does not vary",
        "noise_multiplier": "number: where it does not vary",
        "report_goal": "integer: where it does not vary",
        "over": "text: what varies: rounds, noise_multiplier or report_goal",
        "points[].*": "number: value of what varies, and epsilon",
        "assumptions[]": "text: what the numbers rest on and leave out",
    },
    "privacy epsilon": {
        **_BUDGET,
        "target_met": "boolean: epsilon is at most the target",
        "reference_epsilon": "number: the existing task builder's figure, with --reference",
    },
    "privacy noise": {**_BUDGET, "target_met": "boolean: epsilon is at most the target"},
    "proxy rank": {
        "proxy": "text: that candidates were trained under",
        "rounds": "integer: that each was trained",
        "scores.*": "number: by candidate, best first",
        "failures.*": "text: by candidate, why it failed",
        "directories.*": "text: by candidate, where its model and config are",
    },
    "proxy search": {
        "proxies[].name": "text",
        "proxies[].stopping_state": "text: why it ended, in the words of SEARCH_CONTROLLER_STATE.json",
        "proxies[].correlation": "number: Kendall's tau at its last evaluation; -5 where there is none",
        "proxies[].p_value": "number: of that tau; -5 where there is none",
        "proxies[].rounds": "integer: that it ran",
        "proxies[].training_hours": "number: median of its trainings, on this machine",
        "proxies[].cost_share": "number: client runs of a training, in those of a full training",
        "best": "null|text: name of the proxy that agrees at the least cost; null if none does",
    },
    "proxy select": {
        "references[].name": "text: of a candidate that was trained to its end; best first",
        "references[].score": "number: of its last evaluation",
        "references[].rounds": "integer: that it was trained",
        "references[].latency": "null|number: milliseconds; null where it was not measured",
        "references[].curve": "list",
        "references[].curve[]": "list: a training round, and the score after it",
        "references[].curve[][]": "number: one of both",
        "failures.*": "text: by candidate, why it failed",
        "full_trainings": "number: client runs of all trainings, in those of a full training",
    },
    "proxy variance": {
        "candidate": "text: whose copies were trained",
        "scores[]": "number: final ones of the copies",
        "variance": "number: their coefficient of variation",
        "smoothness": "number: mean of the copies'",
    },
    "push": {
        "artifacts[].task": "text: training or evaluation",
        "artifacts[].task_id": "integer: 0 where no task was created",
        "artifacts[].url": "text: where the artifact is",
        "artifacts[].outcome": "text: written, identical or replaced",
    },
    "scan": {
        "model": "text: path of the model",
        "safe": "boolean: nothing speaks against loading it",
        "findings[]": "object: what does: problem, and function, node and op where there are such",
        "functions": "integer: functions that were looked at",
        "nodes": "integer: nodes that were looked at",
        "variables_bytes": "integer: size of the variables",
        "ops.*.*": "integer: nodes by group, then by op",
    },
    "simulate": {
        "population": "text: name of the population",
        **_below("training", _TASK_ROUNDS),
        "evaluation": "null|object: null where there is no evaluation task",
        **_below("evaluation", _TASK_ROUNDS),
        "privacy": "null|object: what the training rounds spent; null without a DP aggregator, or with another noise than the plan's",
        "privacy.epsilon": "number: upper bound for the population that the task is meant for",
        "privacy.meant_for": "text: that population, in words",
        "privacy.simulated_epsilon": "null|number: for as many clients as the simulation has, where they are fewer and that counts",
        "privacy.simulated_clients": "null|integer: how many those are",
        "privacy.delta": "number: of both",
        "privacy.rounds": "integer: training rounds that are accounted for",
        "privacy.assumptions[]": "text: what the numbers rest on",
        "noise_of_reports": "null|integer: with --noise_as_deployed, the report goal whose noise the rounds had",
        "clients": "integer: run by this command, without what it resumed",
        "bad_clients": "integer: skipped by this command",
        "rounds_without_effect": "integer: training rounds that left the model as it was",
        "zeroed_clients": "integer: reports that held nothing but zeros",
        "oversized_examples": "integer: examples that are larger than phones take",
        "seconds": "number: that this command took",
        "mean_client_seconds": "null|number: of the client plan; null where none was timed",
        "max_client_seconds": "null|number: of the slowest client",
        "compiled": "null|object: clients that ran compiled, interpreted and compared; null without that engine",
    },
    "validate": {
        "configs[].source": "text: file",
        "configs[].ok": "boolean: it has no faults",
        "configs[].problems[]": "object: a fault, as in an error's problems",
        "configs[].warnings[].path": "text: field of the config",
        "configs[].warnings[].message": "text: what is rarely meant about it",
        "configs[].notices[]": "text: what was decided for you",
        "configs[].resolved[].path": "text: with --show, the field",
        "configs[].resolved[].value": "null|text|number|boolean: what tasks are built with",
        "configs[].resolved[].origin": "text: config, default, derived or option",
    },
    "verify": {
        "checked[]": "text: names of the files that were looked at",
        "findings[].file": "text: file that something is wrong with",
        "findings[].problem": "text: what is wrong",
        "notes[]": "text: what could not be checked",
        "rounds.*": "object: with --run, by prefix of the task's files: bytes, seconds and metrics of its round",
        "wild_updates.*": "object: with --run, likewise: what clients with examples that nobody would send reported",
    },
}

ERROR: dict[str, str] = {
    "error.class": "text: ConfigError, ModelError, ...",
    "error.exit_code": "integer: of the command",
    "error.message": "text: what is wrong",
    "error.next_step": "null|text: what to do about it",
    "error.problems[]": "object: of a ConfigError: message, path, line, column, source_line, suggestion",
    "error.ops.*": "text: of an UnsupportedOpsError: op -> why it cannot be",
}


def misfits(command: str, document: Mapping[str, Any]) -> Iterator[str]:
    """What in a command's document is not as it is described; for tests."""
    if document.get("schema_version") != SCHEMA_VERSION:
        yield f"schema_version is {document.get('schema_version')!r}"
    content = {name: value for name, value in document.items() if name != "schema_version"}
    yield from _misfits(ERROR if "error" in content else DOCUMENTS[command], content, "")


def _misfits(fields: Mapping[str, str], value: Any, path: str) -> Iterator[str]:
    described = [text for pattern, text in fields.items() if _matches(pattern, path)]
    types = described[0].partition(":")[0].split("|") if described else []
    if "object" in types and isinstance(value, dict) and not any(pattern.startswith(f"{path}.") for pattern in fields):
        return
    if isinstance(value, dict) and (not described or "object" in types):
        for name, part in value.items():
            yield from _misfits(fields, part, f"{path}.{name}".lstrip("."))
    elif isinstance(value, (list, tuple)) and (not described or "list" in types):
        for part in value:
            yield from _misfits(fields, part, f"{path}[]")
    elif not described:
        yield f"{path} is not described"
    elif not any(_is(value, kind) for kind in types):
        yield f"{path} is {value!r}, not {described[0].partition(':')[0]}"


def _matches(pattern: str, path: str) -> bool:
    """Whether a path is one of the pattern's; a name that is data may have dots in it."""
    if "*" not in pattern:
        return pattern == path
    head, _, tail = pattern.partition("*")
    if not path.startswith(head):
        return False
    rest = path[len(head) :]
    return any(rest[:end] and _matches(tail, rest[end:]) for end in range(1, len(rest) + 1))


def _is(value: Any, kind: str) -> bool:
    if kind == "null":
        return value is None
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    if kind == "integer":
        return isinstance(value, int)
    if kind == "number":
        return isinstance(value, (int, float)) or value in _NOT_FINITE
    return kind == "text" and isinstance(value, str)


def markdown() -> str:
    """docs/json.md."""
    lines = [
        "# JSON",
        "",
        "With `--json` a command prints one JSON document on stdout, in UTF-8, and nothing else there; notes and errors go to stderr.",
        f"`schema_version` is {SCHEMA_VERSION}: it is raised when a field goes or changes its meaning, while new fields may come at any time.",
        "Numbers that JSON lacks are the strings `\"Infinity\"`, `\"-Infinity\"` and `\"NaN\"`.",
        "`build --task_builder_server` prints the server's BuildTaskResponse in proto JSON, beside `schema_version`.",
        "",
        "In the tables `[]` stands for the items of a list, and `*` for names that are data.",
        "",
        "    odp-task privacy epsilon --report_goal 200 --rounds 10 --noise_multiplier 1 --json",
        "",
        "This page is written by `scripts/generate-docs` from `cli/json_documents.py`, which the tests compare with what commands print.",
        "",
        "## Errors",
        "",
        "A command that fails prints `error` in place of its document; the exit code is the same as without `--json`.",
        "",
        *_table(ERROR),
    ]
    for command, fields in DOCUMENTS.items():
        lines += ["", f"## odp-task {command}", "", *_table(fields)]
    return "\n".join(lines) + "\n"


def _table(fields: Mapping[str, str]) -> Iterator[str]:
    yield "| Field | Type | Meaning |"
    yield "|---|---|---|"
    for path, text in fields.items():
        kind, _, meaning = text.partition(": ")
        yield f"| `{path}` | {kind.replace('|', ' or ')} | {meaning} |"
