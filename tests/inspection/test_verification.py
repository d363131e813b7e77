"""`verify` notices whatever is damaged, missing, foreign, or does not belong together, and names the file."""

import dataclasses
import json
import random
import shutil

import handmade_artifacts as handmade
import numpy as np
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import directory, manifest
from odp_taskbuilder.inspection import checks
from odp_taskbuilder.inspection.inspect import inspect_file
from odp_taskbuilder.inspection.verify import Finding, verify
from odp_taskbuilder.ops.allowlist import Allowlist
from odp_taskbuilder.proto import plan_pb2


@pytest.fixture
def artifacts(tmp_path):
    return handmade.save(tmp_path / "out")


def _problems(result):
    return {(finding.file, finding.problem) for finding in result.findings}


def test_handmade_artifacts_hold(artifacts):
    result = verify(artifacts)
    assert (result.findings, result.notes) == ((), ())
    assert "plan.pb" in result.checked


@pytest.mark.parametrize("form", ["expected_mapreduce", "expected_distribute_aggregate"])
def test_published_artifacts_hold_without_a_manifest(golden, form):
    result = verify(golden / "keras_dense" / form)
    assert result.findings == ()
    assert result.notes[0] == "There is no manifest.json: the files were not compared with their digests."


@pytest.mark.parametrize(
    "name", ["plan.pb", "client_only_plan.pb", "initial_state.server.ckp", "task.pbtxt", "report.pbtxt", "manifest.json"]
)
def test_any_flipped_byte_is_found_and_the_file_named(artifacts, name):
    content = (artifacts / name).read_bytes()
    generator = random.Random(name)
    for _ in range(100):
        damaged = bytearray(content)
        damaged[generator.randrange(len(damaged))] ^= generator.randrange(1, 256)
        (artifacts / name).write_bytes(damaged)
        assert name in {finding.file for finding in verify(artifacts).findings}
    (artifacts / name).write_bytes(content)
    assert verify(artifacts).findings == ()


@pytest.mark.parametrize("name", ["plan.pb", "client_only_plan.pb", "initial_state.server.ckp"])
def test_any_flipped_byte_of_the_published_artifacts_is_found(golden, tmp_path, name):
    """The same promise on real artifacts, once they have a manifest."""
    shutil.copytree(golden / "keras_dense" / "expected_mapreduce", tmp_path / "out")
    made = manifest.make_manifest(tmp_path / "out", form="MapReduce", inputs={})
    (tmp_path / "out" / "manifest.json").write_text(made.to_json())
    content = (tmp_path / "out" / name).read_bytes()
    (tmp_path / "out" / name).unlink()  # The copy is as read-only as the original.
    generator = random.Random(name)
    for _ in range(5):
        damaged = bytearray(content)
        damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        (tmp_path / "out" / name).write_bytes(damaged)
        assert name in {finding.file for finding in verify(tmp_path / "out").findings}


def test_missing_and_added_files_are_found(artifacts):
    (artifacts / "task.pbtxt").unlink()
    (artifacts / "extra.bin").write_bytes(b"")
    assert _problems(verify(artifacts)) == {("task.pbtxt", "is missing"), ("extra.bin", "is not listed in manifest.json")}


def _without_manifest(artifacts):
    (artifacts / "manifest.json").unlink()
    return artifacts


def _change(path, message_class, change):
    message = message_class.FromString(path.read_bytes())
    change(message)
    path.write_bytes(message.SerializeToString())


def test_a_client_plan_of_another_build_does_not_belong(artifacts, tmp_path):
    other = handmade.save(tmp_path / "other", batch_size=8)
    shutil.copy(other / "client_only_plan.pb", artifacts)
    result = verify(_without_manifest(artifacts))
    assert _problems(result) == {("client_only_plan.pb", "its TFLite graph is not that of the plan")}


