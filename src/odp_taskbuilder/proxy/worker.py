"""What the worker processes of proxy tasks do: ask users' functions, build candidates, run their rounds, measure their latency.

This module loads TensorFlow and TensorFlow Federated; the process that sends the jobs need not.
"""

from __future__ import annotations

import collections
import hashlib
import inspect
import itertools
import json
import math
import os
import pathlib
import shlex
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set
from odp_taskbuilder.build import build
from odp_taskbuilder.config import parse_config
from odp_taskbuilder.data import tfrecord
from odp_taskbuilder.data.part import DataPart
from odp_taskbuilder.metrics.run import parse_metrics
from odp_taskbuilder.proto import plan_pb2, task_builder_pb2
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
from odp_taskbuilder.proxy.sources import CONFIG, MODEL, described, load_function, raised_by_user
from odp_taskbuilder.proxy.space import Candidate, check_name
from odp_taskbuilder.runtime import client_runtime, server_runtime
from odp_taskbuilder.simulation.communication import cumulative
from odp_taskbuilder.simulation.deployment import EVALUATION_TASK_ID, TRAINING_TASK_ID
from odp_taskbuilder.simulation.held import HeldSimulation
from odp_taskbuilder.simulation.round_options import RoundOptions
from odp_taskbuilder.simulation.round_reports import REPORTS_METRIC, RoundReport
from odp_taskbuilder.simulation.simulate import SimulationOptions

# Trials whose plans and programs stay loaded.
_MAX_HELD = 8
_WARM_UPS, _TIMED_RUNS = 3, 20
_COMMAND_SECONDS = 600
# More than there can be.
_ALL = 1 << 40
_TRIAL_CONFIG = "trial_config.pbtxt"

Job = Union[WriteCandidates, ListProxies, RunTrial, MeasureLatency]


class Worker:
    """Does jobs. What is wrong with a candidate is part of an answer; what is wrong with the machine is raised."""

    def __init__(self, position: int):
        # TFF runs computations in a thread that a fork has no copy of.
        tff.backends.native.set_sync_local_cpp_execution_context()
        self._scratch = pathlib.Path(tempfile.mkdtemp(prefix="trials-"))
        self._held: collections.OrderedDict[pathlib.Path, HeldSimulation] = collections.OrderedDict()
        self._opened = 0

    def __call__(self, job: Job) -> Any:
        """Does a job.

        Raises:
          StorageError: files cannot be read or written.
          UsageError, ModelError: a user's function is not what it should be, or raises.
        """
        if isinstance(job, WriteCandidates):
            return write_candidates(job)
        if isinstance(job, ListProxies):
            return list_proxies(job)
        return self._run(job) if isinstance(job, RunTrial) else self._measure(job)

    def close(self) -> None:
        """Ends what is held."""
        for held in self._held.values():
            held.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _run(self, job: RunTrial) -> TrialResult:
        trial = job.trial
        try:
            self._require_artifacts(trial)
            self._simulation(trial).run(job.rounds, trial.directory / "run", lambda report: _keep_record(trial, report))
            result = _read_result(trial, job.rounds)
        except errors.StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a candidate makes the builder or the runtimes raise is its failure.
            self._forget(trial)
            return TrialResult(trial.name, failure=_in_short(error))
        if not math.isfinite(result.score):
            return TrialResult(trial.name, f"its {trial.metric} is {result.score} after {job.rounds} rounds", result.curve)
        return result

    def _measure(self, job: MeasureLatency) -> LatencyResult:
        try:
            self._require_artifacts(job.trial)
            return LatencyResult(job.trial.name, self._latency(job))
        except errors.StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - as in _run.
            return LatencyResult(job.trial.name, failure=_in_short(error))

    def _simulation(self, trial: Trial) -> HeldSimulation:
        if trial.directory not in self._held:
            while len(self._held) >= _MAX_HELD:
                self._held.popitem(last=False)[1].close()
            self._opened += 1
            scratch = self._scratch / str(self._opened)
            scratch.mkdir()
            self._held[trial.directory] = HeldSimulation(trial.artifacts, _simulation_options(trial), scratch)
        self._held.move_to_end(trial.directory)
        return self._held[trial.directory]

    def _forget(self, trial: Trial) -> None:
        held = self._held.pop(trial.directory, None)
        if held is not None:
            held.close()

    def _require_artifacts(self, trial: Trial) -> None:
        if trial.model_failure is not None:
            raise errors.ModelError(trial.model_failure)
        if any(trial.artifacts.glob(f"*/{artifact_set.MANIFEST}")):
            return
        config = trial.candidate / _TRIAL_CONFIG
        config.write_text(str(_evaluated(parse_config((trial.candidate / CONFIG).read_bytes(), str(trial.candidate / CONFIG)).config)))
        build(trial.candidate / MODEL, config, trial.artifacts)

    def _latency(self, job: MeasureLatency) -> float:
        """Milliseconds that the client plan takes on the first client."""
        simulation = self._simulation(job.trial)
        training, data = simulation.deployment.training, simulation.data
        directory = pathlib.Path(tempfile.mkdtemp(dir=self._scratch))
        files = {name: directory / name for name in ("client_only_plan", "checkpoint", "examples", "update")}
        files["client_only_plan"].write_bytes(training.client_only_plan)
        server = server_runtime.open_server(plan_pb2.Plan.FromString(training.plan))
        server.write_client_checkpoint(simulation.deployment.initial_checkpoint, files["checkpoint"])
        tfrecord.write_records(files["examples"], list(data.examples(data.client_ids[0])))
        try:
            if job.command is not None:
                return _commanded(job.command, files)
            device = client_runtime.ClientRuntime(plan_pb2.ClientOnlyPlan.FromString(training.client_only_plan))
            seconds = []
            for _ in range(_WARM_UPS + _TIMED_RUNS):
                start = time.perf_counter()
                device.run(files["examples"], files["checkpoint"], files["update"])
                seconds.append(time.perf_counter() - start)
            return 1000 * statistics.median(seconds[_WARM_UPS:])
        finally:
            shutil.rmtree(directory)


