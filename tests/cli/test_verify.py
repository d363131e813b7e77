"""`odp-task verify`."""

import json
import subprocess
import sys

import pytest

from odp_taskbuilder.inspection.inspect import inspect

_COMMAND = [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()", "verify"]


def _run(*arguments):
    return subprocess.run([*_COMMAND, *map(str, arguments)], capture_output=True, text=True)


def test_published_artifacts_hold(golden):
    run = _run(golden / "keras_dense" / "expected_mapreduce")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "6 files, 0 findings: holds."
    assert "There is no manifest.json" in run.stdout


def test_damage_ends_with_9_and_names_the_file(golden, tmp_path):
    for name in ("plan.pb", "client_only_plan.pb", "initial_state.server.ckp"):
        content = bytearray((golden / "keras_dense" / "expected_mapreduce" / name).read_bytes())
        if name == "initial_state.server.ckp":
            content[400_000] ^= 1
        (tmp_path / name).write_bytes(content)
    run = _run(tmp_path, "--json")
    assert run.returncode == 9
    (finding,) = json.loads(run.stdout)["findings"]
    assert finding["file"] == "initial_state.server.ckp"
    assert "does not have its checksum" in finding["problem"]


def test_a_round_moves_the_bytes_that_inspect_promises(golden):
    artifacts = golden / "keras_dense" / "expected_mapreduce"
    run = _run(artifacts, "--run", "--json")
    result = json.loads(run.stdout)
    rounds = result["rounds"]
    promised = {entry.task: entry.traffic for entry in inspect([artifacts]).traffic}
    for prefix, task in (("", "training"), ("eval_", "evaluation")):
        done, told = rounds[prefix], promised[task]
        assert done["plan_bytes"] == told.plan_bytes
        assert done["download_bytes"] == told.download_bytes
        assert done["upload_bytes"] == [told.upload_bytes] * 2
    assert set(rounds[""]["metrics"]) == {"server/client_work/train/loss", "server/finalizer/update_non_finite"}
    assert 0 < rounds["eval_"]["metrics"]["server/eval/loss"] < 10
    # The clip of the published plan holds for ordinary examples only.
    assert run.returncode == 9
    (finding,) = result["findings"]
    assert finding["file"] == "plan.pb"
    assert finding["problem"].startswith("the clip does not hold: a client with nan in every float sends an update of norm ")
    assert result["wild_updates"][""]["clip"] == pytest.approx(0.1)
    assert result["wild_updates"]["eval_"]["clip"] is None


def test_a_round_that_was_asked_for_and_cannot_be_run_is_a_finding(golden):
    artifacts = golden / "keras_dense" / "expected_distribute_aggregate"
    assert _run(artifacts).returncode == 0
    run = _run(artifacts, "--run", "--json")
    assert run.returncode == 9, run.stdout
    problem = "no round was run: there is no initial_state.server.ckp to start from"
    assert json.loads(run.stdout)["findings"] == [{"file": name, "problem": problem} for name in ("plan.pb", "eval_plan.pb")]


@pytest.mark.full
def test_a_plan_that_looks_right_and_does_not_run_is_found(golden, tmp_path):
    for name in ("plan.pb", "client_only_plan.pb", "initial_state.server.ckp"):
        content = (golden / "keras_dense" / "expected_mapreduce" / name).read_bytes()
        # Another op of the same length: nothing but running it tells.
        (tmp_path / name).write_bytes(
            content.replace(b"RandomStandardNormal", b"RandomStandardNorma1") if name == "plan.pb" else content
        )
    run = _run(tmp_path, "--run", "--json")
    assert run.returncode == 9
    (finding,) = json.loads(run.stdout)["findings"]
    assert (finding["file"], finding["problem"][:14]) == ("plan.pb", "a round failed")


def test_ops_can_be_judged_by_another_list(golden, tmp_path):
    (tmp_path / "ops.csv").write_text("341812000,MapDataset\n")
    arguments = [golden / "keras_dense" / "expected_mapreduce", "--allowlist", tmp_path / "ops.csv"]
    run = _run(*arguments)
    assert run.returncode == 9
    assert "client_only_plan.pb: no listed module version has the ops BatchDatasetV2, BroadcastGradientArgs," in run.stdout
    assert _run(*arguments, "--skip_flex_ops_check").returncode == 0


def test_a_directory_without_artifacts_is_an_error(tmp_path):
    run = _run(tmp_path)
    assert run.returncode == 9
    assert "holds no artifacts" in run.stderr
