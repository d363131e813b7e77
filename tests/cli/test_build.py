"""`odp-task build` as a user runs it: real processes, real models, real mistakes."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "configs" / "digits"
ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")

CONFIG = """
mode: TRAINING_ONLY
population_name: "somebody"
{label}
policies {{ model_release_policy {{ num_max_training_rounds: 10 }} }}
federated_learning {{ learning_process {{ runtime_config {{ report_goal: 100 }} {metrics} }} }}
differential_privacy {{ clip_norm: 0.1 noise_multiplier: 1.0 }}
"""


def write_config(path, label="", metrics=""):
    path.write_text(CONFIG.format(label=label, metrics=metrics))
    return path


def run(*arguments, cwd, **environment):
    env = {**os.environ, **environment}
    return subprocess.run([ODP_TASK, *map(str, arguments)], cwd=cwd, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The shipped example, built with --json: (directory of the run, finished process)."""
    cwd = tmp_path_factory.mktemp("example")
    (cwd / "tmp").mkdir()
    # A terminal's guide: flags with underscores, `=`, and True.
    arguments = (f"--saved_model={EXAMPLE / 'saved_model'}", f"--task_config={EXAMPLE / 'train.pbtxt'}", "--json")
    return cwd, run("build", *arguments, cwd=cwd, TMPDIR=str(cwd / "tmp"), PYTHONDONTWRITEBYTECODE="")


def test_the_example_builds_and_prints_one_json_document(example):
    cwd, process = example
    assert process.returncode == 0, process.stderr
    document = json.loads(process.stdout)
    directory = cwd / "odp_artifacts" / "digits"
    files = {path.name for path in directory.iterdir()}
    assert files == set(document["files"]) | {"manifest.json"}
    assert files >= {"plan.pb", "client_only_plan.pb", "initial_state.server.ckp", "task.pbtxt", "report.pbtxt"}
    assert document["task_report"]["applied_algorithms"]["dp_aggregator"] == "FIXED_GAUSSIAN"
    assert 5.99 < document["privacy"]["epsilon"] <= 6
    assert any("Poisson" in sentence for sentence in document["privacy"]["assumptions"])
    assert "Traceback" not in process.stderr
    assert "building the training plan" in process.stderr


def test_the_printed_report_never_shows_less_than_the_epsilon_spent(example):
    document = json.loads(example[1].stdout)
    shown = document["task_report"]["dp_hyperparameters"]
    assert np.float32(shown["dp_epsilon"]) >= document["privacy"]["epsilon"]
    assert np.float32(shown["dp_delta"]) >= document["privacy"]["delta"]


def test_the_clip_of_the_example_holds_for_clients_with_examples_that_nobody_would_send(example):
    verified = run("verify", "odp_artifacts/digits", "--run", "--json", cwd=example[0])
    assert verified.returncode == 0, verified.stdout
    wild = json.loads(verified.stdout)["wild_updates"][""]
    assert wild["clip"] == 0.5
    norms = [update["norm"] for update in wild["updates"]]
    assert len(norms) > 10 and max(norms) == pytest.approx(0.5, rel=1e-6)


def test_nothing_is_left_in_the_temporary_directory(example):
    cwd, _ = example
    assert [path for path in (cwd / "tmp").rglob("*") if path.is_file()] == []


def test_no_process_outlives_the_command(example):
    children = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in children.splitlines() if "worker_binary" in line and str(example[0]) in line]


