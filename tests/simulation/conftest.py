"""Tasks and clients to simulate with, made once."""

import pathlib
import shutil
import subprocess
import sys

import pytest
from tff_runtime import require_tff_runtime

from odp_taskbuilder.base.private_directory import private_directory
from odp_taskbuilder.data.partitioned_dataset import partition_dataset
from odp_taskbuilder.simulation import processes, simulate
from odp_taskbuilder.simulation.round_options import RoundOptions


@pytest.fixture(scope="session")
def tasks(tmp_path_factory) -> pathlib.Path:
    """Artifacts of the digits model in directories by name (see build_tasks.py), with their configs beside them."""
    directory = tmp_path_factory.mktemp("tasks")
    script = pathlib.Path(__file__).with_name("build_tasks.py")
    subprocess.run([sys.executable, script, directory], check=True, capture_output=True, timeout=900)
    return directory


@pytest.fixture(scope="session")
def keras_tasks(tmp_path_factory) -> pathlib.Path:
    """The same of models that were saved with save_keras_model (see build_keras_tasks.py)."""
    directory = tmp_path_factory.mktemp("keras_tasks")
    script = pathlib.Path(__file__).with_name("build_keras_tasks.py")
    subprocess.run([sys.executable, script, directory], check=True, capture_output=True, timeout=900)
    return directory


@pytest.fixture(scope="session")
def clients(tmp_path_factory) -> pathlib.Path:
    """Directories `train` and `test` of fifty clients with digits."""
    pytest.importorskip("sklearn")
    directory = tmp_path_factory.mktemp("data") / "clients"
    partition_dataset("digits", directory, strategy="iid", num_clients=50, test_fraction=0.2)
    return directory


@pytest.fixture
def run(request, clients, tmp_path):
    """Simulates a task; by default five rounds of ten clients. Returns (summary, run directory)."""

    def run(
        task="plain",
        name="run",
        rounds=5,
        clients_per_round=10,
        on_round=lambda report: None,
        data=clients / "train",
        artifacts=None,
        skip_bad_clients=False,
        seed=0,
        on_notice=lambda notice: None,
        **options,
    ):
        if options.get("engine") == "tff":
            require_tff_runtime()
        directory = tmp_path / name
        round_options = RoundOptions(rounds=rounds, clients_per_round=clients_per_round, skip_bad_clients=skip_bad_clients, seed=seed)
        options = simulate.SimulationOptions(
            data=str(data),
            rounds=round_options,
            run_directory=directory,
            **{"num_workers": 2, "evaluation_data": str(clients / "test"), **options},
        )
        built = artifacts or request.getfixturevalue("tasks") / task / "digits"
        return simulate.simulate(built, options, on_round, on_notice), directory

    return run


@pytest.fixture
def eleven_clients(clients, tmp_path):
    """Ten good clients, and room for `bad`."""
    directory = tmp_path / "eleven"
    directory.mkdir()
    for path in sorted((clients / "train").iterdir())[:10]:
        shutil.copy(path, directory)
    return directory


@pytest.fixture(autouse=True, scope="package")
def one_forkserver():
    """The process that children are forked from stays from one simulation to the next: loading TensorFlow takes it seconds."""
    keep = pytest.MonkeyPatch()
    keep.setattr(simulate.processes, "stop_forkserver", lambda: None)
    yield
    keep.undo()
    processes.stop_forkserver()


@pytest.fixture
def short_scratch():
    """A path with room for the names of Ray's sockets behind it."""
    with private_directory(None, "odp-task-test-") as directory:
        yield directory
