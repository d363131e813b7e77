"""What commands print as JSON is what docs/json.md says."""

import dataclasses
import json
import pathlib
import sys

import click
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "inspection"))
import handmade_artifacts as handmade
from click.testing import CliRunner

from odp_taskbuilder.cli import json_documents, simulate
from odp_taskbuilder.cli.main import cli, run
from odp_taskbuilder.config.show import ResolvedValue
from odp_taskbuilder.config.spec import Origin
from odp_taskbuilder.simulation.communication import Communication
from odp_taskbuilder.simulation.round_reports import CompiledShare, Summary, TaskSummary
from odp_taskbuilder.simulation.spending import SpentPrivacy

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = ROOT / "configs" / "digits"
TASK = ["--report_goal", "20", "--rounds", "5"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    config = [ResolvedValue("use_daf", False, Origin.DEFAULT), ResolvedValue("label_name", None, Origin.OPTION)]
    handmade.save(folder / "a", config=config)
    handmade.save(folder / "b", batch_size=9, extra_op="Conv2D")
    (folder / "run" / "p" / "1" / "1" / "s" / "0").mkdir(parents=True)
    (folder / "run" / "p" / "1" / "1" / "s" / "0" / "metrics").write_text('{"server/client_work/train/loss": 1.5}')
    (folder / "bad.pbtxt").write_text("mood: TRAINING_ONLY")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ["validate", "{digits}/train.pbtxt", "--show"],
        ["validate", "{digits}/try_out.pbtxt", "{places}/bad.pbtxt"],
        ["privacy", "epsilon", *TASK, "--noise_multiplier", "5", "--reference"],
        ["privacy", "noise", *TASK, "--aggregator", "TREE_AGGREGATION"],
        ["privacy", "curve", *TASK, "--over", "noise", "--from", "4", "--to", "5", "--steps", "2"],
        ["scan", "{digits}/saved_model"],
        ["init", "--saved_model", "{digits}/saved_model", "--output", "{places}/init.pbtxt", "--overwrite"],
        ["data", "partition", "digits", "--clients", "4", "--output", "{places}/clients"],
        ["data", "describe", "{places}/clients"],
        ["data", "describe", "{places}/clients", "--label", "none"],
        ["inspect", "{places}/a"],
        ["inspect", "{places}/a/client_only_plan.pb"],
        ["diff", "{places}/a", "{places}/b"],
        ["ops", "{places}/b"],
        ["verify", "{places}/b"],
        ["metrics", "{places}/run"],
        ["doctor"],
    ],
    ids=lambda command: " ".join(command),
)
def test_documents_are_as_described(command, places):
    arguments = [part.format(digits=DIGITS, places=places) for part in command]
    done = CliRunner().invoke(cli, [*arguments, "--json"], standalone_mode=False)
    document = json.loads(done.stdout)
    name = next(name for name in json_documents.DOCUMENTS if " ".join(command).startswith(name))
    assert list(json_documents.misfits(name, document)) == []
    assert len(document) > 1


def test_errors_are_as_described(places, capsys):
    for arguments, code in ((["build", "--saved_model", "x", "--task_config", str(places / "bad.pbtxt")], 3), (["privacy", "noise"], 2)):
        assert run([*arguments, "--json"]) == code
        document = json.loads(capsys.readouterr().out)
        assert list(json_documents.misfits(arguments[0], document)) == []
        assert document["error"]["exit_code"] == code


def test_several_builds_are_as_described(places, capsys):
    bad = ["--task_config", str(places / "bad.pbtxt")]
    assert run(["build", "--saved_model", "x", *bad, *bad, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert list(json_documents.misfits("build", document)) == []
    assert [build["exit_code"] for build in document["builds"]] == [3, 3]


def test_a_simulation_is_as_described(monkeypatch):
    task = TaskSummary(3, {"server/client_work/train/loss": 1.0}, Communication(1, 2))
    spent = SpentPrivacy(1.0, "for a stated population of 9 devices", 2.0, 5, 1e-6, 3, ("One.",))
    counts = dict.fromkeys(("clients", "bad_clients", "rounds_without_effect", "zeroed_clients", "oversized_examples"), 1)
    seconds = dict.fromkeys(("seconds", "mean_client_seconds", "max_client_seconds"), 0.5)
    whole = Summary(population="p", training=task, evaluation=task, privacy=spent, compiled=CompiledShare(), **counts, **seconds)
    bare = dataclasses.replace(whole, evaluation=None, privacy=None, compiled=None, mean_client_seconds=None, noise_of_reports=4)
    for summary in (whole, bare):
        monkeypatch.setattr(simulate, "simulate", lambda *_, summary=summary, **__: summary)
        arguments = ["simulate", "x", "--data", "x", "--rounds", "1", "--clients_per_round", "1", "--json"]
        document = json.loads(CliRunner().invoke(cli, arguments).stdout)
        assert list(json_documents.misfits("simulate", document)) == []


def test_what_is_not_described_or_of_another_type_is_found():
    document = {"schema_version": 1, "differences": [{"path": ["a", 1], "left": None, "right": "x", "more": 1}]}
    assert list(json_documents.misfits("diff", document)) == [
        "differences[].path[] is 1, not text",
        "differences[].left is None, not text",
        "differences[].more is not described",
    ]
    assert list(json_documents.misfits("diff", {"differences": []})) == ["schema_version is None"]


def test_every_command_with_json_is_described():
    context, printing = click.Context(cli), set()
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        inner = command.commands if isinstance(command, click.Group) else {"": command}
        printing |= {
            f"{name} {part}".strip() for part, one in inner.items() if any("--json" in parameter.opts for parameter in one.params)
        }
    assert printing == set(json_documents.DOCUMENTS)
