"""The directory of proxy tasks and the processes that work in it: what variance, selection, search and ranking share.

DIR/proxy.json            what everything in it was started with
DIR/candidates/NAME/      saved_model and task_config.pbtxt of each candidate, and artifacts/ built from them
DIR/scaled/S/NAME/        the same with models made with scale S
DIR/trials/GROUP/NAME/    rounds of one candidate: GROUP is `full` or a proxy
DIR/variance, selection, search, ranking
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import pathlib
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.base.keyword_only import keyword_only
from odp_taskbuilder.base.private_directory import private_directory
from odp_taskbuilder.base.processors import available_processors
from odp_taskbuilder.config import load_config, resolve
from odp_taskbuilder.config.spec import ResolveOptions
from odp_taskbuilder.proxy import sources
from odp_taskbuilder.proxy.jobs import (
    CandidateEntry,
    LatencyResult,
    ListProxies,
    MeasureLatency,
    RunTrial,
    Trial,
    TrialResult,
    WriteCandidates,
)
from odp_taskbuilder.proxy.pool import LocalPool, Pool, RayPool
from odp_taskbuilder.proxy.space import Dimensions, Proxy, ProxyTaskConfig, checked_proxy

FULL = "full"
LATENCY_MODES = ("local", "none")
_SETTINGS = "proxy.json"
_EVALUATIONS = 20


@keyword_only
@dataclasses.dataclass(frozen=True)
class ProxyOptions:
    """What proxy tasks are run with. What a directory was started with need not be given again.

    Attributes:
      directory: where everything is kept.
      source: of the candidates; None: as the directory's.
      data, evaluation_data: data arguments of the training and the test clients.
      metric: name of an evaluation metric, with `-` before it where less is better; None: the first accuracy of the first candidate's
        metrics, else auc-roc, else -loss.
      clients_per_round: of the full training, at most; None takes as many as the report goal, or as there are.
      rounds: of the full training; None takes what each config says.
      evaluation_every: rounds from one evaluation to the next; None makes twenty of them.
      latency: `local`, `none`, or a command with {client_only_plan}, {checkpoint} and {examples}, whose last line is a number.
      seed: of sampling, noise, initial weights and the space's random numbers.
      engine: of simulation.simulate, without `ray` and `tff`.
      parallel_trials: trials at a time; None takes one per processor that scheduler and control group grant.
      on_ray: run trials as tasks of a Ray cluster, which sees the directory and the data under the same paths.
    """

    directory: pathlib.Path
    source: Optional[sources.Source] = None
    data: Optional[str] = None
    evaluation_data: Optional[str] = None
    metric: Optional[str] = None
    clients_per_round: Optional[int] = None
    rounds: Optional[int] = None
    evaluation_every: Optional[int] = None
    latency: Optional[str] = None
    seed: Optional[int] = None
    engine: str = "auto"
    parallel_trials: Optional[int] = None
    on_ray: bool = False


@dataclasses.dataclass(frozen=True)
class Entry:
    """A candidate that the directory holds.

    Attributes:
      directory: with its model and config.
      rounds: of its full training.
      failure: why it cannot be trained; None if that is not known.
    """

    name: str
    directory: pathlib.Path
    rounds: int
    failure: Optional[str] = None


class Workshop:
    """One directory, locked, with its settings and its workers."""

    def __init__(self, options: ProxyOptions, settings: Mapping[str, Any], source: sources.Source, pool: Pool, tell: Callable[[str], None]):
        self.root = options.directory
        self.settings = settings
        self.tell = tell
        self._options = options
        self.source = source
        self._pool = pool

    @property
    def metric(self) -> str:
        return self.settings["metric"]

    @property
    def measures_latency(self) -> bool:
        return self.settings["latency"] != "none"

    def candidates(self, number: int) -> list[Entry]:
        """The first candidates of the space, written out.

        Raises:
          UsageError: the space has fewer, or holds unusable names, or other candidates than before.
          ModelError: it raises.
        """
        directory = self.root / "candidates"
        (found,) = self._pool.run([WriteCandidates(self.source, directory, number, self.settings["seed"], self.settings["seed"])])
        if len(found) < number:
            raise errors.UsageError(
                f"The search space has {len(found)} candidates; {number} are asked for.",
                next_step="Lower --start (and with it --remove and --final), or make the space larger.",
            )
        self._check_same(found)
        entries = [self._entry(entry, directory / entry.name) for entry in found]
        if self.settings["metric"] is None:
            self.settings = {**self.settings, "metric": _default_metric(entries)}
            self.write("proxy.json", self.settings)
        return entries

    def copies(self, entry: Entry, group: str, weights_seeds: Sequence[int]) -> list[Entry]:
        """A candidate with other initial weights each time; where its model is a saved one, with the same."""
        result = []
        for number, seed in enumerate(weights_seeds):
            directory = self.root / group / f"copy_{number + 1}"
            job = WriteCandidates(self.source, directory, 1 << 30, self.settings["seed"], seed, names=(entry.name,))
            result.append(self._entry(self._written(job)[0], directory / entry.name))
        return result

    def scaled(self, entries: Sequence[Entry], scale: float) -> list[Entry]:
        """Candidates with smaller or larger models."""
        if scale == 1:
            return list(entries)
        directory = self.root / "scaled" / f"{scale:g}"
        names = tuple(entry.name for entry in entries)
        job = WriteCandidates(self.source, directory, 1 << 30, self.settings["seed"], self.settings["seed"], scale, names)
        written = {entry.name: entry for entry in self._written(job)}
        return [self._entry(written[name], directory / name) for name in names]

    def user_proxies(self, function: str) -> list[Proxy]:
        """The proxies that a user's function returns.

        Raises:
          UsageError: it returns something else, or two of one name.
          ModelError: it raises.
        """
        (pairs,) = self._pool.run([ListProxies(function, self.baseline())])
        return [checked_proxy(ProxyTaskConfig(name, arguments)) for name, arguments in pairs]

    def baseline(self) -> dict[str, Any]:
        """The full training as a proxy's arguments."""
        values = dataclasses.asdict(Dimensions())
        return {**values, **{name: self.settings[name] for name in ("clients_per_round", "data", "evaluation_data")}}

    def trial(self, entry: Entry, group: str, dimensions: Dimensions = Dimensions(), *, sampling_seed: int = 0, noise_seed: int = 0) -> Trial:
        """A training of a candidate in a group of its own: `full`, or a proxy's name."""
        settings = self.settings
        wanted = [number for number in (settings["clients_per_round"], dimensions.clients_per_round) if number is not None]
        # A proxy that repeated the full training's draws would agree with it for that reason alone.
        offset = settings["seed"] + (0 if group == FULL else zlib.crc32(group.encode()))
        return Trial(
            name=entry.name,
            candidate=entry.directory,
            artifacts=entry.directory / "artifacts",
            directory=self.root / "trials" / group / entry.name,
            metric=self.metric,
            data=dimensions.data or settings["data"],
            evaluation_data=dimensions.evaluation_data or settings["evaluation_data"] or settings["data"],
            population_share=dimensions.population_share,
            clients_per_round=min(wanted, default=None),
            examples_per_client=dimensions.examples_per_client,
            evaluation_clients=dimensions.evaluation_clients,
            evaluation_every=self.evaluation_every(entry),
            engine=self._options.engine,
            total_rounds=entry.rounds,
            sampling_seed=offset + sampling_seed,
            noise_seed=offset + noise_seed,
            model_failure=entry.failure,
        )

    def evaluation_every(self, entry: Entry) -> int:
        return self.settings["evaluation_every"] or max(1, entry.rounds // _EVALUATIONS)

    def run(self, trials: Mapping[str, Trial], rounds: Mapping[str, int], what: str) -> dict[str, TrialResult]:
        """Runs trials up to a number of rounds each.

        Args:
          trials, rounds: by candidate.
          what: they are, for progress.
        """
        done = 0

        def tell(result: TrialResult) -> None:
            nonlocal done
            done += 1
            shown = f"failed: {result.failure}" if result.failure else f"{self.metric} {result.score:.4g}"
            self.tell(f"{what}: {result.name}, round {rounds.get(result.name, 0)}: {shown} ({done}/{len(trials)})")

        results = self._pool.run([RunTrial(trial, rounds[name]) for name, trial in trials.items()], tell)
        return dict(zip(trials, results))

    def latencies(self, trials: Mapping[str, Trial]) -> dict[str, LatencyResult]:
        """Measures client plans, one after the other on a machine that does nothing else; empty where latency is not measured."""
        if not self.measures_latency:
            return {}
        mode = self.settings["latency"]
        command = None if mode == "local" else mode
        return {name: self._pool.run([MeasureLatency(trial, command)])[0] for name, trial in trials.items()}

    def write(self, path: str, content: Any) -> None:
        """Writes a text, or anything else as JSON, completely or not at all."""
        write_atomically(self.root / path, content if isinstance(content, str) else json.dumps(content, indent=2) + "\n")

    def read(self, path: str) -> Optional[Any]:
        """Reads JSON; None if there is no such file."""
        return read_json(self.root / path)

    def write_trial_metrics(self, trial: Trial, result: TrialResult, latency: float, total_rounds: int) -> None:
        """Writes TRIAL_TRAINING_METRICS.json beside the trial's rounds."""
        points = [
            {"training_step_pct": _percent(number, total_rounds), "training_step": number, "accuracy": score if math.isfinite(score) else -1.0}
            for number, score in result.curve
        ]
        document = {"training_time": result.training_seconds, "latency": latency, "training_accuracy_over_steps": points}
        write_atomically(trial.directory / "TRIAL_TRAINING_METRICS.json", json.dumps(document, indent=2) + "\n")

    def _written(self, job: WriteCandidates) -> list[CandidateEntry]:
        (found,) = self._pool.run([job])
        missing = sorted(set(job.names or ()) - {entry.name for entry in found})
        if missing:
            raise errors.UsageError(
                f"The search space no longer has {missing[0]!r}.", next_step="A space must yield the same candidates each time it is asked."
            )
        return found

    def _entry(self, entry: CandidateEntry, directory: pathlib.Path) -> Entry:
        failure, rounds = entry.failure, self._options.rounds or 1
        if failure is None:
            try:
                spec = resolve(load_config(directory / sources.CONFIG), ResolveOptions())
                rounds = min(self._options.rounds or spec.num_rounds, spec.num_rounds)
            except errors.OdpTaskError as error:
                failure = "its task config: " + " ".join(error.message.split())
        return Entry(entry.name, directory, rounds, failure)

    def _check_same(self, found: Sequence[CandidateEntry]) -> None:
        """Refuses another space in the same directory."""
        known = self.read("candidates.json") or {}
        for entry in found:
            if known.get(entry.name, entry.digest) != entry.digest:
                raise errors.UsageError(
                    f"{self.root} holds a candidate {entry.name!r} with another task config.", next_step="Name another --dir for another space."
                )
        names = [entry.name for entry in found]
        if known and list(known)[: len(names)] != names[: len(known)]:
            other = next(name for name, former in zip(names, known) if name != former)
            raise errors.UsageError(
                f"{self.root} holds the candidates of another space: there is {other!r} where it has {list(known)[names.index(other)]!r}.",
                next_step="Name another --dir for another space.",
            )
        if len(found) > len(known):
            self.write("candidates.json", {entry.name: entry.digest for entry in found})


@contextlib.contextmanager
def opened(
    options: ProxyOptions, tell: Callable[[str], None], start_pool: Optional[Callable[[int, pathlib.Path], Pool]] = None
) -> Iterator[Workshop]:
    """Locks the directory, checks what it holds, and starts workers, until the block ends.

    Args:
      tell: told of progress, in lines.
      start_pool: makes the workers, from their number and a directory for temporary files; by default as the options say.

    Raises:
      UsageError: something is not said, or is not what the directory was started with.
      StorageError: another command works in it, or it cannot be written.
    """
    root = options.directory
    with contextlib.ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise errors.StorageError(f"Cannot write {root}: {error.strerror}") from error
        stack.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.StorageError(
                f"Another command is running in {root}.", next_step="Wait for its end, or name another --dir."
            ) from None
        settings, source = _settings(options)
        scratch = stack.enter_context(private_directory(None, "odp-task-proxy-"))
        parallel = options.parallel_trials or available_processors()
        start_pool = start_pool or (RayPool if options.on_ray else LocalPool)
        pool = start_pool(parallel, scratch)
        stack.callback(pool.close)
        yield Workshop(options, settings, source, pool, tell)


def _settings(options: ProxyOptions) -> tuple[dict[str, Any], sources.Source]:
    """What the directory was started with, or what starts it."""
    former = read_json(options.directory / _SETTINGS)
    defaults = {"evaluation_data": None, "metric": None, "clients_per_round": None, "evaluation_every": None, "latency": "local", "seed": 0}
    given = {name: getattr(options, name) for name in ("data", *defaults)}
    if options.source is not None:
        given["space"] = {"kind": type(options.source).__name__, **json.loads(json.dumps(dataclasses.asdict(options.source)))}
    given = {name: value for name, value in given.items() if value is not None}
    if former is None:
        if any(options.directory.glob("*")):
            raise errors.UsageError(f"{options.directory} is not empty and holds no proxy tasks.", next_step="Name another --dir.")
        for name, option in (("space", "--space, --model_function or --saved_model"), ("data", "--data")):
            if name not in given:
                raise errors.UsageError(f"{options.directory} is new: what is to be run in it?", next_step=f"Add {option}.")
        former = {**defaults, **given}
        write_atomically(options.directory / _SETTINGS, json.dumps(former, indent=2) + "\n")
    for name, value in given.items():
        if former.get(name) != value:
            raise errors.UsageError(
                f"{options.directory} was started with {name} {_shown(former.get(name))}, not {_shown(value)}.",
                next_step="Leave it out, or name another --dir.",
            )
    return former, _source(former["space"])


def _source(document: Mapping[str, Any]) -> sources.Source:
    kinds: dict[str, Any] = {kind.__name__: kind for kind in (sources.FunctionSpace, sources.DirectorySpace, sources.ReadyMadeSpace)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in document.items() if name != "kind"}
    return kinds[document["kind"]](**values)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return value.get("function") or value.get("path") or json.dumps(value)
    return repr(value)


def _default_metric(entries: Sequence[Entry]) -> str:
    """Of the first candidate whose config can be read."""
    for entry in entries:
        if entry.failure is None:
            metrics = resolve(load_config(entry.directory / sources.CONFIG), ResolveOptions()).learning.metrics
            accuracies = [name for name in metrics if "accuracy" in name]
            return (accuracies or [name for name in metrics if name == "auc-roc"] or ["-loss"])[0]
    return "-loss"


def _percent(number: int, total: int) -> float:
    # The full training is "101 %" in files that Google's tools read.
    return 101.0 if number >= total else round(100 * number / total, 2)


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a file, completely or not at all. Raises StorageError if the file system refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(name, 0o644)
            os.replace(name, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
    except OSError as error:
        raise errors.StorageError(f"Cannot write {path}: {error.strerror}") from error


def read_json(path: pathlib.Path) -> Optional[Any]:
    """A JSON file's content; None if it is not there.

    Raises:
      StorageError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise errors.StorageError(f"{path} is no state of proxy tasks: {error}.", next_step="Restore it, or name another --dir.") from error
