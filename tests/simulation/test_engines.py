"""Child processes do all jobs, survive the death of one of them, and never outlive their parent; all engines yield the same
bits."""

import dataclasses
import functools
import os
import pathlib
import signal
import subprocess
import sys
import time

import child_handlers
import pytest
from runs import ray_workers

from odp_taskbuilder import errors
from odp_taskbuilder.simulation import plan_rounds
from odp_taskbuilder.simulation.deployment import load_deployment
from odp_taskbuilder.simulation.engines import LocalEngine
from odp_taskbuilder.simulation.jobs import Cohort, WriteClientCheckpoint
from odp_taskbuilder.simulation.processes import ChildProcesses
from odp_taskbuilder.simulation.ray_engine import RayEngine


@pytest.fixture
def children(tmp_path):
    with ChildProcesses("test", child_handlers.Handler, 3, tmp_path) as children:
        yield children


def is_running(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until_gone(pids, seconds=10):
    end = time.monotonic() + seconds
    while any(map(is_running, pids)):
        assert time.monotonic() < end, [pid for pid in pids if is_running(pid)]
        time.sleep(0.01)


def test_results_come_in_the_order_of_the_jobs_from_all_children(children):
    jobs = list(range(100))
    results = children.run(jobs)
    assert [job for _, job in results] == jobs
    assert {position for position, _ in results} == {0, 1, 2}
    assert children.run([]) == []


def test_a_child_that_dies_is_replaced_and_its_job_done_again(children, tmp_path):
    before = children.process_ids
    job = ("die once", str(tmp_path / "died"))
    results = children.run([1, job, 2, 3])
    assert [result for _, result in results] == [1, job, 2, 3]
    assert (tmp_path / "died").exists()
    assert len(set(children.process_ids) - set(before)) == 1


def test_a_child_that_died_between_jobs_is_replaced(children):
    os.kill(children.process_ids[0], signal.SIGKILL)
    assert [job for _, job in children.run([1, 2, 3, 4, 5, 6])] == [1, 2, 3, 4, 5, 6]


def test_a_job_that_kills_every_child_is_given_up_with_its_last_words(children):
    with pytest.raises(errors.OdpTaskError, match=r"died 3 times \(signal SIGKILL\) on 'die'. Its last words: out of luck"):
        children.run([1, "die", 2])


def test_errors_come_back_as_they_are(children):
    with pytest.raises(errors.StorageError) as raised:
        children.run([1, "raise"])
    assert (raised.value.message, raised.value.next_step) == ("nothing there", "look elsewhere")


def test_of_several_jobs_that_fail_the_first_one_is_named(children, tmp_path):
    marker = str(tmp_path / "second failed")
    with pytest.raises(errors.StorageError, match="^first$"):
        children.run([1, ("fail late", marker, "first"), ("fail", marker, "second"), 2])


@pytest.mark.parametrize(
    "job, error, message",
    [("stumble", RuntimeError, "ZeroDivisionError: by zero"), ("full disk", errors.StorageError, "No space left on device")],
)
def test_other_exceptions_are_named(children, job, error, message):
    with pytest.raises(error, match=message):
        children.run([job])


def test_closing_ends_the_children_and_what_they_started(children):
    pids = [*children.process_ids, *children.run(["start a program"])]
    assert all(map(is_running, pids))
    children.close()
    wait_until_gone(pids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_children_end_with_their_parent_however_it_ends(number, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    parent = subprocess.Popen(
        [sys.executable, child_handlers.__file__, scratch], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    pids = list(map(int, parent.stdout.readline().split()))
    descendants = set(pids)
    for pid in pids[:2]:
        # The process that children are forked from.
        descendants.add(int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]))
    parent.send_signal(number)
    parent.wait()
    wait_until_gone(descendants)
    # Python turns SIGINT into an exception, and the parent has cleaned up itself; otherwise its children have.
    assert scratch.exists() == (number == signal.SIGINT)


@pytest.fixture
def cohorts(tasks, clients, tmp_path):
    """What an engine for the digits task takes, and a function that makes a cohort of six clients whose partial sums go to a
    directory of their own."""
    deployment = load_deployment(tasks / "plain" / "digits", 1000, 24.0)
    tasks_by_id = {1: deployment.training}
    checkpoint = tmp_path / "client_checkpoint"
    with ChildProcesses("server", functools.partial(plan_rounds._make_server, tasks_by_id, False), 1, tmp_path) as server:
        server.run([WriteClientCheckpoint(1, str(deployment.initial_checkpoint), str(checkpoint))])

    def make(name):
        directory = tmp_path / name
        directory.mkdir()
        client_ids = tuple(f"client_{number:02}" for number in range(6))
        return Cohort(task_id=1, checkpoint=str(checkpoint), client_ids=client_ids, directory=str(directory))

    return make, tasks_by_id, {1: str(clients / "train")}


def outcome(result):
    """What a cohort yields but for the time that it took, with the content of its partial sums."""
    assert result.partials
    partials = [pathlib.Path(partial).read_bytes() for partial in result.partials]
    return partials, dataclasses.replace(result, partials=(), client_seconds=())


def test_ray_yields_the_same_bits_and_replaces_a_worker_that_dies(cohorts, short_scratch, tmp_path):
    pytest.importorskip("ray")
    make, tasks_by_id, data = cohorts
    local = LocalEngine(tasks_by_id, data, 2, tmp_path)
    expected = outcome(local.run(make("local")))
    local.close()
    engine = RayEngine(tasks_by_id, data, 1, short_scratch)
    try:
        assert outcome(engine.run(make("first"))) == expected
        (worker,) = ray_workers(engine.driver_process_id)
        os.kill(worker, signal.SIGKILL)
        assert outcome(engine.run(make("second"))) == expected
        group = engine.driver_process_id
        assert ray_workers(group) != [worker]
        # Everything that Ray and its workers wrote is in the scratch directory.
        assert list(short_scratch.glob("session_*")) and list(short_scratch.glob("odp-task-ray-*"))
    finally:
        engine.close()
    wait_until_gone([group, *ray_workers(group)])
