"""What the generated encoders make of values is, byte for byte, TensorFlow's deterministic tf.train.Example."""

import base64

import hypothesis
import jvm
import numpy as np
import pytest
from hypothesis import strategies as st

from odp_taskbuilder import errors
from odp_taskbuilder.android import app, names
from odp_taskbuilder.artifacts.example_format import ExampleFeature, ExampleFormat, format_of_artifacts
from odp_taskbuilder.data import examples

# isort: split
from tensorflow.core.example import example_pb2

LANGUAGES = ("java", "kotlin")
_TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=6)
# What could end a literal or a comment, or begin something else in one; keywords; what the encoder itself is made of.
_TRICKY = st.sampled_from(
    [
        "",
        '"',
        "\\",
        "\\u0022",
        "\\\\u000a",
        "*/",
        "/*",
        "$x",
        "${x}",
        "\n",
        "\u2028",
        "class",
        "fun",
        "values",
        "floats",
        "a-b",
        "a_b",
    ]
    + ["@param", "{@link x}", "\x00", "é", "画", "\U0001f600", "x", "X", "_", "1", "name", "{{package}}"]
)
_SHAPES = st.sampled_from([(), (1,), (1, 1), (0,), (2,), (3, 2), (130,)])


def options(language, **changes):
    values = {
        "package": "com.example.app",
        "service": "Feeding",
        "federated_compute_url": "https://example.com",
        "language": language,
    }
    return app.AppOptions(**{**values, **changes})


def _values(kind, size):
    if kind == "float32":
        # Python's protobuf makes NaN quiet on its way through a double; of NaN only that one is drawn.
        floats = st.floats(width=32, allow_nan=False) | st.just(float("nan"))
        return st.lists(floats, min_size=size, max_size=size).map(lambda values: np.array(values, np.float32))
    if kind == "int64":
        integers = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 300)
        return st.lists(integers, min_size=size, max_size=size).map(lambda values: np.array(values, np.int64))
    texts = st.binary(max_size=5) | st.just(b"long" * 50)
    return st.lists(texts, min_size=size, max_size=size).map(lambda values: np.array([*values, None], dtype=object)[:-1])


@st.composite
def _task(draw):
    """Features and their values."""
    made = {}
    for name in draw(st.sets(_TEXT | _TRICKY, min_size=1, max_size=5)):
        feature = ExampleFeature(name, draw(st.sampled_from(examples.KINDS)), draw(_SHAPES))
        made[feature] = draw(_values(feature.kind, feature.size))
    return made


def serialized(values):
    """As TensorFlow serializes it."""
    example = example_pb2.Example()
    for name, array in values.items():
        kind = examples.kind_of(array)
        feature = example.features.feature[name]
        target = {"float32": feature.float_list, "int64": feature.int64_list, "string": feature.bytes_list}[kind]
        target.SetInParent()
        target.value.extend(array.ravel().tolist())
    return example.SerializeToString(deterministic=True)


def check_encoder(tmp_path_factory, language, tasks):
    """Compiles one app for all tasks and compares its bytes."""
    formats = [ExampleFormat("", f"population {number} */ \\u0022", None, tuple(task)) for number, task in enumerate(tasks)]
    files = app.app_files(formats, options(language))
    classes = jvm.compile_app(tmp_path_factory.mktemp("app"), files, language)
    methods = names.method_names(each.population_name for each in formats)
    lines = [
        " ".join([methods[each.population_name], *(jvm.argument(values) for values in task.values())])
        for each, task in zip(formats, tasks)
    ]
    made = jvm.run(classes, "com.example.app.FeedingExamples", lines)
    assert [base64.b64decode(line) for line in made] == [
        serialized({feature.name: values for feature, values in task.items()}) for task in tasks
    ]


_FEW = hypothesis.settings(
    max_examples=3, deadline=None, phases=[hypothesis.Phase.generate], suppress_health_check=list(hypothesis.HealthCheck)
)


