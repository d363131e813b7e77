"""Fixtures of the tests that execute plans."""

import contextlib
import functools
import os
import pathlib
import signal

import pytest


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Task -> BuiltTask; each task is built once."""
    from plan_execution import BuiltTask

    return functools.cache(lambda task: BuiltTask(task, tmp_path_factory.mktemp("task")))


@pytest.fixture(scope="session", autouse=True)
def no_worker_is_left():
    """Ends the `worker_binary` that TensorFlow Federated runs computations in: it would outlive the tests and hold their stdout."""
    yield
    for children in pathlib.Path("/proc/self/task").glob("*/children"):
        # Whatever has ended in the meantime needs no end.
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                if b"worker_binary" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
