"""`odp-task privacy` answers from options and from configs, as text, JSON and figures, and starts without TensorFlow."""

import json
import pathlib
import subprocess
import sys
import xml.etree.ElementTree

import dp_accounting
import pytest
from click.testing import CliRunner
from dp_accounting import rdp

from odp_taskbuilder.cli.main import cli

ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")

CONFIG = """
mode: TRAINING_ONLY
population_name: "digits"
policies {
  min_separation_policy { minimum_separation: 20 }
  model_release_policy { num_max_training_rounds: 100 dp_target_epsilon: 6 dp_delta: %s }
}
federated_learning { learning_process { runtime_config { report_goal: 2000 } } }
differential_privacy { clip_norm: 0.5 %s }
"""


def odp_task(*args, stdin=None):
    return subprocess.run([ODP_TASK, "privacy", *map(str, args)], input=stdin, capture_output=True, text=True, timeout=120)


def document(*args, stdin=None, code=0):
    run = odp_task(*args, "--json", stdin=stdin)
    assert run.returncode == code, run.stderr
    return json.loads(run.stdout)


def test_epsilon_from_options_matches_the_existing_task_builder():
    answer = document("epsilon", "--report_goal", 2000, "--rounds", 1000, "--noise_multiplier", 1, "--reference")
    # 0.13242623236419093, in the digits that every processor agrees on.
    assert answer["reference_epsilon"] == 0.132426
    assert answer["epsilon"] == 0.13243
    assert (answer["target_epsilon"], answer["target_met"], answer["calibrated"]) == (10.0, True, False)
    assert len(answer["assumptions"]) >= 5


def test_text_shows_an_epsilon_that_is_still_a_bound_and_every_assumption():
    args = ["--report_goal", 2000, "--rounds", 1000, "--noise_multiplier", 1]
    answer, text = document("epsilon", *args), odp_task("epsilon", *args).stdout
    label, shown = text.splitlines()[0].split()[:2]
    assert label == "epsilon" and answer["epsilon"] <= float(shown) < answer["epsilon"] * 1.000001
    assert [line for line in text.splitlines() if line.startswith("- ")] == [f"- {line}" for line in answer["assumptions"]]


def test_epsilon_above_the_target_is_shown_and_ends_with_the_privacy_exit_code():
    answer = document("epsilon", "--report-goal", 2000, "--rounds", 1000, "--noise-multiplier", 1, "--epsilon", 0.1, code=5)
    assert answer["epsilon"] > 0.1 and not answer["target_met"]


def test_noise_from_a_config_and_the_options_that_replace_its_values():
    config = CONFIG % ("3.3e-7", "noise_multiplier: 2.0")
    answer = document("noise", "--task_config", "-", stdin=config)
    assert answer["noise_multiplier"] == pytest.approx(0.4077, rel=1e-3) and answer["target_epsilon"] == 6
    replaced = document("noise", "--task_config", "-", "--epsilon", 2, "--aggregator", "TREE_AGGREGATION", stdin=config)
    assert replaced["contributions_per_client"] == 5
    assert replaced["noise_multiplier"] == pytest.approx(5 * 6.5805, rel=1e-3)
    configured = document("epsilon", "--task_config", "-", stdin=config)
    assert configured["noise_multiplier"] == 2.0 and configured["epsilon"] < 0.1


def test_a_tree_is_accounted_for_at_the_pace_that_is_stated():
    tree = ["epsilon", "--aggregator", "TREE_AGGREGATION", "--report_goal", 500, "--rounds", 1000, "--noise_multiplier", 20]
    tree += ["--minimum_separation", 1000, "--epsilon", 1e6]
    for pace, contributions in ((None, 6), (1000, 1)):
        answer = document(*tree, *([] if pace is None else ["--rounds_per_day", pace]))
        event = dp_accounting.SingleEpochTreeAggregationDpEvent(20 / contributions, [1000])
        accountant = rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_SPECIAL).compose(event)
        assert answer["contributions_per_client"] == contributions
        # Stated in six digits, rounded up.
        assert 0 <= answer["epsilon"] - accountant.get_epsilon(1 / 3e6) <= 1e-5 * answer["epsilon"]
        assert any(f"pace of {pace or 24} a day or more" in sentence for sentence in answer["assumptions"])


def test_the_guides_delta_needs_the_population_that_allows_it():
    refused = odp_task("noise", "--report_goal", 200, "--rounds", 100, "--delta", 1e-6)
    assert refused.returncode == 2
    assert "delta must be at most 1 / population, which is 3.333333e-07, found 1e-06" in refused.stderr
    assert "If the real population is 1,000,000 devices or fewer, state it with --population" in refused.stderr
    assert document("noise", "--report_goal", 200, "--rounds", 100, "--delta", 1e-6, "--population", 1_000_000)["delta"] == 1e-6
    config = CONFIG % ("1e-6", "")
    assert odp_task("noise", "--task_config", "-", stdin=config).returncode == 3
    assert document("noise", "--task_config", "-", "--population", 1_000_000, stdin=config)["population"] == 1_000_000


