"""`odp-task init` writes configs that fit a model: they are free of warnings and build as they stand."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

from odp_taskbuilder.model.input_spec import ModelSpec, TensorInfo, read_model_spec

ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")
PROGRAM = pathlib.Path(__file__).with_name("starter_models.py")

SPECS = {
    "named": ModelSpec(
        features={"age": TensorInfo("float32", (None, 4)), "postcode": TensorInfo("float32", (None, 2))},
        label=TensorInfo("int64", (None, 1)),
        output=TensorInfo("float32", (None, 1)),
    ),
    "sparse": ModelSpec(TensorInfo("float32", (None, 8, 8)), TensorInfo("int32", (None, 1)), TensorInfo("float32", (None, 10))),
    "regression": ModelSpec(
        TensorInfo("float32", (None, 3)), TensorInfo("float32", (None, 1)), TensorInfo("float32", (None, 1))
    ),
}
WEIGHTS = {"named": [(6, 1), (1,)], "sparse": [(64, 10), (10,)], "regression": [(3, 1), (1,)]}
METRICS = {
    "named": ["binary_accuracy"],
    "sparse": ["sparse_categorical_accuracy"],
    "regression": ["mean_absolute_error", "root_mean_squared_error"],
}


def odp_task(*args):
    return subprocess.run([ODP_TASK, *map(str, args)], capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A directory with models, the configs that were written for them, and what was built from these."""
    directory = tmp_path_factory.mktemp("started")
    run = subprocess.run(
        [sys.executable, PROGRAM, directory], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return directory


@pytest.mark.parametrize("name", SPECS)
def test_the_models_file_tells_features_label_and_output(started, name):
    model = read_model_spec(started / "models" / name)
    assert dataclasses.replace(model, weights=(), trainable=()) == SPECS[name]
    assert [weight.shape for weight in model.weights] == WEIGHTS[name]
    assert model.trainable == model.weights


def test_the_published_model_is_read(golden):
    weights = tuple(TensorInfo("float32", shape) for shape in ((784, 256), (256,), (256, 2), (2,)))
    assert read_model_spec(golden / "keras_dense" / "model") == ModelSpec(
        TensorInfo("float32", (None, 784)), TensorInfo("int64", (None, 1)), TensorInfo("float32", (None,)), weights, weights
    )


@pytest.mark.parametrize("name", SPECS)
def test_the_config_builds_as_it_stands(started, name):
    report = (started / "built" / name / "report.pbtxt").read_text()
    assert f'accepted_metrics: "{", ".join(METRICS[name])}"' in report
    assert {path.name for path in (started / "built" / name).iterdir()} >= {"plan.pb", "client_only_plan.pb", "eval_plan.pb"}


def test_both_configs_are_valid_without_warnings(started, tmp_path):
    run = odp_task("init", "--saved_model", started / "models" / "named", "--output", tmp_path / "job.pbtxt", "--json")
    document = json.loads(run.stdout)
    assert (run.returncode, document["metrics"]) == (0, METRICS["named"])
    assert (document["config"], document["artifact_config"]) == (
        str(tmp_path / "job.pbtxt"),
        str(tmp_path / "job_artifacts.pbtxt"),
    )
    assert odp_task("validate", "--strict", *document["config"].split(), document["artifact_config"]).returncode == 0
    artifacts_only = ["validate", "--strict", "--build_artifact_only", "--storage_path", "gs://bucket/run"]
    assert odp_task(*artifacts_only, document["artifact_config"]).returncode == 0
    assert odp_task(*artifacts_only, document["config"]).returncode == 3


def test_the_config_says_how_examples_must_look(started, tmp_path):
    odp_task(
        "init", "--saved_model", started / "models" / "sparse", "--output", tmp_path / "a.pbtxt", "--population_name", "mine"
    )
    odp_task("init", "--saved_model", started / "models" / "named", "--output", tmp_path / "b.pbtxt", "--label_name", "bought")
    single, mapping = (tmp_path / "a.pbtxt").read_text(), (tmp_path / "b.pbtxt").read_text()
    assert "#   x: float32 [8, 8]\n#   y: int32 [1], stored as int64\n" in single
    assert 'population_name: "mine"\n' in single and "label_name" not in single
    assert "#   age: float32 [4]\n#   postcode: float32 [2]\n#   bought: int64 [1]\n" in mapping
    assert 'population_name: "named"\nlabel_name: "bought"\n' in mapping


def test_nothing_is_overwritten_unless_asked_for(started, tmp_path):
    args = ["init", "--saved_model", started / "models" / "sparse", "--output", tmp_path / "job.pbtxt"]
    (tmp_path / "job_artifacts.pbtxt").write_text("precious")
    run = odp_task(*args)
    assert (run.returncode, run.stdout) == (7, "")
    assert run.stderr.startswith(f"Error: {tmp_path}/job_artifacts.pbtxt exists.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["job_artifacts.pbtxt"]
    assert (tmp_path / "job_artifacts.pbtxt").read_text() == "precious"
    assert odp_task(*args, "--overwrite").returncode == 0
    assert "{storage_path}" in (tmp_path / "job_artifacts.pbtxt").read_text()


@pytest.mark.parametrize(
    ("args", "code", "part"),
    [
        (["--population_name", "a/b"], 3, "population_name"),
        (["--label_name", "age"], 4, "The label cannot be called 'age'"),
        (["--output", "no/such/directory/job.pbtxt"], 7, "cannot be written: No such file or directory"),
    ],
)
def test_what_does_not_do_is_said(started, args, code, part):
    run = odp_task("init", "--saved_model", started / "models" / "named", *args)
    assert run.returncode == code
    assert part in run.stderr


def test_tensorflow_is_not_imported(started, tmp_path):
    program = (
        "import sys\n"
        "from odp_taskbuilder.cli.main import cli\n"
        f"cli.main(['init', '--saved_model', {str(started / 'models' / 'named')!r}, '--output', {str(tmp_path / 'x.pbtxt')!r}], standalone_mode=False)\n"
        "heavy = {'tensorflow', 'tensorflow_federated', 'dp_accounting', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