def test_a_checkpoint_of_another_shape_does_not_belong(artifacts):
    handmade.write_checkpoint(artifacts / "initial_state.server.ckp", weight=np.zeros((4, 2), np.float32))
    result = verify(_without_manifest(artifacts))
    assert result.findings == (
        Finding(
            "initial_state.server.ckp",
            "the plan's server state has server/global_model_weights/trainable/0 as float32[3, 2], the checkpoint has float32[4, 2]",
        ),
    )


def test_weights_that_are_not_finite_are_found(artifacts):
    handmade.write_checkpoint(artifacts / "initial_state.server.ckp", weight=np.full((3, 2), np.nan, np.float32))
    (finding,) = verify(_without_manifest(artifacts)).findings
    assert finding.problem == "the tensor server/global_model_weights/trainable/0 has 6 elements that are not finite"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda plan: setattr(plan.phase[0].server_phase, "phase_init_op", "gone"),
            "phase_init_op names 'gone', which is not in the graph",
        ),
        (lambda plan: plan.phase[0].server_phase.ClearField("write_client_init"), "it has no saver for write_client_init"),
        (
            lambda plan: setattr(plan.server_savepoint.saver_def, "version", 2),
            "the saver of server_savepoint writes checkpoints of version V2; devices and servers read V1",
        ),
        (
            lambda plan: setattr(plan.phase[0].server_phase.metrics[0], "stat_name", "loss"),
            "the metric 'loss' is not published under server/",
        ),
        (lambda plan: plan.ClearField("server_graph_bytes"), "it has no server graph"),
    ],
)
def test_a_plan_that_a_server_could_not_run_is_found(artifacts, change, problem):
    _change(artifacts / "plan.pb", plan_pb2.Plan, change)
    assert ("plan.pb", problem) in _problems(verify(_without_manifest(artifacts)))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda phase: setattr(phase.tensorflow_spec, "dataset_token_tensor_name", "token:0"),
            "the TFLite graph takes ['data_token:0', 'input_filepath:0', 'output_filepath:0'], "
            "the client spec feeds ['input_filepath:0', 'output_filepath:0', 'token:0']",
        ),
        (
            lambda phase: setattr(phase.federated_compute, "output_filepath_tensor_name", ""),
            "the client spec feeds ['input_filepath:0', 'output_filepath:0'], its router names ['input_filepath:0']",
        ),
        (
            lambda phase: setattr(phase.tensorflow_spec.example_selector, "collection_uri", "app://other"),
            "the client spec selects examples of 'app://other', the TFLite graph of None",
        ),
    ],
)
def test_a_client_plan_that_a_device_would_refuse_is_found(artifacts, change, problem):
    _change(artifacts / "client_only_plan.pb", plan_pb2.ClientOnlyPlan, lambda plan: change(plan.phase))
    assert ("client_only_plan.pb", problem) in _problems(verify(_without_manifest(artifacts)))


def test_an_op_that_phones_lack_is_found_unless_that_is_accepted(tmp_path):
    artifacts = handmade.save(tmp_path / "out", extra_op="Conv2D")
    assert _problems(verify(artifacts)) == {("client_only_plan.pb", "no listed module version has the ops Conv2D")}
    assert verify(artifacts, check_ops=False).findings == ()
    versions = dict(Allowlist.builtin().min_module_versions, Conv2D=400000000)
    assert verify(artifacts, allowlist=Allowlist(versions)).findings == ()


def test_inputs_that_devices_would_mix_up_are_found(tmp_path):
    (finding,) = verify(handmade.save(tmp_path / "out", inputs=(1, 0, 2))).findings
    assert finding.file == "client_only_plan.pb"
    assert finding.problem.startswith(
        "the TFLite graph's inputs are its tensors [1, 0, 2]; devices take a tensor's index for its position"
    )