@_FEW
@hypothesis.given(st.lists(_task(), min_size=25, max_size=25))
def test_the_java_encoder_makes_the_bytes_of_tensorflow(tmp_path_factory, tasks):
    check_encoder(tmp_path_factory, "java", tasks)


@_FEW
@hypothesis.given(st.lists(_task(), min_size=25, max_size=25))
def test_the_kotlin_encoder_makes_the_bytes_of_tensorflow(tmp_path_factory, tasks):
    check_encoder(tmp_path_factory, "kotlin", tasks)


@pytest.mark.full
@hypothesis.settings(_FEW, max_examples=40)
@hypothesis.given(st.lists(_task(), min_size=25, max_size=25))
def test_the_java_encoder_makes_the_bytes_of_tensorflow_for_a_thousand_tasks(tmp_path_factory, tasks):
    check_encoder(tmp_path_factory, "java", tasks)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_wrong_length_and_an_example_above_50_kb_throw(tmp_path, language):
    features = (ExampleFeature("x", "float32", (3,)), ExampleFeature("s", "string", (1,)))
    classes = jvm.compile_app(tmp_path, app.app_files([ExampleFormat("", "p", None, features)], options(language)), language)
    three = jvm.argument(np.zeros(3, np.float32))
    text = [jvm.argument(np.array([b"a" * size, None], dtype=object)[:1]) for size in (1, 49_954, 49_955)]
    lines = [f"p {jvm.argument(np.zeros(2, np.float32))} {text[0]}", f"p {three} {text[1]}", f"p {three} {text[2]}"]
    short, largest, larger = jvm.run(classes, "com.example.app.FeedingExamples", lines)
    assert short == "! java.lang.IllegalArgumentException: Feature x has 2 values; the task takes 3"
    assert len(base64.b64decode(largest)) == 50_000
    assert larger == "! java.lang.IllegalArgumentException: The example has 50001 bytes; phones take 50000"


def test_the_client_plan_trains_on_what_the_java_encoder_makes(golden, tmp_path):
    from odp_taskbuilder.data import tfrecord
    from odp_taskbuilder.runtime.client_runtime import ClientRuntime, load_client_only_plan
    from odp_taskbuilder.runtime.server_runtime import load_plan, open_server

    artifacts = golden / "keras_dense" / "expected_mapreduce"
    example_format = format_of_artifacts(artifacts)
    example_format = example_format.with_population("keras")
    classes = jvm.compile_app(tmp_path, app.app_files([example_format], options("java")), "java")
    rng = np.random.default_rng(0)
    rows = [{"x": rng.random(784, np.float32), "y": np.array([number % 2])} for number in range(5)]
    lines = [" ".join(["keras", *(jvm.argument(row[feature.name]) for feature in example_format.features)]) for row in rows]
    records = [base64.b64decode(line) for line in jvm.run(classes, "com.example.app.FeedingExamples", lines)]
    assert records == [examples.encode(row) for row in rows]
    server = open_server(load_plan(artifacts / "plan.pb"))
    server.write_client_checkpoint(artifacts / "initial_state.server.ckp", tmp_path / "checkpoint")
    tfrecord.write_records(tmp_path / "examples", records)
    device = ClientRuntime(load_client_only_plan(artifacts / "client_only_plan.pb"))
    device.run(tmp_path / "examples", tmp_path / "checkpoint", tmp_path / "update")
    assert (tmp_path / "update").stat().st_size == 806_518


def test_more_features_than_a_method_has_parameters_are_refused():
    def features(count, kind):
        return tuple(ExampleFeature(f"x{number}", kind, ()) for number in range(count))

    for count, kind in ((256, "float32"), (128, "int64")):
        with pytest.raises(errors.UsageError, match="Join features of one kind"):
            app.app_files([ExampleFormat("a task", "p", None, features(count, kind))], options("java"))
        app.app_files([ExampleFormat("a task", "p", None, features(count - 1, kind))], options("java"))
