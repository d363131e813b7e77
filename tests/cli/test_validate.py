"""`odp-task validate` shows faults, warnings and resolved values of any number of configs, and starts without TensorFlow."""

import json
import pathlib
import subprocess
import sys

import pytest

ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")

GOOD = """
mode: TRAINING_ONLY
population_name: "digits"
policies { model_release_policy { num_max_training_rounds: 100 } }
federated_learning { learning_process { type: fed_avg runtime_config { report_goal: 2000 } } }
differential_privacy { clip_norm: 0.5 }
"""
BAD = GOOD.replace("report_goal", "repot_goal")
WARNED = GOOD.replace("2000", "2")


def validate(*args, stdin=None):
    return subprocess.run([ODP_TASK, "validate", *map(str, args)], input=stdin, capture_output=True, text=True, timeout=600)


@pytest.fixture
def configs(tmp_path):
    for name, text in (("good", GOOD), ("bad", BAD), ("warned", WARNED)):
        (tmp_path / f"{name}.pbtxt").write_text(text)
    return tmp_path


def test_a_good_config_ends_with_0_and_its_notices(configs):
    path = configs / "good.pbtxt"
    run = validate(path)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"{path}: note: Line 5: fed_avg was read as FED_AVG.\n{path}: ok, no warnings\n"


def test_faults_end_with_3_and_show_the_place_and_what_was_meant(configs):
    path = configs / "bad.pbtxt"
    run = validate(path)
    assert run.returncode == 3
    assert run.stdout.splitlines() == [
        f"{path}: note: Line 5: fed_avg was read as FED_AVG.",
        f"{path}:5:72: runtime_config has no field 'repot_goal'.",
        "    federated_learning { learning_process { type: fed_avg runtime_config { repot_goal: 2000 } } }",
        "    " + " " * 71 + "^",
        "    at federated_learning.learning_process.runtime_config.repot_goal",
        "    Did you mean 'report_goal'?",
        f"{path}: 1 problem",
    ]


def test_patterns_files_and_standard_input_are_checked_together(configs):
    run = validate(configs / "*.pbtxt", configs / "good.pbtxt", "-", configs / "none.pbtxt", stdin=GOOD)
    assert run.returncode == 3
    summaries = [line for line in run.stdout.splitlines() if line.endswith(("problem", "warning", "warnings"))]
    assert summaries == [
        f"{configs}/bad.pbtxt: 1 problem",
        f"{configs}/good.pbtxt: ok, no warnings",
        f"{configs}/warned.pbtxt: ok, 1 warning",
        f"{configs}/good.pbtxt: ok, no warnings",
        "<stdin>: ok, no warnings",
        f"{configs}/none.pbtxt: 1 problem",
    ]


def test_warnings_fail_only_when_asked_to(configs):
    path = configs / "warned.pbtxt"
    lenient, strict = validate(path), validate("--strict", path)
    assert (lenient.returncode, lenient.stdout.splitlines()[-1]) == (0, f"{path}: ok, 1 warning")
    assert (strict.returncode, strict.stdout.splitlines()[-1]) == (3, f"{path}: not accepted, 1 warning")


def test_notices_stand_beside_faults(configs):
    text = BAD.replace("runtime_config", 'metrics { name: "acuracy" } runtime_config')
    run = validate("-", stdin=text)
    assert run.returncode == 3
    assert (
        "<stdin>: note: The metric 'acuracy' is not on the allow list and is left out. Did you mean 'accuracy'?" in run.stdout
    )


@pytest.mark.parametrize(("separation", "needed"), [(1, 18_604), (100, 187)])
def test_a_report_goal_that_makes_an_adaptive_clip_impossible_is_warned_of_with_the_one_that_suffices(separation, needed):
    text = GOOD.replace("2000", "150").replace("num_max_training_rounds: 100", "num_max_training_rounds: 1000")
    text = text.replace("policies {", f"policies {{ min_separation_policy {{ minimum_separation: {separation} }}")
    text = text.replace("clip_norm: 0.5", "type: ADAPTIVE_TREE")
    run = validate("--json", "-", stdin=text)
    messages = [warning["message"] for warning in json.loads(run.stdout)["configs"][0]["warnings"]]
    assert any("ADAPTIVE_TREE needs noise_multiplier < 0.1 * report_goal" in message for message in messages)
    assert any(f"State report_goal {needed} or more" in message for message in messages)


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_output_that_cannot_be_written_is_a_storage_error(configs, arguments):
    with open("/dev/full", "w") as full:
        command = [ODP_TASK, "validate", *arguments, configs / "good.pbtxt"]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=600)
    assert (run.returncode, run.stderr) == (7, "Error: Cannot read or write the output: No space left on device.\n")


def test_json_holds_what_the_text_shows(configs):
    run = validate("--json", "--show", configs / "bad.pbtxt", configs / "warned.pbtxt")
    bad, warned = json.loads(run.stdout)["configs"]
    assert (run.returncode, run.stderr) == (3, "")
    assert (bad["ok"], warned["ok"]) == (False, True)
    (problem,) = bad["problems"]
    assert (problem["line"], problem["column"], problem["suggestion"]) == (5, 72, "Did you mean 'report_goal'?")
    assert [warning["path"] for warning in warned["warnings"]] == [
        "federated_learning.learning_process.runtime_config.report_goal"
    ]
    assert warned["notices"] == ["Line 5: fed_avg was read as FED_AVG."]
    resolved = {row["path"]: (row["value"], row["origin"]) for row in warned["resolved"]}
    assert resolved["federated_learning.learning_process.runtime_config.report_goal"] == (2, "config")
    assert resolved["differential_privacy.noise_multiplier"] == (None, "derived")


def test_show_prints_every_value_with_its_origin(configs):
    run = validate("--show", "--population_name", "other", "--population", 10000, configs / "good.pbtxt")
    rows = [tuple(line.split()) for line in run.stdout.splitlines() if line.startswith("  ")]
    assert ("population_name", "other", "option") in rows
    assert ("policies.model_release_policy.dp_delta", "3.3333333333333335e-07", "default") in rows
    assert ("federated_learning.learning_process.client_learning_rate", "0.1", "default") in rows
    assert ("training.traffic_weight", "100", "derived") in rows


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--build_artifact_only"], 3),
        (["--build_artifact_only=true"], 3),
        (["--build-artifact-only=True"], 3),
        (["--build_artifact_only=False"], 0),
        (["--build_artifact_only", "--nobuild_artifact_only"], 0),
    ],
)
def test_artifact_urls_are_checked_for_a_build_that_needs_them(configs, flags, code):
    run = validate(*flags, configs / "good.pbtxt")
    assert run.returncode == code
    assert run.stdout.count("each needs a destination") == code


def test_a_closed_standard_input_is_a_message_and_not_a_traceback():
    run = subprocess.run(f"'{ODP_TASK}' validate - <&-", shell=True, capture_output=True, text=True, timeout=600)
    assert (run.returncode, run.stdout) == (
        3,
        "<stdin>: Cannot read the task config: Bad file descriptor.\n<stdin>: 1 problem\n",
    )


def test_tensorflow_is_not_imported(configs):
    program = (
        "import sys\n"
        "from odp_taskbuilder.cli.main import cli\n"
        f"code = cli.main(['validate', '--show', {str(configs / 'good.pbtxt')!r}], standalone_mode=False)\n"
        "assert code == 0, code\n"
        "heavy = {'tensorflow', 'tensorflow_federated', 'dp_accounting', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