def make_worker(position: int) -> Worker:
    """The handler of a child process (simulation.processes)."""
    return Worker(position)


def write_candidates(job: WriteCandidates) -> list[CandidateEntry]:
    """As the job says. A candidate whose model cannot be made is part of the result.

    Raises:
      UsageError: what the source yields is no candidate, or has an unusable or double name.
      ModelError: the source itself raises.
    """
    what = getattr(job.source, "function", None) or getattr(job.source, "path", None) or "the search space"
    entries: list[CandidateEntry] = []
    seen: dict[str, str] = {}
    for candidate in itertools.islice(_guarded(job, what), job.number):
        if not isinstance(candidate, Candidate):
            raise errors.UsageError(
                f"{what} yielded {type(candidate).__name__}, not odp_taskbuilder.proxy.Candidate(name, model, task_config)."
            )
        name = check_name(candidate.name, "candidate")
        # Some file systems do not tell cases apart.
        if name.casefold() in seen:
            raise errors.UsageError(
                f"{what} has two candidates of the name {name!r}" + (f" and {seen[name.casefold()]!r}" if seen[name.casefold()] != name else "") + ".",
                next_step="Give each candidate a name of its own; capitals and small letters are not told apart.",
            )
        seen[name.casefold()] = name
        if job.names is None or name in job.names:
            entries.append(_written(candidate, job))
    return entries


def _guarded(job: WriteCandidates, what: str) -> Iterator[Any]:
    """Yields what the source yields; what it raises becomes a ModelError with file and line."""
    candidates = None
    while True:
        try:
            candidates = candidates or job.source.candidates(np.random.default_rng(job.seed))
            candidate = next(candidates)
        except StopIteration:
            return
        except errors.OdpTaskError:
            raise
        except BaseException as error:  # noqa: BLE001 - a user's sys.exit() must not end this process without a word.
            raise raised_by_user(error, what) from error
        yield candidate


