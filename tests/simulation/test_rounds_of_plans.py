"""Simulations of built tasks: the same bits however they are run, the numbers of TFF, and bad clients named or counted."""

import gzip
import multiprocessing
import os
import pathlib
import shutil

import build_tasks
import numpy as np
import pytest
from runs import command_line, descendants, files, resident_kilobytes, weights, write_client

from odp_taskbuilder import errors
from odp_taskbuilder.data import examples, tfrecord
from odp_taskbuilder.plan import checkpoint
from odp_taskbuilder.simulation.round_reports import why_without_effect

FORMS = ("plain", "plain_daf")


@pytest.mark.parametrize("form", FORMS)
def test_any_number_of_workers_and_a_resume_give_the_same_bits(form, run):
    def interrupt(report):
        if (report.task, report.number) == ("training", 3):
            raise KeyboardInterrupt

    _, one = run(form, "one", num_workers=1)
    expected = files(one)
    assert len(expected) == 2 + 6 + 5 + 5
    for workers in (2, 4):
        _, directory = run(form, f"{workers} workers", num_workers=workers)
        assert files(directory) == expected
    with pytest.raises(KeyboardInterrupt):
        run(form, "resumed", on_round=interrupt)
    _, resumed = run(form, "resumed")
    assert files(resumed) == expected


def test_weights_and_metrics_are_those_of_tff(run, tasks):
    oracle, oracle_directory = run(
        name="tff", engine="tff", saved_model=build_tasks.MODEL, task_config=str(tasks / "plain.pbtxt")
    )
    for form in FORMS:
        summary, directory = run(form, form)
        for number in range(1, 6):
            expected = weights(oracle_directory, number)
            assert np.abs(weights(directory, number) - expected).max() <= 1e-5 * np.abs(expected).max()
        for found, wanted in ((summary.training, oracle.training), (summary.evaluation, oracle.evaluation)):
            assert found.rounds == wanted.rounds == 5
            published = {name: value for name, value in found.metrics.items() if name.startswith("server/")}
            assert published == pytest.approx(
                {name: value for name, value in wanted.metrics.items() if name in published}, rel=1e-5
            )
            assert len(published) == len([name for name in wanted.metrics if name.startswith("server/")]) > 1


@pytest.mark.full
def test_compressed_runs_give_the_same_bits_for_any_number_of_workers_and_learn_what_tff_learns(run, tasks):
    summary, one = run("compressed", "one", num_workers=1, rounds=3)
    for workers in (2, 4):
        _, directory = run("compressed", f"{workers} workers", num_workers=workers, rounds=3)
        assert files(directory) == files(one)
    given = {"saved_model": build_tasks.MODEL, "task_config": str(tasks / "plain.pbtxt")}
    _, oracle = run("compressed", "tff", engine="tff", rounds=3, **given)
    _, uncompressed = run("plain", "plain", rounds=3)
    start, expected = weights(oracle, 0), weights(oracle, 3)
    moved = np.linalg.norm(expected - start)
    # A last bit that training computes otherwise moves some values to the next code: the engines differ by less than rounding moves.
    apart = np.linalg.norm(weights(one, 3) - expected) / moved
    rounding = np.linalg.norm(weights(uncompressed, 3) - expected) / moved
    assert apart < rounding < 0.2
    metrics = summary.training.metrics
    assert metrics["communication/aggregated_bytes_per_client"] < 4 * 2410 / 2
    assert metrics["communication/aggregated_wire_bytes_per_client"] < metrics["communication/aggregated_bytes_per_client"]


def test_a_convolutional_model_with_sparse_labels_passes_the_op_check_and_trains_as_in_tff(run, tasks):
    given = {"saved_model": tasks / "convolutional_model", "task_config": str(tasks / "convolutional.pbtxt")}
    _, oracle_directory = run("convolutional", "tff", engine="tff", rounds=3, **given)
    _, directory = run("convolutional", "local", rounds=3)
    start, expected = weights(oracle_directory, 0), weights(oracle_directory, 3)
    moved = np.linalg.norm(expected - start)
    assert moved > 0.1
    assert np.linalg.norm(weights(directory, 3) - expected) <= 1e-5 * moved
    # The plan's own word: which ops were written with others.
    assert "Conv2DBackpropFilter" in (tasks / "convolutional" / "digits" / "report.pbtxt").read_text()


