"""Mutated configs: whatever the text is, the answer is a TaskSpec or a ConfigError, and it agrees with protobuf's own parsers."""

import json
import random

import pytest
from google.protobuf import json_format, text_format

from odp_taskbuilder import config, errors
from odp_taskbuilder.proto import task_builder_pb2

# protobuf's Python parser passes unknown escapes on to Python's, which warns.
pytestmark = pytest.mark.filterwarnings("ignore:.*invalid.*escape sequence:DeprecationWarning")

TEXT = """\
# Comment with { and "
mode: TRAINING_AND_EVAL
population_name: "my_population"
label_name: 'y'
use_daf: true
policies {
  min_separation_policy { minimum_separation: 3 }
  data_availability_policy < min_example_count: 1 >
  model_release_policy { dp_target_epsilon: 6.0, dp_delta: 1e-9; num_max_training_rounds: 1000 }
  dataset_policy { batch_size: 16 max_training_batches_per_client: -1 }
}
federated_learning {
  learning_process {
    type: FED_AVG
    client_optimizer: SGD
    client_learning_rate: 0.01
    server_optimizer: ADAM
    server_learning_rate: 1
    runtime_config { report_goal: 2000 over_selection_rate: .5 example_selector_uri: "app://a" }
    metrics: [{ name: "auc-roc" }, { name: "binary" "_accuracy" }]
    metrics { name: "auc" parameter: "\\x41\\n" }
    artifact_building { plan_url: "gs://b/plan" client_plan_url: "gs://b/c" checkpoint_url: "{storage_path}/k" }
  }
  evaluation {
    source_training_task_id: 1
    checkpoint_selector: "every_1_round"
    evaluation_traffic: 0.1
    report_goal: 200
  }
}
differential_privacy { type: ADAPTIVE_TREE noise_multiplier: 1.5 clip_norm: 0.1 init_clip_norm: 1.0f }
"""
JSON = json_format.MessageToJson(text_format.Parse(TEXT, task_builder_pb2.TaskConfig()))
SAMPLES = (TEXT, TEXT, "{\n" + TEXT + "}", JSON)

EXTREMES = (
    "nan", "-nan", "inf", "-inf", "-0", "-0.0", "0", "1", "-1", "1e308", "1e-320", "1e999", str(2**31), str(2**63), str(2**63 - 1), str(-(2**63)),
    str(2**64), "9" * 500, "0x7fffffffffffffff", "010", "1_000", "2²", "٣", "1.5.5", "+1", "NaN", "Infinity", "null", "true", "TRUE", "UNKNOWN", "9",
    "TREE", "fed_sgd", "EVAL_ONLY", "TRAINING_ONLY", "ﬁxed_gaussian", '""', '"every_0_round"', '"every_²_round"', '"mean"', '"a" "b"', '"\\ud800"', '"\\377"', '"\\0"',
    '"\u202eabc\u200f"', '"\\', '"', "'", "{", "}", "[", "]", "<", ">", "{}", "[]", "[1]", ":", "=", ",", ";", "#", "/", "//", "/*", "-", ".", "\0", "\x1b[31m", "\r", "\n", "\ufeff",
    "\u2028", "\ud7ff", "mode", "type: FED_AVG", "metrics {}", "policies {", "a" * 300, "{" * 40, "[" * 2000, '{"a":' * 2000,
)  # fmt: skip


def mutate(rng, text):
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice((0, 1, 1, 2, 5, 20)))
        tokens = list(_tokens(text))
        change = rng.randrange(7)
        if change == 0:
            text = text[:start] + text[end:]
        elif change == 1:
            text = text[:start] + rng.choice(EXTREMES) + text[end:]
        elif change == 2:
            text = text[:start] + chr(rng.randrange(1, 0x3000)) + text[end:]
        elif change == 3 and tokens:
            begin, stop = rng.choice(tokens)
            text = text[:begin] + rng.choice(EXTREMES) + text[stop:]
        elif change == 4 and len(tokens) > 1:
            (a, b), (c, d) = sorted(rng.sample(tokens, 2))
            text = text[:a] + text[c:d] + text[b:c] + text[a:b] + text[d:]
        elif change == 5:
            lines = text.split("\n")
            index = rng.randrange(len(lines))
            text = "\n".join([*lines[:index], *lines[index + rng.randrange(2) :], lines[index]])
        else:
            text = text[:end] + text[start:end] + text[end:]
    return text


def _tokens(text):
    """Spans of words, numbers and quoted pieces, near enough."""
    start = None
    for index, char in enumerate(text + " "):
        if char.isalnum() or char in "_.+-\"'":
            start = index if start is None else start
        elif start is not None:
            yield start, index
            start = None


def protobufs_reading(data):
    """What protobuf makes of the text: a TaskConfig, or None."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    message = task_builder_pb2.TaskConfig()
    try:
        json.loads(text)
        is_json = text.strip().startswith("{")
    except (ValueError, RecursionError):
        is_json = False
    try:
        return json_format.Parse(text, message) if is_json else text_format.Parse(text, message)
    except SystemError:  # Half a surrogate pair in a JSON name.
        return None
    except (text_format.ParseError, json_format.ParseError, ValueError, RecursionError, OverflowError):
        return None


# What protobuf's Python parser accepts and this project does not: the last of two zero values, digits of other scripts, any size.
STRICTER = ("was given in line", "Expected a value", "is not text", "has a value of", "is empty")


def check(data):
    """Reads and resolves one config; returns how that ended."""
    theirs = protobufs_reading(data)
    try:
        loaded = config.parse_config(data)
    except errors.ConfigError as error:
        _check_refusal(error, theirs)
        return "unreadable"
    if loaded.problems:
        _check_refusal(errors.ConfigError(loaded.problems), theirs)
    elif not loaded.notices:
        assert theirs is not None
        assert loaded.config.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)
    try:
        spec = config.resolve(loaded)
    except errors.ConfigError as error:
        assert error.problems
        assert str(error)
        return "refused"
    assert not loaded.problems
    assert spec.training is not None or spec.evaluation is not None
    return "accepted"


def _check_refusal(error, theirs):
    assert str(error)
    if theirs is not None:
        assert any(part in problem.message for problem in error.problems for part in STRICTER)


def run(seed, count):
    rng = random.Random(seed)
    outcomes = {"accepted": 0, "refused": 0, "unreadable": 0}
    for _ in range(count):
        data = mutate(rng, rng.choice(SAMPLES)).encode("utf-8", "surrogatepass")
        if rng.random() < 0.1:
            position = rng.randrange(len(data) + 1)
            data = data[:position] + bytes([rng.randrange(256)]) + data[position:]
        outcomes[check(data)] += 1
    return outcomes


@pytest.mark.parametrize("sample", SAMPLES, ids=["text", "text again", "text in braces", "JSON"])
def test_the_samples_are_accepted(sample):
    assert check(sample.encode()) == "accepted"


def test_mutated_configs_give_a_spec_or_a_config_error():
    outcomes = run(seed=1, count=2_000)
    # The mutations neither spare nor spoil everything.
    assert min(outcomes.values()) > 4


@pytest.mark.full
def test_ten_thousand_mutated_configs_give_a_spec_or_a_config_error():
    outcomes = run(seed=2, count=10_000)
    assert sum(outcomes.values()) == 10_000
    assert min(outcomes.values()) > 100