MISTAKES = [
    # Arguments, exit code, what the message must say.
    (["--task_config", "{config}"], 2, "saved_model"),
    (["--saved_model", "{model}", "--task_config", "{config}", "--sever", "x"], 2, "No such option"),
    (["--saved_model", "{model}", "--task_config", "{tmp}/absent.pbtxt"], 3, "absent.pbtxt"),
    (["--saved_model", "{model}", "--task_config", "{broken}"], 3, "Did you mean 'population_name'?"),
    (["--saved_model", "{tmp}/absent", "--task_config", "{config}"], 4, "absent"),
    (["--saved_model", "{tmp}", "--task_config", "{config}"], 4, "saved_model.pb is missing"),
    (["--saved_model", "{foreign}", "--task_config", "{config}"], 4, "not a FunctionalModel"),
    (["--saved_model", "{truncated}", "--task_config", "{config}"], 4, "{truncated}"),
    (["--saved_model", "{model}", "--task_config", "{greedy}"], 5, "not private enough"),
    (
        ["--saved_model", "{unsupported}", "--task_config", "{config}"],
        6,
        "Please contact Google to register these ops: {{'Cholesky': '(CholeskyOp<float>)'",
    ),
    (
        ["--saved_model", "{shift}", "--task_config", "{config}", "--skip_flex_ops_check"],
        6,
        "needs TensorFlow Lite 2.13.0, because of RIGHT_SHIFT",
    ),
    (
        ["--saved_model", "{large}", "--task_config", "{config}"],
        4,
        "would hold 52,004,000 bytes of weights; they drop one above 50,000,000 bytes",
    ),
    (["--saved_model", "{large}", "--task_config", "{config}", "--sandbox"], 4, "they drop one above 50,000,000 bytes"),
    (
        ["--saved_model", "{model}", "--task_config", "{config}", "--allow_runtime", "new"],
        2,
        "'new' is no release of TensorFlow Lite",
    ),
    (["--saved_model", "{model}", "--task_config", "{config}", "--compress_updates", "9"], 2, "9 is not in the range 2<=x<=8"),
    (["--saved_model", "{model}", "--task_config", "{config}", "--compress_model", "1"], 2, "1 is not in the range 2<=x<=8"),
    (["--saved_model", "{model}", "--task_config", "{config}", "--compress_evaluation"], 2, "no compress_model says in how many bits"),
    (["--saved_model", "{dictionary}", "--task_config", "{config}"], 3, "{config}: Label name cannot be empty."),
    (["--saved_model", "{float16}", "--task_config", "{config}"], 4, "float16"),
    (["--saved_model", "{model}", "--task_config", "{config}", "--output", "{file}"], 7, "{file}"),
    (
        ["--saved_model", "{model}", "--task_config", "{config}", "--output", "/proc/absent"],
        7,
        "Cannot write /proc/absent/somebody",
    ),
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Models and configs of every kind, made by one process: a dict of paths."""
    tmp = tmp_path_factory.mktemp("places")
    subprocess.run([sys.executable, ROOT / "tests" / "cli" / "make_models.py", tmp], check=True, capture_output=True)
    names = {name: tmp / name for name in ("unsupported", "dictionary", "foreign", "float16", "shift", "large")}
    truncated = tmp / "truncated"
    (truncated / "variables").mkdir(parents=True)
    for part in (EXAMPLE / "saved_model").rglob("*"):
        if part.is_file():
            content = part.read_bytes()
            short = content[: len(content) // 2] if part.name == "saved_model.pb" else content
            (truncated / part.relative_to(EXAMPLE / "saved_model")).write_bytes(short)
    (tmp / "broken.pbtxt").write_text('mode: TRAINING_ONLY\npopulaton_name: "x"\n')
    (tmp / "greedy.pbtxt").write_text(
        write_config(tmp / "config.pbtxt").read_text().replace("noise_multiplier: 1.0", "noise_multiplier: 0.01")
    )
    (tmp / "file").write_text("in the way")
    return {
        **names,
        "tmp": tmp,
        "model": EXAMPLE / "saved_model",
        "config": tmp / "config.pbtxt",
        "broken": tmp / "broken.pbtxt",
        "greedy": tmp / "greedy.pbtxt",
        "truncated": truncated,
        "file": tmp / "file",
    }


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES, ids=[mistake[2][:30] for mistake in MISTAKES])
def test_a_mistake_gets_its_exit_code_one_message_and_no_output(places, tmp_path, arguments, code, message):
    process = run("build", *(argument.format(**places) for argument in arguments), cwd=tmp_path)
    assert process.returncode == code, process.stderr
    assert message.format(**places) in process.stderr
    assert "Traceback" not in process.stderr
    assert process.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_phones_may_not_take_is_built_on_request_and_its_examples_are_warned_of(places, tmp_path):
    limits = ("--max_client_checkpoint_bytes", 53_000_000)
    process = run("build", "--saved_model", places["large"], "--task_config", places["config"], *limits, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "# An example of this model may take 52,0" in process.stdout
    assert "most of them for 'x'; phones take no example above 50,000 bytes (50 KB)." in process.stdout
    verified = run("verify", "odp_artifacts/somebody", cwd=tmp_path)
    assert verified.returncode == 9
    assert "plan.pb: devices download a checkpoint of 52,004,464 bytes" in verified.stdout
    assert "client_only_plan.pb: An example may take 52,0" in verified.stdout
    assert run("verify", "odp_artifacts/somebody", *limits, cwd=tmp_path).returncode == 0


def test_validate_and_init_tell_what_phones_take_without_building(places, tmp_path):
    refused = run("validate", "--saved_model", places["large"], places["config"], cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (4, "")
    assert (
        "they drop one above 50,000,000 bytes" in refused.stderr and "--max_client_checkpoint_bytes 53000000" in refused.stderr
    )
    warned = run(
        "validate",
        "--max_client_checkpoint_bytes",
        60_000_000,
        "--saved_model",
        places["large"],
        places["config"],
        cwd=tmp_path,
    )
    assert warned.returncode == 0 and "warning: saved_model: An example of this model may take 52,0" in warned.stdout
    started = run("init", "--saved_model", places["large"], cwd=tmp_path)
    assert started.returncode == 0
    assert "Warning: An example of this model may take 52,0" in started.stderr
    assert (
        "Warning: Phones drop a checkpoint above 50,000,000 bytes; this model's holds 52,004,000 bytes of weights."
        in started.stderr
    )


def test_a_later_runtime_can_be_allowed_and_is_shown_by_ops(places, tmp_path):
    arguments = ("--saved_model", places["shift"], "--task_config", places["config"])
    process = run("build", *arguments, "--allow_runtime", "2.13", "--sandbox", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "# The client plan needs TensorFlow Lite 2.13.0, because of RIGHT_SHIFT" in process.stdout
    listed = run("ops", "odp_artifacts/somebody", cwd=tmp_path)
    assert listed.returncode == 0
    assert "Needs TensorFlow Lite 2.13.0 (RIGHT_SHIFT); phones have a fork of about 2.10.0 and do not load it." in listed.stdout
    assert any(
        line.split()[:1] == ["RIGHT_SHIFT"] and "TFLite 2.13.0 (op version 1)" in line for line in listed.stdout.splitlines()
    )


def test_json_mode_reports_errors_as_json_too(places, tmp_path):
    process = run("build", "--saved_model", places["model"], "--task_config", places["broken"], "--json", cwd=tmp_path)
    document = json.loads(process.stdout)
    assert document["error"]["exit_code"] == process.returncode == 3
    assert {problem["line"] for problem in document["error"]["problems"]} >= {2}


def test_unsupported_ops_can_be_skipped_and_warnings_are_shown(places, tmp_path):
    config = write_config(tmp_path / "config.pbtxt")
    config.write_text(config.read_text().replace("report_goal: 100", "report_goal: 99"))
    process = run(
        "build", "--saved_model", places["unsupported"], "--task_config", config, "--skip_flex_ops_check=True", cwd=tmp_path
    )
    assert process.returncode == 0, process.stderr
    assert "Warning: federated_learning.learning_process.runtime_config.report_goal: Metrics carry no noise" in process.stderr
    assert 'min_client_version: "0"' in (tmp_path / "odp_artifacts" / "somebody" / "task.pbtxt").read_text()


def test_a_model_with_named_features_builds_and_runs(places, tmp_path):
    config = write_config(tmp_path / "config.pbtxt", label='label_name: "income"')
    process = run("build", "--saved_model", places["dictionary"], "--task_config", config, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    # Executed in a process of its own: two clients whose examples have an int64 and an int32 feature.
    result = subprocess.run(
        [sys.executable, ROOT / "tests" / "cli" / "run_named_features.py", tmp_path / "odp_artifacts" / "somebody", tmp_path],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    metrics = json.loads(result.stdout.splitlines()[-1])
    # The model predicts 0 from zero weights; the loss is the mean of (0 - label) ** 2 over labels 1, 2, 3 and 4.
    assert metrics["server/client_work/train/loss"] == pytest.approx((1 + 4 + 9 + 16) / 4, rel=1e-6)


def test_after_a_failed_upload_the_artifacts_are_complete_and_push_uploads_them(places, tmp_path):
    urls = " ".join(f'{name}_url: "{tmp_path}/uploaded/{name}"' for name in ("plan", "client_plan", "checkpoint"))
    config = write_config(tmp_path / "config.pbtxt", metrics=f"artifact_building {{ {urls} }}")
    (tmp_path / "uploaded").write_text("in the way")
    process = run("build", "--saved_model", places["model"], "--task_config", config, "--build_artifact_only", cwd=tmp_path)
    assert process.returncode == 7
    command = "odp-task push odp_artifacts/somebody"
    assert f"The artifacts are complete in odp_artifacts/somebody; `{command}` uploads them." in process.stderr
    (tmp_path / "uploaded").unlink()
    process = run(*command.split()[1:], cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    artifacts = tmp_path / "odp_artifacts" / "somebody"
    assert (tmp_path / "uploaded" / "plan").read_bytes() == (artifacts / "plan.pb").read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_build_and_leaves_nothing(tmp_path, number, code):
    command = [ODP_TASK, "build", "--saved_model", EXAMPLE / "saved_model", "--task_config", EXAMPLE / "train.pbtxt"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("loading TensorFlow"):
            break
    process.send_signal(number)
    deadline = time.monotonic() + 60
    _, stderr = process.communicate(timeout=deadline - time.monotonic())
    assert process.returncode == code
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


def test_a_full_temporary_directory_is_named(tmp_path):
    unshare = shutil.which("unshare")
    script = f'mount -t tmpfs -o size=100k none {tmp_path} && "$@"'
    command = [unshare, "-rm", "sh", "-c", script, "sh", ODP_TASK, "build", "--output", tmp_path / "output"]
    command += ["--saved_model", EXAMPLE / "saved_model", "--task_config", EXAMPLE / "train.pbtxt"]
    if unshare is None or subprocess.run([*command[:5], "sh", "true"], capture_output=True).returncode:
        pytest.skip("this system lets no user mount a small disk")
    process = subprocess.run(command, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True)
    assert process.returncode == 7
    assert f"The temporary directory {tmp_path} has 102,400 bytes left" in process.stderr


def test_output_is_old_or_new_at_whatever_moment_a_build_is_killed(tmp_path, request):
    count = 100 if request.config.getoption("--full") else 4
    command = [sys.executable, ROOT / "tests" / "cli" / "killed_builds.py", tmp_path / "out", str(count)]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    replaced, kept = map(int, process.stdout.split())
    assert replaced + kept == count and kept > 0


def test_help_starts_without_tensorflow(tmp_path):
    program = "import sys; from odp_taskbuilder.cli import main\nmain.run(['--help'])\nprint('tensorflow' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert process.stdout.splitlines()[-1] == "False"