def test_features_in_any_order_and_booleans_train_as_in_tff(run, keras_tasks, clients):
    # Whether a digit is 0 or another one is a feature of this model.
    data = f"{clients / 'train'}?pixels=x&flag=y&digit=y"
    given = {"artifacts": keras_tasks / "named" / "digits", "rounds": 2, "data": data}
    inputs = {"saved_model": keras_tasks / "named_model", "task_config": str(keras_tasks / "named.pbtxt")}
    _, oracle_directory = run(name="tff", engine="tff", **given, **inputs)
    _, directory = run(name="local", **given)
    start, expected = weights(oracle_directory, 0), weights(oracle_directory, 2)
    moved = np.linalg.norm(expected - start)
    assert moved > 0.1
    assert np.linalg.norm(weights(directory, 2) - expected) <= 1e-5 * moved


def test_what_clients_draw_depends_on_client_round_and_seed_alone(run, keras_tasks, eleven_clients):
    artifacts = keras_tasks / "drawing" / "digits"
    _, one = run(name="one", artifacts=artifacts, num_workers=1, rounds=2)
    _, two = run(name="two", artifacts=artifacts, num_workers=2, rounds=2)
    assert files(one) == files(two)
    # All ten clients take part, so that the seed makes no other difference.
    trained = []
    for seed in (0, 1):
        _, directory = run(name=f"seed {seed}", artifacts=artifacts, seed=seed, rounds=1, data=eleven_clients)
        trained.append(weights(directory, 1))
    moved = np.linalg.norm(trained[0] - weights(directory, 0))
    assert np.linalg.norm(trained[1] - trained[0]) > 0.01 * moved


def test_communication_is_the_size_of_the_files(run, tasks, tmp_path):
    summary, directory = run(rounds=2)
    artifacts = tasks / "plain" / "digits"
    metrics = summary.training.metrics
    # 64 * 32 + 32 + 32 * 10 + 10 float32 weights and three sums of metrics; a checkpoint's table adds a few hundred bytes.
    update = metrics["communication/aggregated_bytes_per_client"]
    assert 4 * 2410 < update < 4 * 2410 + 1200
    checkpoint = metrics["communication/broadcast_bytes_per_client"] - (artifacts / "client_only_plan.pb").stat().st_size
    assert 4 * 2410 < checkpoint < 4 * 2410 + 1000
    assert metrics["communication/aggregated_bytes_cumulative"] == 2 * 10 * update
    assert summary.training.communication.aggregated == 20 * update
    # Of float32 weights gzip takes a tenth away, of an update also its zeros (pixels that are never set), of a plan more than half.
    assert 0.5 * update < metrics["communication/aggregated_wire_bytes_per_client"] < update
    plan = gzip.compress((artifacts / "client_only_plan.pb").read_bytes(), 6)
    assert 0.7 * checkpoint < metrics["communication/broadcast_wire_bytes_per_client"] - len(plan) < checkpoint
    for kind in (summary.training, summary.evaluation):
        both = summary.training.communication
        assert kind.metrics["communication/training_bytes_cumulative"] == both.broadcast + both.aggregated
        assert kind.metrics["communication/training_wire_bytes_cumulative"] == both.broadcast_wire + both.aggregated_wire


def test_noise_comes_from_the_plan(run):
    _, one = run("private", "one", rounds=1)
    _, other = run("private", "other", rounds=1)
    difference = weights(one, 1) - weights(other, 1)
    # Both add Gaussian noise of standard deviation 0.5 * 0.5 / 10 to each of 2410 weights; its estimate has a relative
    # standard deviation of 1.4 %.
    assert np.std(difference) == pytest.approx(np.sqrt(2) * 0.025, rel=0.08)


GOOD = {"x": np.zeros(64, np.float32), "y": np.array([1])}
BAD_CLIENTS = {
    "no examples": (lambda path: path.write_bytes(b""), errors.UsageError, r"Client 'bad' \(.*bad.tfrecord\) has no examples"),
    "other shape": (
        lambda path: write_client(path, GOOD, {"x": np.zeros(63, np.float32), "y": np.array([1])}),
        errors.UsageError,
        r"Client 'bad' \(.*bad.tfrecord\), example 1: feature 'x' is float32\[63\]; the plan expects float32\[64\]",
    ),
    "other kind": (
        lambda path: write_client(path, {"x": np.zeros(64, np.int64), "y": np.array([1])}),
        errors.UsageError,
        r"example 0: feature 'x' is int64\[64\]; the plan expects float32\[64\]",
    ),
    "no label": (
        lambda path: write_client(path, {"x": np.zeros(64, np.float32), "z": np.array([1])}),
        errors.UsageError,
        r"example 0 has no feature 'y'; the plan expects int64\[1\]. Its features: x float32\[64\], z int64\[1\]",
    ),
    "no Example": (
        lambda path: tfrecord.write_records(path, [b"\xff\xff"]),
        errors.UsageError,
        r"Client 'bad' .*example 0: the record is not a serialized tf.train.Example",
    ),
    "corrupt": (
        lambda path: path.write_bytes(b"x" * 100),
        errors.StorageError,
        r"Client 'bad': .*bad.tfrecord is not a sound TFRecord file: record at byte 0",
    ),
}


