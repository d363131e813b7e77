"""Writes a first task config for a model: complete, commented, and building as it stands."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import textwrap
from collections.abc import Mapping
from typing import Any, Optional, Union

from odp_taskbuilder import config, errors
from odp_taskbuilder.config.source_text import printable
from odp_taskbuilder.model.input_spec import STORED_AS, ModelSpec, TensorInfo, check_parsable, read_model_spec

_LABEL_NAMES = ("label", "y", "target")


@dataclasses.dataclass(frozen=True)
class StarterConfigs:
    """Texts of two configs, which differ in their artifact URLs only.

    Attributes:
      config: for a build whose artifacts go where the builder says.
      artifact_config: names the destination of each artifact below `{storage_path}`.
      metrics: the metrics that were guessed; the loss comes on top.
    """

    config: str
    artifact_config: str
    metrics: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class WrittenConfigs:
    """Where the two configs are, and the guessed metrics."""

    config: pathlib.Path
    artifact_config: pathlib.Path
    metrics: tuple[str, ...]


def write_starter_configs(
    saved_model: Union[str, os.PathLike],
    output: Union[str, os.PathLike],
    *,
    population_name: Optional[str] = None,
    label_name: Optional[str] = None,
    overwrite: bool = False,
) -> WrittenConfigs:
    """Writes the configs for a saved model to `output` and, with `_artifacts` behind its name, beside it.

    Raises:
      ModelError: there is no FunctionalModel, or no example on a device can be parsed into its features and label.
      ConfigError: the population name does not do.
      StorageError: a file is there already, or cannot be written. Neither was written then, if it is there already.
    """
    model = read_model_spec(saved_model)
    name = population_name or default_population_name(pathlib.Path(saved_model).resolve().name)
    starter = starter_configs(model, name, label_name)
    path = pathlib.Path(output)
    texts = {path: starter.config, path.with_name(f"{path.stem}_artifacts{path.suffix}"): starter.artifact_config}
    for destination in texts:
        if destination.exists() and not overwrite:
            raise errors.StorageError(
                f"{destination} exists.", next_step="Choose another file with --output, or replace it with --overwrite."
            )
    for destination, text in texts.items():
        try:
            destination.write_text(text, encoding="utf-8")
        except OSError as error:
            raise errors.StorageError(f"{destination} cannot be written: {error.strerror}.") from error
    config_file, artifact_config_file = texts
    return WrittenConfigs(config_file, artifact_config_file, starter.metrics)


def starter_configs(model: ModelSpec, population_name: str, label_name: Optional[str] = None) -> StarterConfigs:
    """Chooses values that fit a model and that any other model can start from, too.

    Args:
      label_name: name of the label in the examples on devices, for a model with named features; `label` if not given.

    Raises:
      ModelError: no example on a device can be parsed into the model's features and label.
      ConfigError: the population name does not do.
    """
    examples = example_features(model, label_name)
    metrics = guess_metrics(model)
    texts = [
        _CONFIG.format(
            features="\n".join(f"#   {printable(name)}: {_describe(info)}" for name, info in examples.items()),
            population_name=json.dumps(population_name),
            label_name=f"label_name: {json.dumps(list(examples)[-1])}\n" if isinstance(model.features, Mapping) else "",
            metrics="".join(f'    metrics {{ name: "{name}" }}\n' for name in metrics),
            training_urls=_urls("") if with_urls else "",
            evaluation_urls=_urls("eval_") if with_urls else "",
        )
        for with_urls in (False, True)
    ]
    for text in texts:
        config.resolve(config.parse_config(text))
    return StarterConfigs(texts[0], texts[1], metrics)


def guess_metrics(model: ModelSpec) -> tuple[str, ...]:
    """Metrics that run and mean something for the model's label and output, which decide as follows (spec: metrics.md, section 2).

        label                  output    guess
        integer, one a batch   one       binary_accuracy: two classes
        integer, one           several   sparse_categorical_accuracy: the label is the number of a class
        integer, several       as many   categorical_accuracy: one-hot labels
        float                  as many   mean_absolute_error, root_mean_squared_error: numbers

    Metrics that demand probabilities (auc-roc, precision, ...) are not guessed, since an output may be a logit. There is no guess for
    anything else.
    """
    label, output = model.label, model.output
    if isinstance(output, tuple) and len(output) == 3:  # Only the third, taken as logits, goes to the metrics.
        output = output[2]
    if not isinstance(label, TensorInfo) or not isinstance(output, TensorInfo):
        return ()
    label_size, output_size = _values_per_example(label), _values_per_example(output)
    if label_size is None or output_size is None:
        return ()
    if label.dtype.startswith(("int", "uint")):
        if label_size == 1:
            return ("binary_accuracy",) if output_size == 1 else ("sparse_categorical_accuracy",)
        return ("categorical_accuracy",) if label_size == output_size else ()
    if label.dtype.startswith("float") and label_size == output_size:
        return ("mean_absolute_error", "root_mean_squared_error")
    return ()


def default_population_name(model_name: str) -> str:
    """A population name made from the name of a model's directory."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", model_name).strip("._-")[:64] or "my_population"


