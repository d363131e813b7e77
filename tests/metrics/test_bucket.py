"""`odp-task metrics` reads the server's model bucket."""

import contextlib
import gzip
import json
import logging
import pathlib
import subprocess
import sys
import urllib.request

import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.metrics.reading import TaskFilter, read_runs
from odp_taskbuilder.metrics.run import format_metrics
from odp_taskbuilder.transport.deadline import Network

ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")
ROUNDS = {
    number: {"server/client_work/train/loss": 2.0 / number, "server/finalizer/update_non_finite": 0.0} for number in (1, 2, 4)
}


@pytest.fixture
def emulator(monkeypatch):
    """The package emulator on a free port, with the bucket `model`."""
    server = pytest.importorskip("gcp_storage_emulator.server")
    running = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket="model")
    running.start()
    logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
    address = f"http://127.0.0.1:{running._api._httpd.server_address[1]}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    with contextlib.ExitStack() as stack:
        stack.callback(running.stop)
        yield address


def upload(address, name, content):
    request = urllib.request.Request(
        f"{address}/upload/storage/v1/b/model/o?uploadType=media&name={name.replace('/', '%2F')}", data=content, method="POST"
    )
    request.add_header("Content-Type", "application/octet-stream")
    urllib.request.urlopen(request).close()


def upload_run(address, prefix=""):
    for number, values in ROUNDS.items():
        upload(address, f"{prefix}digits/1/{number}/s/0/metrics", format_metrics(values))
        upload(address, f"{prefix}digits/1/{number}/s/0/checkpoint", b"weights")
        upload(address, f"{prefix}digits/1/{number}/d/0/client_checkpoint", b"weights")


def test_the_models_bucket_is_read_and_plotted(emulator, tmp_path):
    upload_run(emulator)
    upload(emulator, "letters/3/1/s/0/metrics", format_metrics({"server/eval/loss": 1.0}))
    command = [ODP_TASK, "metrics", "gs://model", "--population_name", "digits", "--plot", tmp_path / "m.svg", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"] == [
        {"run": "digits task 1", "rounds": {str(number): values for number, values in ROUNDS.items()}}
    ]
    assert (tmp_path / "m.svg").read_text().count('<g id="axes_') == 1  # Training and evaluation of a metric share a panel.
    runs = read_runs(["gs://model"], TaskFilter())
    assert [run.name for run in runs] == ["digits task 1", "letters task 3"]


def test_objects_below_the_buckets_own_name_are_found_as_the_guides_script_looks_for_them(emulator):
    upload_run(emulator, prefix="model/")
    (run,) = read_runs(["gs://model"], TaskFilter(population="digits"))
    assert run.rounds == ROUNDS


def test_objects_that_the_server_compressed_are_unpacked(monkeypatch):
    gcs = pytest.importorskip("fakes.gcs")
    fake = gcs.FakeGcs(buckets=("model",))
    content = gzip.compress(format_metrics(ROUNDS[1]))
    fake.objects["model", "digits/1/1/s/0/metrics"] = gcs.StoredObject(content, 1, content_encoding="gzip")
    with fake.serve() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        (run,) = read_runs(["gs://model"], TaskFilter())
    assert run.rounds == {1: ROUNDS[1]}


def test_a_bucket_that_is_not_there_and_one_without_the_population(emulator):
    hasty = Network(deadline=10, retry_for=0.1)
    with pytest.raises(errors.StorageError, match="Cannot list gs://absent"):
        read_runs(["gs://absent"], TaskFilter(), hasty)
    with pytest.raises(errors.UsageError, match="gs://model holds no metrics of population 'digits'"):
        read_runs(["gs://model"], TaskFilter(population="digits"), hasty)