# Without a data availability policy, so that clients without examples are drawn at all.
@pytest.mark.parametrize("case", BAD_CLIENTS)
def test_a_bad_client_is_named_with_its_file(case, run, eleven_clients):
    write, kind, message = BAD_CLIENTS[case]
    write(eleven_clients / "bad.tfrecord")
    with pytest.raises(kind, match=message) as raised:
        run("unconditional", data=eleven_clients, rounds=1, clients_per_round=11)
    assert "--skip_bad_clients" in raised.value.next_step


def test_skipped_clients_are_counted_and_change_nothing(run, eleven_clients):
    _, without = run("unconditional", "without", data=eleven_clients, rounds=1, clients_per_round=10)
    for case in ("no examples", "other shape", "corrupt"):
        BAD_CLIENTS[case][0](eleven_clients / f"bad {case}.tfrecord")
    reports = []
    summary, directory = run(
        "unconditional",
        "with",
        data=eleven_clients,
        rounds=1,
        clients_per_round=13,
        skip_bad_clients=True,
        on_round=reports.append,
    )
    assert summary.bad_clients == 3
    assert {client.client_id for client in reports[0].bad_clients} == {"bad no examples", "bad other shape", "bad corrupt"}
    assert summary.training.metrics["simulation/reports"] == 10
    np.testing.assert_allclose(weights(directory, 1), weights(without, 1), rtol=0, atol=1e-7)


def test_an_aggregate_that_the_server_rejects_is_noted():
    metrics = {"simulation/reports": 10.0, "server/finalizer/update_non_finite": 1.0}
    assert why_without_effect(metrics) == "the server rejected the aggregate, which is not finite"
    assert why_without_effect({**metrics, "server/finalizer/update_non_finite": 0.0}) is None


@pytest.mark.parametrize("pixel", [np.nan, np.inf])
def test_clients_that_send_zeros_are_counted_and_move_nothing(run, eleven_clients, pixel):
    _, without = run(data=eleven_clients, name="without", rounds=1)
    wild = {"x": np.full(64, pixel, np.float32), "y": np.array([1])}
    write_client(eleven_clients / "wild.tfrecord", GOOD, wild)
    reports = []
    summary, directory = run(
        data=eleven_clients, name="with", rounds=1, clients_per_round=11, num_workers=1, on_round=reports.append
    )
    assert reports[0].zeroed_clients == summary.zeroed_clients == 1
    assert summary.training.metrics["simulation/zeroed_clients"] == 1
    assert summary.training.metrics["simulation/reports"] == 11
    # It counts in the mean, and adds nothing to it.
    moved, expected = (weights(each, 1) - weights(each, 0) for each in (directory, without))
    np.testing.assert_allclose(moved, expected * 10 / 11, rtol=0, atol=1e-6)
    loss = "server/client_work/train/loss"
    assert summary.training.metrics[loss] < 10


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.fixture
def artifacts(tasks, tmp_path):
    """A copy to damage, without a manifest that would tell."""
    directory = tmp_path / "artifacts" / "digits"
    shutil.copytree(tasks / "plain" / "digits", directory)
    (directory / "manifest.json").unlink()
    return directory


@pytest.mark.parametrize(
    "name, message",
    [
        ("plan.pb", "artifacts/digits/plan.pb is no Plan"),
        ("client_only_plan.pb", "artifacts/digits/client_only_plan.pb is no ClientOnlyPlan"),
        ("initial_state.server.ckp", "run/digits/1/0/s/0/checkpoint is no V1 checkpoint"),
    ],
)
def test_a_damaged_artifact_is_named_with_and_without_a_manifest(name, message, run, artifacts, tasks):
    truncate(artifacts / name)
    with pytest.raises(errors.ArtifactError, match=message):
        run(artifacts=artifacts, rounds=1)
    shutil.copy(tasks / "plain" / "digits" / "manifest.json", artifacts)
    with pytest.raises(errors.ArtifactError, match=f"artifacts/digits/{name} is not the file that manifest.json lists"):
        run(artifacts=artifacts, rounds=1)


