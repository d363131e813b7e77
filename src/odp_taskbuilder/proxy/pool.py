"""Who does the jobs of proxy tasks: processes of this machine, or tasks of a Ray cluster."""

from __future__ import annotations

import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Callable, Protocol

from odp_taskbuilder import errors
from odp_taskbuilder.proxy.jobs import LatencyResult, MeasureLatency, RunTrial, TrialResult
from odp_taskbuilder.simulation import processes
from odp_taskbuilder.simulation.processes import MAX_DEATHS, ChildProcesses

_WORKER_MODULE = "odp_taskbuilder.proxy.worker"

OnResult = Callable[[Any], None]


class Pool(Protocol):
    """Does jobs (jobs.py), many at a time."""

    def run(self, jobs: Sequence[Any], on_result: OnResult = lambda result: None) -> list[Any]:
        """Returns their results in the order of the jobs. A trial that kills its process is a failed trial.

        Raises:
          OdpTaskError: as worker.Worker.
        """

    def close(self) -> None:
        """Ends everything that was started."""


class LocalPool:
    """Worker processes on this machine. A trial goes to the one that had it before, where its plans are still loaded."""

    def __init__(self, parallel: int, scratch: pathlib.Path):
        self._homes: dict[pathlib.Path, int] = {}
        self._count = parallel
        self._processes = ChildProcesses("trials", make_worker, parallel, scratch, preload=(_WORKER_MODULE,), give_up=_give_up)

    def run(self, jobs: Sequence[Any], on_result: OnResult = lambda result: None) -> list[Any]:
        return self._processes.run(jobs, children=self._deal(jobs), on_result=on_result)

    def close(self) -> None:
        self._processes.close()
        processes.stop_forkserver()

    def _deal(self, jobs: Sequence[Any]) -> list[int]:
        """Positions of the workers: as many jobs for each, up to one, each at its home as far as that goes."""
        most = -(-len(jobs) // self._count)
        loads = [0] * self._count
        positions = [-1] * len(jobs)
        for index, job in enumerate(jobs):
            home = self._homes.get(_directory(job), -1)
            if home >= 0 and loads[home] < most:
                positions[index] = home
                loads[home] += 1
        for index, job in enumerate(jobs):
            if positions[index] < 0:
                positions[index] = min(range(self._count), key=loads.__getitem__)
                loads[positions[index]] += 1
                self._homes[_directory(job)] = positions[index]
        return positions


class RayPool:
    """Tasks of the Ray cluster that RAY_ADDRESS names, otherwise of one that lives as long as this object; one task per trial.

    The driver lives in a child process, whose group holds what it starts (simulation.ray_engine tells why).
    """

    def __init__(self, parallel: int, scratch: pathlib.Path):
        if importlib.util.find_spec("ray") is None:
            raise errors.UsageError("Trials on Ray need Ray.", next_step="pip install 'odp-task[ray]'")
        self._processes = ChildProcesses("ray", _RayDriverMaker(parallel, str(scratch)), 1, scratch)

    def run(self, jobs: Sequence[Any], on_result: OnResult = lambda result: None) -> list[Any]:
        (results,) = self._processes.run([tuple(jobs)])
        for result in results:
            on_result(result)
        return results

    def close(self) -> None:
        self._processes.close()
        processes.stop_forkserver()


def make_worker(position: int) -> Any:
    """Makes the handler of a worker process, in it."""
    from odp_taskbuilder.proxy import worker

    return worker.make_worker(position)


def _directory(job: Any) -> pathlib.Path:
    return job.trial.directory if isinstance(job, (RunTrial, MeasureLatency)) else pathlib.Path()


def _give_up(job: Any, reason: str) -> Any:
    """What a job yields that killed its processes."""
    words = reason.partition(" on ")[0] + ". Its last words: " + reason.partition("Its last words: ")[2]
    if isinstance(job, RunTrial):
        return TrialResult(job.trial.name, words)
    if isinstance(job, MeasureLatency):
        return LatencyResult(job.trial.name, failure=words)
    raise errors.ModelError(f"The search space's code ended its process. {words}", next_step="Mend the search space.")


class _RayDriverMaker:
    def __init__(self, parallel: int, scratch: str):
        self._parallel = parallel
        self._scratch = scratch

    def __call__(self, position: int) -> _RayDriver:
        return _RayDriver(self._parallel, self._scratch)


class _RayDriver:
    def __init__(self, parallel: int, scratch: str):
        from odp_taskbuilder.simulation.ray_engine import start_ray

        self._ray = start_ray(parallel, scratch)
        self._run = self._ray.remote(_run_on_ray).options(num_cpus=1, max_retries=MAX_DEATHS - 1)

    def __call__(self, jobs: tuple[Any, ...]) -> list[Any]:
        answers = [self._run.remote(job) for job in jobs]
        results = []
        for job, answer in zip(jobs, answers):
            try:
                results.append(self._ray.get(answer))
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, errors.OdpTaskError) else error from error
            except self._ray.exceptions.WorkerCrashedError as error:
                results.append(_give_up(job, f"A Ray worker died {MAX_DEATHS} times on it. Its last words: {error}"))
        return results


def _run_on_ray(job: Any) -> Any:
    """A Ray task: one job in a worker of its own."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    worker = make_worker(0)
    try:
        return worker(job)
    finally:
        worker.close()
