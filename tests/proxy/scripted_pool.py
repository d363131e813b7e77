"""Workers whose every score is known: they keep finished rounds in files, as real ones do, and note each round that they run.

As a program it runs a selection and a search in a directory: `python scripted_pool.py DIRECTORY LOG`.
"""

import contextlib
import hashlib
import pathlib
import sys

from odp_taskbuilder import errors
from odp_taskbuilder.proxy.jobs import CandidateEntry, LatencyResult, MeasureLatency, RunTrial, TrialResult, WriteCandidates
from odp_taskbuilder.proxy.search import SearchOptions, search
from odp_taskbuilder.proxy.selection import SelectionOptions, select
from odp_taskbuilder.proxy.sources import FunctionSpace
from odp_taskbuilder.proxy.space import grid
from odp_taskbuilder.proxy.workshop import ProxyOptions, opened

CONFIG = (pathlib.Path(__file__).resolve().parents[2] / "configs" / "digits" / "try_out.pbtxt").read_text()
CLIENTS = 10


def chance(*what):
    """A number in [0, 1) that depends on nothing but the arguments."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:6], "big") / 2**48


def quality(name):
    """What a candidate's score comes to in the end."""
    return 0.1 + 0.8 * int(name[1:]) / 30


class ScriptedPool:
    """Candidates c0, c1, ...; the share of rounds that a candidate has run, times its quality, is its score.

    Attributes:
      broken: names of candidates that fail.
      log: every round that was run, `group/name round`.
      noise: how far scores of a group are off; 1 leaves nothing of the quality.
      scale: what scores of a group are multiplied by.
    """

    def __init__(self, broken=(), log=None, noise=None, size=100, prefix="c", spread=1.0, digest="1", latency_noise=0.0, scale=None):
        self.broken = set(broken)
        self.log = [] if log is None else log
        self.noise = noise or {}
        self.scale = scale or {}
        self.size = size
        self.prefix = prefix
        self.spread = spread
        self.digest = digest
        self.latency_noise = latency_noise

    def __call__(self, parallel, scratch):
        return self

    def close(self):
        pass

    def run(self, jobs, on_result=lambda result: None):
        results = []
        for job in jobs:
            results.append(self._do(job))
            on_result(results[-1])
        return results

    def _do(self, job):
        if isinstance(job, WriteCandidates):
            return [self._write(job, f"{self.prefix}{number}") for number in range(min(job.number, self.size)) if self._wanted(job, number)]
        if isinstance(job, RunTrial):
            return self._train(job.trial, job.rounds)
        assert isinstance(job, MeasureLatency)
        group = job.trial.directory.parent.name
        milliseconds = 1 + quality(job.trial.name) + (self.latency_noise * chance(group, job.trial.name) if group != "full" else 0)
        return LatencyResult(job.trial.name, milliseconds)

    def _wanted(self, job, number):
        return job.names is None or f"{self.prefix}{number}" in job.names

    def _write(self, job, name):
        directory = job.directory / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "task_config.pbtxt").write_text(CONFIG)
        return CandidateEntry(name, self.digest)

    def _train(self, trial, rounds):
        if trial.name in self.broken:
            return TrialResult(trial.name, "it is broken")
        group, file = trial.directory.parent.name, trial.directory / "rounds"
        trial.directory.mkdir(parents=True, exist_ok=True)
        done = len(file.read_text().splitlines()) if file.exists() else 0
        with open(file, "a") as finished:
            for number in range(done + 1, rounds + 1):
                self.log.append(f"{group}/{trial.name} {number}")
                finished.write(f"{number}\n")
                finished.flush()
        off = self.noise.get(group, 0.0)
        curve = []
        for number in sorted({*range(trial.evaluation_every, rounds + 1, trial.evaluation_every), rounds}):
            score = self.spread * self.scale.get(group, 1.0) * quality(trial.name) * number / (number + 5)
            curve.append((number, (1 - off) * score + off * chance(group, trial.name, number)))
        clients = trial.clients_per_round or CLIENTS
        updates = round(rounds * clients * trial.population_share)
        return TrialResult(trial.name, None, tuple(curve), 36.0 * updates, updates, 1000 * updates)


class FileLog:
    """The same log, in a file that outlives the process."""

    def __init__(self, path):
        self._file = open(path, "a", buffering=1)

    def append(self, line):
        self._file.write(f"{line}\n")


def options(directory, **more):
    return ProxyOptions(**{"directory": directory, "source": FunctionSpace("space:candidates"), "data": "clients", "latency": "none", **more})


@contextlib.contextmanager
def workshop(directory, pool, told=None, **more):
    with opened(options(directory, **more), (lambda line: None) if told is None else told.append, pool) as opened_workshop:
        yield opened_workshop


PROXIES = {"population_share": ["0.1", "0.5"]}


def main(directory, log):
    pool = ScriptedPool(log=FileLog(log), noise={"population_share=0.1": 0.2, "population_share=0.5": 0.1})
    with workshop(directory, pool) as opened_workshop:
        select(opened_workshop, SelectionOptions())
        search(opened_workshop, grid(PROXIES), SearchOptions(cost="client_updates"))


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]), sys.argv[2])
    except errors.OdpTaskError as error:
        sys.exit(f"{error.exit_code}: {error}")
