"""The page about every field of a task config, made from the schema and by asking the rules: docs/config_reference.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from odp_taskbuilder import errors
from odp_taskbuilder.config.load import LoadedConfig, parse_config
from odp_taskbuilder.config.metric_names import ALLOWED_METRICS
from odp_taskbuilder.config.resolve import resolve
from odp_taskbuilder.config.show import resolved_values
from odp_taskbuilder.proto import task_builder_pb2

# Every field, with a value that is an example of it.
_EXAMPLE = """
mode: TRAINING_AND_EVAL
population_name: "digits"
label_name: "y"
use_daf: false
policies {
  min_separation_policy { minimum_separation: 10 }
  data_availability_policy { min_example_count: 5 }
  model_release_policy { dp_target_epsilon: 6 dp_delta: 1e-7 num_max_training_rounds: 100 }
  dataset_policy { batch_size: 8 max_training_batches_per_client: 20 }
}
federated_learning {
  learning_process {
    type: FED_AVG client_optimizer: SGD client_learning_rate: 0.1 server_optimizer: ADAM server_learning_rate: 0.01
    runtime_config { report_goal: 2000 over_selection_rate: 0.3 example_selector_uri: "app://example.com/digits" }
    metrics { name: "sparse_categorical_accuracy" }
    artifact_building { plan_url: "gs://bucket/plan.pb" client_plan_url: "gs://bucket/client.pb" checkpoint_url: "gs://bucket/ckp" }
  }
  evaluation {
    source_training_population: "digits" source_training_task_id: 1 checkpoint_selector: "every_2_round" evaluation_traffic: 0.2
    report_goal: 300 over_selection_rate: 0.3 example_selector_uri: "app://example.com/digits"
    artifact_building { plan_url: "gs://bucket/eplan.pb" client_plan_url: "gs://bucket/eclient.pb" checkpoint_url: "gs://bucket/eckp" }
  }
}
differential_privacy { type: FIXED_GAUSSIAN noise_multiplier: 5 clip_norm: 0.1 }
"""
_TYPES = {
    FieldDescriptor.TYPE_INT64: "integer",
    FieldDescriptor.TYPE_INT32: "integer",
    FieldDescriptor.TYPE_DOUBLE: "number",
    FieldDescriptor.TYPE_FLOAT: "number",
    FieldDescriptor.TYPE_STRING: "text",
    FieldDescriptor.TYPE_BOOL: "boolean",
}
# What no rule lets pass, where there is a rule.
_PROBES = {
    FieldDescriptor.TYPE_INT64: (-7, 2**62),
    FieldDescriptor.TYPE_INT32: (-7, 2**31 - 1),
    FieldDescriptor.TYPE_DOUBLE: (-7.0, 1e30),
    FieldDescriptor.TYPE_STRING: ("no such thing",),
}
_MEANINGS = {
    "mode": "which tasks to build",
    "population_name": "the devices that the tasks are for; part of URLs and object names",
    "label_name": "name of the label among the features of an example, for models with named features",
    "use_daf": "plans in the DistributeAggregate form in place of the MapReduce form",
    "minimum_separation": "rounds from one contribution of a device to its next",
    "current_index": "not read: the server fills it in",
    "min_example_count": "examples that a device needs to take part",
    "dp_target_epsilon": "the privacy budget",
    "dp_delta": "the other part of the budget; at most 1 / population",
    "num_max_training_rounds": "rounds after which the tasks end",
    "batch_size": "examples per step on the device",
    "max_training_batches_per_client": "batches per device and round; -1 for all",
    "type": "the algorithm, or the DP aggregator",
    "client_optimizer": "of the steps on the device",
    "client_learning_rate": "of the steps on the device",
    "server_optimizer": "of the server's step",
    "server_learning_rate": "of the server's step",
    "report_goal": "reports that complete a round",
    "over_selection_rate": "share of devices asked beyond the report goal",
    "example_selector_uri": "collection of the device's example store",
    "name": "a metric; `loss` is always there",
    "parameter": "not read",
    "plan_url": "destination of the server plan in an artifact-only build",
    "client_plan_url": "destination of the client plan",
    "checkpoint_url": "destination of the initial checkpoint",
    "source_training_population": "whose checkpoints are evaluated",
    "source_training_task_id": "the training task whose checkpoints are evaluated",
    "checkpoint_selector": "which checkpoints: every_K_round or every_K_hour",
    "evaluation_traffic": "share of the traffic that evaluates",
    "noise_multiplier": "standard deviation of the noise in units of the clip; calibrated to the target if not set",
    "clip_norm": "L2 clip of an update, for FIXED_GAUSSIAN and TREE_AGGREGATION",
    "init_clip_norm": "the first L2 clip, for ADAPTIVE_GAUSSIAN and ADAPTIVE_TREE",
}


def markdown() -> str:
    """docs/config_reference.md."""
    lines = [
        "# Every field of a task config",
        "",
        "Written by `scripts/generate-docs` from the schema, and from what the rules say of values that break them. A number that is 0 counts",
        "as not set. `odp-task validate --show` prints what a config resolves to.",
        "",
        "A config with all of them:",
        "",
        "```",
        _EXAMPLE.strip(),
        "```",
    ]
    config = parse_config(_EXAMPLE).config
    for block, fields in _blocks(config.DESCRIPTOR, ""):
        lines += ["", f"## {block or 'At the top'}", "", "| Field | Type | Range | Default | Example | Meaning |", "|---|---|---|---|---|---|"]
        lines += [_row(config, block, field) for field in fields]
    return "\n".join([*lines, "", "## Metrics", "", ", ".join(f"`{name}`" for name in ALLOWED_METRICS), ""])


def _blocks(descriptor: Descriptor, path: str) -> Iterator[tuple[str, list[FieldDescriptor]]]:
    """Every message of the schema with fields that hold values, by path."""
    own = [field for field in descriptor.fields if field.message_type is None]
    if own:
        yield path, own
    for field in descriptor.fields:
        if field.message_type is not None:
            yield from _blocks(field.message_type, f"{path}.{field.name}".lstrip("."))


def _row(config: Message, block: str, field: FieldDescriptor) -> str:
    path = f"{block}.{field.name}".lstrip(".")
    if field.name == "init_clip_norm":
        config = _changed(_changed(config, f"{block}.clip_norm", None), f"{block}.type", task_builder_pb2.DpAggregator.ADAPTIVE_GAUSSIAN)
        config = _changed(config, path, 0.1)
    kind = _TYPES.get(field.type, "name")
    if field.enum_type is not None:
        values = ", ".join(f"`{value.name}`" for value in field.enum_type.values if value.number)
    else:
        values = _rule(config, path, field)
    cells = (f"`{field.name}`", kind, values, _default(config, path), _example(config, path), _MEANINGS[field.name])
    return f"| {' | '.join(cells)} |"


def _rule(config: Message, path: str, field: FieldDescriptor) -> str:
    """What the rules say of values that break them; nothing where any value will do."""
    rules = []
    for probe in _PROBES.get(field.type, ()):
        changed = _changed(config, path, probe)
        try:
            resolve(LoadedConfig(changed))
        except errors.ConfigError as error:
            rules += [problem.message for problem in error.problems if problem.path == path]
    said = dict.fromkeys(rule.rpartition("`. ")[2] for rule in rules)
    return " ".join(said).replace("|", "\\|")


def _default(config: Message, path: str) -> str:
    changed = _changed(config, path, None)
    try:
        task = resolve(LoadedConfig(changed))
    except errors.ConfigError as error:
        return "required" if any(problem.path.startswith(path) or path.startswith(problem.path) for problem in error.problems) else ""
    values = {value.path: value.value for value in resolved_values(task)}
    if path.endswith("noise_multiplier"):
        return "calibrated"
    value = values.get(path)
    if value is None or value == "":
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _example(config: Message, path: str) -> str:
    value = _at(config, path)
    if value is None:
        return ""
    *_, name = path.split(".")
    parent = _at(config, path.rpartition(".")[0]) if "." in path else config
    text = text_format.MessageToString(parent, as_one_line=False)
    line = next((line for line in text.splitlines() if line.startswith(f"{name}:")), "")
    return f"`{line}`" if line else ""


def _at(config: Message, path: str) -> Any:
    """The value at a path, of the first of repeated messages; None where the example has none."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
        if not isinstance(value, (Message, str, bytes)) and hasattr(value, "__len__"):
            value = value[0]
    return value


def _changed(config: Message, path: str, value: object) -> Message:
    """The config with another value at a path, or without one."""
    changed = type(config)()
    changed.CopyFrom(config)
    block, _, name = path.rpartition(".")
    parent = _at(changed, block) if block else changed
    if value is None:
        parent.ClearField(name)
    else:
        setattr(parent, name, value)
    return changed