def _written(candidate: Candidate, job: WriteCandidates) -> CandidateEntry:
    directory = job.directory / candidate.name
    try:
        text = _config_text(candidate.task_config)
    except (OSError, errors.OdpTaskError) as error:
        return CandidateEntry(candidate.name, "", f"its task config cannot be read: {_in_short(error)}")
    digest = hashlib.sha256(text).hexdigest()
    if directory.exists():
        return CandidateEntry(candidate.name, digest)
    job.directory.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(dir=job.directory, prefix=".writing-"))
    try:
        (temporary / CONFIG).write_bytes(text)
        _write_model(candidate, job, temporary / MODEL)
        temporary.chmod(0o755)
        temporary.rename(directory)
    except OSError as error:
        raise errors.StorageError(f"Cannot write {directory}: {error.strerror}") from error
    except BaseException as error:  # noqa: BLE001 - as in _guarded.
        return CandidateEntry(candidate.name, digest, f"making its model raised {described(error)}")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return CandidateEntry(candidate.name, digest)


def _config_text(task_config: Union[str, pathlib.Path]) -> bytes:
    if isinstance(task_config, str) and ("\n" in task_config or ":" in task_config or "{" in task_config):
        return task_config.encode()
    return pathlib.Path(task_config).read_bytes()


def _write_model(candidate: Candidate, job: WriteCandidates, path: pathlib.Path) -> None:
    model = candidate.model
    if callable(model):
        # Every candidate starts from weights that depend on nothing but the seed and its own function.
        tf.keras.utils.set_random_seed(job.weights_seed)
        model = model(job.scale)
    elif job.scale != 1:
        raise errors.UsageError(f"{candidate.name} is a saved model, which has one scale only.")
    if isinstance(model, (str, pathlib.Path)):
        if not pathlib.Path(model).is_dir():
            raise errors.ModelError(f"There is no directory {model}.")
        shutil.copytree(model, path)
        return
    tff.learning.models.save_functional_model(model_of(model), str(path))


def model_of(value: Any) -> tff.learning.models.FunctionalModel:
    """A FunctionalModel from itself or from (Keras model, loss, input_spec).

    Raises:
      ModelError: it is something else.
    """
    if isinstance(value, tff.learning.models.FunctionalModel):
        return value
    if isinstance(value, tuple) and len(value) == 3 and isinstance(value[0], tf.keras.Model):
        keras_model, loss, input_spec = value
        return tff.learning.models.functional_model_from_keras(keras_model, loss, input_spec=input_spec)
    raise errors.ModelError(
        f"expected a tff.learning FunctionalModel or (keras_model, loss, input_spec), found {type(value).__name__}"
    )


def list_proxies(job: ListProxies) -> list[tuple[Any, Any]]:
    """As the job says.

    Raises:
      UsageError: the function is missing, or returns something else than a list.
      ModelError: it raises.
    """
    function = load_function(job.function)
    try:
        proxies = list(function(dict(job.baseline)) if inspect.signature(function).parameters else function())
    except BaseException as error:  # noqa: BLE001 - as in _guarded.
        raise raised_by_user(error, job.function) from error
    missing = [proxy for proxy in proxies if not (hasattr(proxy, "name") and hasattr(proxy, "docker_args_map"))]
    if missing:
        raise errors.UsageError(f"{job.function} returned {missing[0]!r:.80} in its list; expected ProxyTaskConfig(name, docker_args_map).")
    # Their class is the user's: what travels is what they hold.
    return [(proxy.name, json.loads(json.dumps(dict(proxy.docker_args_map), default=str))) for proxy in proxies]


def _evaluated(config: task_builder_pb2.TaskConfig) -> task_builder_pb2.TaskConfig:
    """The config with an evaluation task that reads any checkpoint: its training task is the same."""
    result = task_builder_pb2.TaskConfig()
    result.CopyFrom(config)
    result.mode = task_builder_pb2.TaskMode.TRAINING_AND_EVAL
    result.federated_learning.learning_process.ClearField("artifact_building")
    result.federated_learning.ClearField("evaluation")
    evaluation = result.federated_learning.evaluation
    evaluation.source_training_task_id = TRAINING_TASK_ID
    evaluation.checkpoint_selector = "every_1_round"
    evaluation.evaluation_traffic = 0.1
    evaluation.report_goal = 1
    return result


