"""Runs whose clients are compiled: the numbers of the interpreter, the same for any number of workers, wild and bad clients included."""

import json

import numpy as np
import pytest
from runs import files, weights, write_client

from odp_taskbuilder import errors
from odp_taskbuilder.simulation import engines, simulate

pytest.importorskip("jax")
PLAIN, PLAIN_DAF = "plain", "plain_daf"


def server_metrics(task):
    return {
        name: value
        for name, value in task.metrics.items()
        # What gzip makes of an update is seen in the interpreter only.
        if name.startswith(("server/", "communication/", "simulation/")) and "wire" not in name
    }


@pytest.mark.parametrize("form", [PLAIN, PLAIN_DAF])
def test_compiled_rounds_are_those_of_the_interpreter_and_resume(form, run):
    def interrupt(report):
        if (report.task, report.number) == ("training", 3):
            raise KeyboardInterrupt

    expected, local = run(form, "local", engine="local")
    summary, one = run(form, "one", engine="compiled", num_workers=1)
    with pytest.raises(KeyboardInterrupt):
        run(form, "resumed", engine="compiled", num_workers=2, on_round=interrupt)
    _, resumed = run(form, "resumed", engine="compiled", num_workers=2)
    moved = np.linalg.norm(weights(local, 5) - weights(local, 0))
    for number in range(1, 6):
        wanted = weights(local, number)
        assert np.linalg.norm(weights(one, number) - wanted) <= 1e-5 * moved
        assert np.linalg.norm(weights(resumed, number) - weights(one, number)) <= 1e-6 * moved
    assert files(one).keys() == files(resumed).keys() == files(local).keys()
    for found, wanted in ((summary.training, expected.training), (summary.evaluation, expected.evaluation)):
        assert server_metrics(found) == pytest.approx(server_metrics(wanted), rel=1e-5)
        assert (found.communication.broadcast, found.communication.aggregated) == (
            wanted.communication.broadcast,
            wanted.communication.aggregated,
        )
    share = summary.compiled
    # Five training rounds of ten clients, in the first two of which four are compared; five evaluation rounds of two.
    assert (share.compiled, share.interpreted, share.compared) == (60, 0, 24)
    assert 0 < share.worst.difference < 1e-5 and share.worst.tensor.startswith("update/")
    assert expected.compiled is None


@pytest.mark.parametrize("form", ["compressed", "compressed_daf"])
def test_clients_that_round_what_they_send_run_compiled(form, run):
    expected, local = run(form, "local", engine="local")
    summary, one = run(form, "one", engine="compiled", num_workers=1)
    _, two = run(form, "two", engine="compiled", num_workers=2)
    moved = np.linalg.norm(weights(local, 5) - weights(local, 0))
    # Before they are rounded, updates agree as those of other plans; then some values are one code apart. So is the model that the server
    # rounds in its turn, from the second round on.
    share = summary.compiled
    assert (share.compiled, share.interpreted, share.compared, share.kinks) == (60, 0, 24, 0)
    assert 0 < share.worst.difference < 1e-5 and share.worst.tensor.startswith("update/")
    for number, allowed in ((1, 0.01), (5, 0.05)):
        assert 0 < np.linalg.norm(weights(one, number) - weights(local, number)) <= allowed * moved
        assert np.linalg.norm(weights(two, number) - weights(one, number)) <= 1e-6 * moved
    # The bytes of codes depend on their values, too.
    assert server_metrics(summary.training) == pytest.approx(server_metrics(expected.training), rel=0.02)