def _values_per_example(tensor: TensorInfo) -> Optional[int]:
    """1 for the shapes [batch] and [batch, 1], n for [batch, n], None for anything else."""
    if tensor.shape is None or not 1 <= len(tensor.shape) <= 2:
        return None
    return tensor.shape[1] if len(tensor.shape) == 2 else 1


def example_features(model: ModelSpec, label_name: Optional[str]) -> dict[str, TensorInfo]:
    """What an example on a device holds, by name; the label comes last.

    Raises:
      ModelError: no example can be parsed into the model's features and label.
    """
    if isinstance(model.features, Mapping):
        features = dict(model.features)
        label_name = label_name or next((name for name in _LABEL_NAMES if name not in features), "the_label")
    else:
        features, label_name = {"x": model.features}, "y"
    examples: dict[str, Any] = {**features, label_name: model.label}
    if len(examples) == len(features):
        raise errors.ModelError(f"The label cannot be called {label_name!r}: the model has a feature of that name.")
    for name, structure in examples.items():
        if not isinstance(structure, TensorInfo):
            raise errors.ModelError(
                f"{name!r} of the model is a structure of several tensors.",
                next_step="Examples on devices hold float32, int64, string, or int32 and bool as int64, with known dimensions behind the batch.",
            )
        check_parsable(f"The label {name!r}" if name == label_name else f"Feature {name!r}", structure)
    return examples


def _describe(tensor: TensorInfo) -> str:
    stored = STORED_AS[tensor.dtype]
    return str(tensor) if stored == tensor.dtype else f"{tensor}, stored as {stored}"


def _urls(prefix: str) -> str:
    block = f"""\
        artifact_building {{
          plan_url: "{{storage_path}}/{prefix}plan.pb"
          client_plan_url: "{{storage_path}}/{prefix}client_only_plan.pb"
          checkpoint_url: "{{storage_path}}/{prefix}initial_state.server.ckp"
        }}
        """
    return textwrap.indent(textwrap.dedent(block), "    ")


_CONFIG = """\
# Task config in text proto. `odp-task validate --show` tells every value that a task is built with.
#
# Each example on a device is a tf.train.Example that holds
{features}
# the last of which is the label.

# TRAINING_ONLY, TRAINING_AND_EVAL or EVAL_ONLY: this alone decides which tasks are made.
mode: TRAINING_AND_EVAL
# The devices that take part; part of URLs, so that letters, digits, dots, hyphens and underscores will do.
population_name: {population_name}
{label_name}
policies {{
  min_separation_policy {{
    # A client may contribute again after this many rounds.
    minimum_separation: 3
  }}
  data_availability_policy {{
    # A client with fewer examples does not take part in training.
    min_example_count: 1
  }}
  model_release_policy {{
    num_max_training_rounds: 1000
    # The privacy budget: an epsilon of at most 10 at a delta of at most 1/3,000,000.
    dp_target_epsilon: 6
    dp_delta: 3.3e-7
  }}
  dataset_policy {{
    batch_size: 16
    # Batches per client and round; -1 for all of them.
    max_training_batches_per_client: -1
  }}
}}

federated_learning {{
  learning_process {{
    # FED_AVG or FED_SGD.
    type: FED_AVG
    # SGD or ADAM, with learning rates from 0 to 1.
    client_optimizer: SGD
    client_learning_rate: 0.1
    server_optimizer: SGD
    server_learning_rate: 1.0
    runtime_config {{
      # Client reports that complete a round, and the share of devices that are admitted beyond.
      report_goal: 1000
      over_selection_rate: 0.3
    }}
    # The loss is always reported. Metrics are released without noise; `metrics {{ name: "..." }}` adds one.
{metrics}{training_urls}  }}
  evaluation {{
    # The training task to evaluate: 1 is the first task of a population.
    source_training_task_id: 1
    # Checkpoints of the last 24 hours are put into buckets of k rounds (every_k_round) or k hours (every_k_hour); each evaluation
    # round takes the first one of a random bucket.
    checkpoint_selector: "every_1_round"
    # Share of the devices that evaluate instead of train; 0.1 becomes a weight of 11 beside 100 for training.
    evaluation_traffic: 0.1
    report_goal: 200
{evaluation_urls}  }}
}}

differential_privacy {{
  # FIXED_GAUSSIAN, ADAPTIVE_GAUSSIAN, TREE_AGGREGATION or ADAPTIVE_TREE.
  type: FIXED_GAUSSIAN
  # Updates are scaled down to this L2 norm. Without a noise_multiplier the smallest that keeps the budget is used.
  clip_norm: 0.1
}}
"""