def _simulation_options(trial: Trial) -> SimulationOptions:
    return SimulationOptions(
        data=DataPart(trial.data, trial.population_share, trial.examples_per_client),
        evaluation_data=DataPart(trial.evaluation_data or trial.data),
        rounds=RoundOptions(
            rounds=trial.total_rounds,
            clients_per_round=trial.clients_per_round or _ALL,
            seed=trial.sampling_seed,
            noise_as_deployed=True,
            noise_seed=trial.noise_seed,
            evaluation_every=trial.evaluation_every,
            evaluation_clients=trial.evaluation_clients or _ALL,
        ),
        engine=trial.engine,
        num_workers=1,
    )


def _keep_record(trial: Trial, report: RoundReport) -> None:
    """Notes what a training round took, and removes the checkpoint that nothing will read again."""
    if report.task != "training":
        return
    with open(trial.directory / "seconds.jsonl", "a", encoding="ascii") as file:
        file.write(json.dumps({"round": report.number, "seconds": report.seconds}) + "\n")
    if report.number > 1:
        for path in (trial.directory / "run").glob(f"*/{TRAINING_TASK_ID}/{report.number - 1}/s/0/checkpoint"):
            path.unlink()


def _read_result(trial: Trial, rounds: int) -> TrialResult:
    """What the run directory holds of the rounds up to a number.

    Raises:
      UsageError: there is no such metric.
    """
    training, evaluation = (
        {int(path.parents[2].name): parse_metrics(path.read_bytes()) for path in (trial.directory / "run").glob(f"*/{task}/*/s/0/metrics")}
        for task in (TRAINING_TASK_ID, EVALUATION_TASK_ID)
    )
    sign, name = (-1, trial.metric[1:]) if trial.metric.startswith("-") else (1, trial.metric)
    curve = []
    for number, metrics in sorted(evaluation.items()):
        if number <= rounds:
            key = f"server/eval/{name}"
            if key not in metrics:
                present = [found.rpartition("/")[2] for found in metrics if found.startswith("server/eval/")]
                raise errors.UsageError(f"there is no metric {name!r} among {', '.join(present)}")
            curve.append((number, sign * metrics[key]))
    ran = {number: metrics for number, metrics in training.items() if number <= rounds}
    total = cumulative(ran[max(ran)])
    return TrialResult(
        trial.name,
        curve=tuple(curve),
        training_seconds=_seconds(trial.directory / "seconds.jsonl", len(ran), rounds),
        client_updates=int(sum(metrics[REPORTS_METRIC] for metrics in ran.values())),
        communicated_bytes=total.broadcast + total.aggregated,
    )


def _seconds(path: pathlib.Path, number: int, rounds: int) -> float:
    """Of all rounds; one whose record a kill prevented counts as the median of the others."""
    found: dict[int, float] = {}
    if path.exists():
        for line in path.read_text(encoding="ascii").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # The line that a kill cut off.
            if record["round"] <= rounds:
                found[record["round"]] = record["seconds"]
    if not found:
        return 0.0
    return sum(found.values()) + (number - len(found)) * statistics.median(found.values())


def _commanded(command: str, files: dict[str, pathlib.Path]) -> float:
    """What a user's command prints last.

    Raises:
      UsageError: it fails, or its last line is no number.
    """
    args = shlex.split(command)
    for name in ("client_only_plan", "checkpoint", "examples"):
        args = [arg.replace(f"{{{name}}}", os.fspath(files[name])) for arg in args]
    try:
        done = subprocess.run(args, capture_output=True, text=True, errors="replace", timeout=_COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise errors.UsageError(f"the latency command {args[0]!r} cannot be run: {error}") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0:
        words = (done.stderr.strip().splitlines() or lines or ["nothing"])[-1]
        raise errors.UsageError(f"the latency command ended with exit code {done.returncode} and the words {words!r}")
    try:
        value = float(lines[-1])
    except (IndexError, ValueError):
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise errors.UsageError(f"the last line of the latency command is no number: {(lines or [''])[-1]!r}")
    return value


def _in_short(error: BaseException) -> str:
    return described(error) if not isinstance(error, OSError) else f"{error.strerror or error}"