def test_wild_clients_run_in_the_interpreter_and_bad_ones_are_skipped(run, eleven_clients):
    # Milliseconds where others have pixels; TFLite clamps what overflows, XLA does not.
    for name, value in (("wild", 1.7e15), ("wilder", 1e30)):
        write_client(eleven_clients / f"{name}.tfrecord", {"x": np.full(64, value, np.float32), "y": np.array([3])})
    (eleven_clients / "empty.tfrecord").write_bytes(b"")
    next(eleven_clients.glob("client_*")).unlink()
    write_client(eleven_clients / "short.tfrecord", {"x": np.zeros(63, np.float32), "y": np.array([1])})
    options = {"data": eleven_clients, "rounds": 1, "clients_per_round": 13, "skip_bad_clients": True}
    reports = {"local": [], "compiled": []}
    results = {}
    for engine, found in reports.items():
        results[engine] = run("unconditional", engine, engine=engine, on_round=found.append, **options)
    local, compiled = weights(results["local"][1], 1), weights(results["compiled"][1], 1)
    np.testing.assert_allclose(compiled, local, rtol=1e-5, atol=1e-6 * np.abs(local).max())
    assert set(reports["compiled"][0].bad_clients) == set(reports["local"][0].bad_clients)
    share = results["compiled"][0].compiled
    assert {client.client_id for client in reports["local"][0].bad_clients} == {"empty", "short"}
    # Two more clients are those of the evaluation round.
    assert (share.interpreted, share.compiled) == (2, 9 + 2)
    with pytest.raises(errors.OdpTaskError) as raised:
        run("unconditional", "raises", engine="compiled", **{**options, "skip_bad_clients": False})
    assert "--skip_bad_clients" in raised.value.next_step


def test_a_convolutional_model_trains_compiled_and_a_label_that_is_no_class_goes_to_the_interpreter(run, eleven_clients):
    write_client(eleven_clients / "bad.tfrecord", {"x": np.zeros(64, np.float32), "y": np.array([10])})
    options = {"data": eleven_clients, "rounds": 2, "clients_per_round": 11, "skip_bad_clients": True}
    reports = {"local": [], "compiled": []}
    results = {}
    for engine, found in reports.items():
        results[engine] = run("convolutional", engine, engine=engine, on_round=found.append, **options)
    moved = weights(results["local"][1], 2) - weights(results["local"][1], 0)
    difference = weights(results["compiled"][1], 2) - weights(results["local"][1], 2)
    assert 0 < np.linalg.norm(difference) <= 1e-5 * np.linalg.norm(moved)
    for report in (*reports["local"], *reports["compiled"]):
        bad = ["bad"] if report.task == "training" else []
        assert [client.client_id for client in report.bad_clients] == bad
    share = results["compiled"][0].compiled
    # Two training rounds of ten good clients, two evaluation rounds of two.
    assert (share.compiled, share.interpreted) == (24, 0)


def test_auto_says_which_engine_it_takes_and_a_resumed_run_keeps_it_or_says_so(run, monkeypatch):
    def ran(rounds, engine="auto"):
        notices = []
        summary, directory = run("plain", engine=engine, rounds=rounds, on_notice=notices.append)
        ways = json.loads((directory / "simulation.json").read_bytes())["clients_ran"]
        (line,) = [notice for notice in notices if notice.startswith("clients run")]
        return line, ways, summary.compiled

    # The engine of a command that names none.
    assert simulate.SimulationOptions(data="x", rounds=None).engine == "auto"
    line, ways, share = ran(1)
    assert line == "clients run in the interpreter: 12 are done before their plan is compiled"
    assert ways == {"1": "interpreter", "2": "interpreter"} and share is None
    monkeypatch.setattr(engines, "_MIN_COMPILED_CLIENTS", 0)
    assert ran(2)[0] == "clients run in the interpreter: so did those of the rounds that are there"
    line, ways, share = ran(3, "compiled")
    assert line == "clients run compiled from now on; those of the rounds that are there ran in the interpreter"
    assert ways == {"1": "compiled", "2": "compiled"} and share.compiled == 12
    line, ways, share = ran(4)
    assert line == "clients run compiled, as those of the rounds that are there"
    assert ways == {"1": "compiled", "2": "compiled"} and share.compiled == 12