def write_other_checkpoint(path):
    with open(path, "wb") as file:
        checkpoint.write_checkpoint(file, [checkpoint.CheckpointTensor("other", 1, (1,), lambda: np.zeros(1, np.float32))])


@pytest.mark.parametrize(
    "damage, kind, message",
    [
        (lambda path: path.write_bytes(b""), errors.ArtifactError, "run/digits/1/1/s/0/checkpoint "),
        (pathlib.Path.unlink, errors.StorageError, "Cannot read .*run/digits/1/1/s/0/checkpoint: No such file"),
        # TensorFlow says what is missing.
        (write_other_checkpoint, errors.ArtifactError, "server graph failed: .*not found in checkpoint"),
    ],
)
def test_a_damaged_checkpoint_of_a_finished_round_is_named(damage, kind, message, run):
    _, directory = run(rounds=1)
    damage(directory / "digits/1/1/s/0/checkpoint")
    with pytest.raises(kind, match=message):
        run(rounds=2)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"task_config": "private.pbtxt"}, r"different are task_config\.\n"),
        ({"task_config": "plain.pbtxt", "saved_model": "model"}, r"different are saved_model/fingerprint.pb\.\n"),
        ({"task_config": "plain.pbtxt", "skip_bad_clients": True}, "--engine tff can skip no client"),
    ],
)
def test_tff_takes_only_what_the_artifacts_were_built_from(options, message, run, tasks, tmp_path):
    shutil.copytree(build_tasks.MODEL, tmp_path / "model")
    (tmp_path / "model" / "fingerprint.pb").write_bytes(b"")
    options["task_config"] = str(tasks / options["task_config"])
    options["saved_model"] = tmp_path / "model" if "saved_model" in options else build_tasks.MODEL
    with pytest.raises(errors.UsageError, match=message):
        run(engine="tff", **options)


@pytest.mark.full
def test_tff_names_a_bad_client_and_the_way_on(run, tasks, eleven_clients):
    BAD_CLIENTS["corrupt"][0](eleven_clients / "bad.tfrecord")
    inputs = {"saved_model": build_tasks.MODEL, "task_config": str(tasks / "plain.pbtxt")}
    with pytest.raises(errors.StorageError, match="Client 'bad': .*bad.tfrecord") as raised:
        run("unconditional", data=eleven_clients, rounds=1, clients_per_round=11, engine="tff", **inputs)
    assert raised.value.next_step == "Mend the data: --engine tff can skip no client."


@pytest.mark.full
def test_memory_stays_where_it_was_after_twenty_rounds(run):
    sizes = {}

    def measure(report):
        if report.task == "training" and report.number in (20, 200):
            pids = [child.pid for child in multiprocessing.active_children()]
            sizes[report.number] = {pid: resident_kilobytes(pid) for pid in (*pids, multiprocessing.current_process().pid)}

    run("long", rounds=200, on_round=measure)
    assert sizes[20].keys() == sizes[200].keys()
    assert len(sizes[20]) == 4
    for pid, size in sizes[20].items():
        assert sizes[200][pid] <= 1.02 * size


@pytest.mark.full
def test_memory_of_ray_workers_stays_where_it_was_after_twenty_rounds(run):
    sizes = {}

    def measure(report):
        if report.task == "training" and report.number in (20, 200):
            actors = [pid for pid in descendants(os.getpid()) if b"_RayWorker" in command_line(pid)]
            # What executes plans is below them.
            pids = {pid for actor in actors for pid in (actor, *descendants(actor))}
            sizes[report.number] = {pid: resident_kilobytes(pid) for pid in pids}

    run("long", rounds=200, engine="ray", on_round=measure)
    assert sizes[20].keys() == sizes[200].keys()
    assert len(sizes[20]) >= 4
    for pid, size in sizes[20].items():
        assert sizes[200][pid] <= 1.02 * size


def test_examples_that_phones_do_not_take_are_counted_and_clients_are_timed(run, clients, tmp_path):
    shutil.copytree(clients / "train", tmp_path / "data")
    for path in sorted((tmp_path / "data").iterdir()):
        first, *others = tfrecord.read_records(path)
        first = examples.encode({**examples.decode(first), "notes": np.array([b"x" * 60_000], dtype=object)})
        tfrecord.write_records(path, [first, *others])
    summary, _ = run(rounds=1, data=tmp_path / "data")
    assert summary.oversized_examples == 10
    assert 0 < summary.mean_client_seconds <= summary.max_client_seconds < 60