@pytest.mark.parametrize(
    "args, message",
    [
        (["epsilon", "--rounds", 10, "--noise_multiplier", 1], "--report_goal is missing"),
        (["epsilon", "--rounds", 10, "--report_goal", 5], "--noise_multiplier is missing"),
        (["noise", "--rounds", 10, "--report_goal", 5, "--noise_multiplier", 1], "what this command computes"),
        (["noise", "--rounds", 0, "--report_goal", 5], "rounds must be at least 1, found 0."),
        (["noise", "--rounds", 10, "--report_goal", 3_000_001], "report_goal must be at most the population"),
        (["epsilon", "--rounds", 10, "--report_goal", 5, "--noise_multiplier", "nan"], "'nan' is not a finite number"),
        (["epsilon", "--rounds", 10, "--report_goal", 5, "--noise_multiplier", "-1"], "noise_multiplier must be between"),
        (["noise", "--rounds", 10, "--report_goal", 5, "--epsilon", "inf"], "'inf' is not a finite number"),
        (["noise", "--rounds", 10, "--report_goal", 5, "--delta", "-1e-9"], "delta must be between"),
        (["noise", "--rounds", 10, "--report_goal", 5, "--population", 0], "0 is not in the range x>=1"),
        (["noise", "--rounds", 10, "--report_goal", 5, "--rounds_per_day", 0], "rounds_per_day must be above 0"),
        (
            ["noise", "--rounds", 10, "--report_goal", 5, "--rounds_per_day", 1e300],
            "rounds_per_day must be above 0 and at most 1e+09",
        ),
        (
            [
                "epsilon",
                "--rounds",
                10,
                "--report_goal",
                5,
                "--noise_multiplier",
                1,
                "--reference",
                "--aggregator",
                "ADAPTIVE_TREE",
            ],
            "--reference",
        ),
        (["curve", "--over", "rounds", "--from", 10, "--to", 2, "--report_goal", 5], "from a positive number to a larger one"),
        (["curve", "--over", "rounds", "--from", 1, "--to", "nan", "--report_goal", 5], "'nan' is not a finite number"),
        (["curve", "--over", "rounds", "--from", 0.2, "--to", 9, "--report_goal", 5], "starts at 1 or more, not at 0.2"),
    ],
)
def test_impossible_options_are_refused_by_name(args, message):
    result = CliRunner().invoke(cli, ["privacy", *map(str, args)], standalone_mode=False)
    assert result.exception.exit_code == 2
    assert message in str(getattr(result.exception, "message", result.exception))
    assert result.output == ""


def test_a_curve_over_rounds_rises_to_the_target_that_its_noise_was_calibrated_for(tmp_path):
    figure = tmp_path / "curve.png"
    curve = document(
        "curve",
        "--over",
        "rounds",
        "--from",
        1,
        "--to",
        1000,
        "--steps",
        7,
        "--report_goal",
        2000,
        "--epsilon",
        2,
        "--output",
        figure,
    )
    assert curve["noise_multiplier"] == pytest.approx(0.59609732670333, rel=1e-4)
    rounds, epsilons = zip(*(point.values() for point in curve["points"]))
    assert rounds == (1, 3, 10, 32, 100, 316, 1000)
    assert list(epsilons) == sorted(epsilons)
    assert 2 * (1 - 1e-3) < epsilons[-1] <= 2
    assert figure.read_bytes().startswith(b"\x89PNG\r\n")


def test_a_figure_names_its_axes_its_setting_and_the_target(tmp_path):
    figure = tmp_path / "curve.svg"
    run = odp_task(
        "curve",
        "--over",
        "noise",
        "--from",
        0.5,
        "--to",
        2,
        "--steps",
        3,
        "--report_goal",
        200,
        "--rounds",
        50,
        "--output",
        figure,
    )
    assert run.returncode == 0, run.stderr
    # matplotlib writes every text of a figure into a comment beside its outlines.
    parser = xml.etree.ElementTree.XMLParser(target=xml.etree.ElementTree.TreeBuilder(insert_comments=True))
    root = xml.etree.ElementTree.parse(figure, parser).getroot()
    texts = {element.text.strip() for element in root.iter(xml.etree.ElementTree.Comment)}
    assert "noise multiplier (standard deviation of the noise / clip norm)" in texts
    assert "epsilon of the whole training (no unit)" in texts
    assert "target epsilon 10" in texts
    assert "delta 3.333e-07, for an assumed population of 3,000,000 devices" in texts
    assert "FIXED_GAUSSIAN: 50 rounds, report goal 200" in texts
    assert {"0.5", "1", "2"} <= texts
    lines = run.stdout.splitlines()
    assert lines[0] == "FIXED_GAUSSIAN: 50 rounds, report goal 200, delta 3.333333e-07, for an assumed population of 3,000,000 devices, target epsilon 10"
    assert lines[1].split() == ["noise_multiplier", "epsilon"]
    assert all("with probability report goal / population" in line for line in lines[5:6])
    assert all(line.startswith("- ") for line in lines[5:])


def test_a_curve_of_clients_spends_more_the_more_of_them_there_are():
    curve = document(
        "curve", "--over", "report_goal", "--from", 10, "--to", 10_000, "--steps", 4, "--rounds", 100, "--noise_multiplier", 1
    )
    assert [point["report_goal"] for point in curve["points"]] == [10, 100, 1000, 10_000]
    epsilons = [point["epsilon"] for point in curve["points"]]
    assert epsilons == sorted(set(epsilons))


def test_a_figure_that_cannot_be_written_is_a_storage_error(tmp_path):
    args = ["curve", "--over", "noise", "--from", 1, "--to", 2, "--steps", 2, "--report_goal", 20, "--rounds", 5, "--output"]
    assert odp_task(*args, tmp_path / "absent" / "curve.png").returncode == 7
    assert odp_task(*args, tmp_path / "curve.unknown").returncode == 2


def test_the_commands_start_without_tensorflow_and_without_matplotlib():
    code = """
import sys
from odp_taskbuilder.cli.main import cli
cli.main(args=["privacy", "noise", "--report_goal", "20", "--rounds", "5"], prog_name="odp-task", standalone_mode=False)
print(sorted({"tensorflow", "tensorflow_federated", "jax", "matplotlib"} & sys.modules.keys()))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]"
