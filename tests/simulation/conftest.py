"""Tasks and clients to simulate with, made once."""

import pathlib
import subprocess
import sys

import pytest

from odp_taskbuilder.data.partitioned_dataset import partition_dataset
from odp_taskbuilder.simulation import processes, simulate


@pytest.fixture(scope="session")
def tasks(tmp_path_factory) -> pathlib.Path:
    """Artifacts of the digits model in directories by name (see build_tasks.py), with their configs beside them."""
    directory = tmp_path_factory.mktemp("tasks")
    script = pathlib.Path(__file__).with_name("build_tasks.py")
    subprocess.run([sys.executable, script, directory], check=True, capture_output=True, timeout=300)
    return directory


@pytest.fixture(scope="session")
def clients(tmp_path_factory) -> pathlib.Path:
    """Directories `train` and `test` of fifty clients with digits."""
    pytest.importorskip("sklearn")
    directory = tmp_path_factory.mktemp("data") / "clients"
    partition_dataset("digits", directory, strategy="iid", num_clients=50, test_fraction=0.2)
    return directory


@pytest.fixture(autouse=True, scope="package")
def one_forkserver():
    """The process that children are forked from stays from one simulation to the next: loading TensorFlow takes it seconds."""
    keep = pytest.MonkeyPatch()
    keep.setattr(simulate.processes, "stop_forkserver", lambda: None)
    yield
    keep.undo()
    processes.stop_forkserver()