def test_an_op_that_the_tensorflow_lite_of_phones_lacks_is_found_unless_that_is_accepted(tmp_path):
    artifacts = handmade.save(tmp_path / "out", builtin="RIGHT_SHIFT")
    (finding,) = verify(artifacts).findings
    assert finding.file == "client_only_plan.pb"
    assert (
        "needs TensorFlow Lite 2.13.0, because of RIGHT_SHIFT (TensorFlow Lite 2.13.0); phones have a fork" in finding.problem
    )
    accepted = verify(artifacts, allow_runtime="2.13.0")
    assert accepted.findings == ()
    assert any("client_only_plan.pb: The client plan needs TensorFlow Lite 2.13.0" in note for note in accepted.notes)


def test_an_op_that_not_all_phones_may_have_is_noted(tmp_path):
    result = verify(handmade.save(tmp_path / "out", builtin="UNSORTED_SEGMENT_MIN"))
    assert result.findings == ()
    assert any("needs TensorFlow Lite 2.11.0, because of UNSORTED_SEGMENT_MIN" in note for note in result.notes)


def test_a_checkpoint_beyond_what_phones_take_is_found(artifacts):
    size = 32 + 24  # at least the six weights
    (finding,) = verify(artifacts, max_client_checkpoint_bytes=size).findings
    assert finding.file == "plan.pb"
    assert "uncompressed; phones drop one above 56 bytes" in finding.problem
    assert verify(artifacts, max_client_checkpoint_bytes=1000).findings == ()


def test_a_tensor_that_the_server_cannot_read_from_an_update_is_found(golden, tmp_path):
    shutil.copytree(golden / "keras_dense" / "expected_distribute_aggregate", tmp_path / "published")
    facts = inspect_file(tmp_path / "published" / "plan.pb").facts
    assert list(checks.check_server(facts)) == []
    writes = tuple(dataclasses.replace(tensor, dtype="uint8") for tensor in facts.client.graph.writes[:1])
    graph = dataclasses.replace(facts.client.graph, writes=writes + facts.client.graph.writes[1:])
    changed = dataclasses.replace(facts, client=dataclasses.replace(facts.client, graph=graph))
    assert any(
        "the server reads no update with a tensor other than float32, float64, int32, int64, string" in problem
        for problem in checks.check_server(changed)
    )


def test_an_evaluation_plan_that_cannot_read_the_training_state_is_found(artifacts, tmp_path):
    def rename(plan):
        graph = plan.server_graph_bytes
        graph.value = graph.value.replace(
            b"server/global_model_weights/trainable/0", b"server/global_model_weights/trainable/9"
        )

    for name in ("plan.pb", "client_only_plan.pb", "initial_state.server.ckp"):
        shutil.copy(artifacts / name, artifacts / f"eval_{name}")
    _change(artifacts / "eval_plan.pb", plan_pb2.Plan, rename)
    problem = "the evaluation plan's server state has server/global_model_weights/trainable/9, which the training plan's does not have"
    assert ("eval_plan.pb", problem) in _problems(verify(_without_manifest(artifacts)))


def test_a_plan_in_the_place_of_another_artifact_is_found(artifacts):
    shutil.copy(artifacts / "plan.pb", artifacts / "client_only_plan.pb")
    assert ("client_only_plan.pb", "is a Plan, not a ClientOnlyPlan") in _problems(verify(_without_manifest(artifacts)))


def test_a_directory_without_artifacts_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(errors.ArtifactError, match="holds no artifacts"):
        verify(tmp_path)


def test_a_manifest_made_anew_for_changed_files_shows_the_new_digests(artifacts):
    """A manifest proves integrity, not origin: who can rewrite it can rewrite the files."""
    listed = json.loads((artifacts / "manifest.json").read_text())
    listed["files"]["plan.pb"]["size"] += 1
    (artifacts / "manifest.json").write_text(json.dumps(listed, indent=2) + "\n")
    assert {finding.file for finding in verify(artifacts).findings} == {"manifest.json"}


def test_directories_written_twice_verify(tmp_path):
    handmade.save(tmp_path / "out")
    handmade.save(tmp_path / "out", batch_size=9)
    assert verify(tmp_path / "out").findings == ()
    assert directory.check_destination(tmp_path / "out") is None
