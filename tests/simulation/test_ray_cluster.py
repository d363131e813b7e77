"""Rounds on a Ray cluster that is there already: two nodes of it on this machine, one of which goes, or lacks the data."""

import contextlib
import os
import signal
import socket
import subprocess
import sys

import pytest
from runs import ray_workers, weights

from odp_taskbuilder import errors

pytest.importorskip("ray")
pytestmark = pytest.mark.full


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    """A node of a cluster: `ray start --block`, in a process group of its own."""

    def __init__(self, *arguments, before=()):
        # Ray's own messages would keep the pipe of a test that ends early.
        command = [*before, sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        self._process = subprocess.Popen(
            [*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    @property
    def group(self):
        return self._process.pid

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def cluster(short_scratch, monkeypatch):
    """Starts a head with two places, and another node with one that lacks directories. Returns the function that does it, which returns both.

    Another machine has files of its own: the second node sees an empty directory in the place of the head's.
    """
    if os.geteuid() != 0:
        pytest.skip("hiding directories from a process takes root")
    nodes = []

    def start(*hidden):
        port = free_port()
        nodes.append(Node("--head", f"--port={port}", "--num-cpus=2", f"--temp-dir={short_scratch}", "--include-dashboard=false"))
        address = f"127.0.0.1:{port}"
        wait_for_nodes(address, 1)
        mounts = "".join(f"mount -t tmpfs none '{directory}' && " for directory in (short_scratch, *hidden))
        before = ["unshare", "--mount", "sh", "-c", f'{mounts}exec "$@"', "sh"]
        nodes.append(Node(f"--address={address}", "--num-cpus=1", "--node-ip-address=127.0.0.2", before=before))
        wait_for_nodes(address, 2)
        monkeypatch.setenv("RAY_ADDRESS", address)
        return nodes

    yield start
    for node in reversed(nodes):
        node.kill()


def wait_for_nodes(address, count):
    """Returns once a cluster has so many nodes; Ray's own client waits for what is not there yet."""
    program = (
        "import sys, time, ray\n"
        "while True:\n"
        "    try:\n"
        "        ray.init(address=sys.argv[1], log_to_driver=False, logging_level='critical')\n"
        "        break\n"
        "    except ConnectionError:\n"
        "        time.sleep(0.5)\n"
        "while sum(node['Alive'] for node in ray.nodes()) < int(sys.argv[2]):\n"
        "    time.sleep(0.1)\n"
    )
    subprocess.run([sys.executable, "-c", program, address, str(count)], check=True, timeout=180, capture_output=True)


@pytest.fixture
def simulate(tasks, clients, tmp_path):
    """Starts `odp-task simulate` with three rounds of ten clients. Returns (process, run directory)."""

    def simulate(engine):
        directory = tmp_path / engine
        command = [sys.executable, "-c", "from odp_taskbuilder.cli.main import main; main()", "simulate", tasks / "plain" / "digits"]
        command += ["--data", clients / "train", "--evaluation_data", clients / "test", "--rounds", 3, "--clients_per_round", 10]
        command += ["--workers", 2, "--engine", engine, "--run_dir", directory]
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return process, directory

    return simulate


def test_a_node_that_dies_in_a_run_costs_nothing_but_time(cluster, simulate):
    process, local = simulate("local")
    process.communicate()
    nodes = cluster()
    process, directory = simulate("ray")
    for line in process.stderr:
        if line.startswith("round 1/3"):
            break
    # One on each machine.
    assert [len(ray_workers(node.group)) for node in nodes] == [1, 1]
    nodes[1].kill()
    _, told = process.communicate()
    assert process.returncode == 0, told
    for number in (1, 2, 3):
        assert (weights(directory, number) == weights(local, number)).all()


def test_data_that_a_node_lacks_is_named_with_the_node(cluster, simulate, clients):
    cluster(clients)
    process, _ = simulate("ray")
    _, told = process.communicate()
    assert process.returncode == errors.StorageError.exit_code, told
    assert f"Cannot read client data {clients}/" in told and socket.gethostname() in told
    assert "Traceback" not in told
