"""A whole simulation: the artifacts of a build, run on client data.

options = SimulationOptions(data="clients/train", rounds=RoundOptions(rounds=30, clients_per_round=10))
summary = simulate("odp_artifacts/digits", options)
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
import shutil
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, Optional, Union

from odp_taskbuilder import errors, installation
from odp_taskbuilder.base.keyword_only import keyword_only
from odp_taskbuilder.base.private_directory import private_directory
from odp_taskbuilder.base.processors import available_processors
from odp_taskbuilder.build_request import input_digests
from odp_taskbuilder.config import load_config
from odp_taskbuilder.config.spec import ASSUMED_POPULATION
from odp_taskbuilder.data.client_data import ClientData
from odp_taskbuilder.data.open import open_client_data
from odp_taskbuilder.data.part import DataPart
from odp_taskbuilder.model import admission
from odp_taskbuilder.simulation import processes
from odp_taskbuilder.simulation.deployment import DeployedTask, Deployment, load_deployment
from odp_taskbuilder.simulation.engines import CompiledEngine, Engine, LocalEngine, OnWay, make_auto_engine
from odp_taskbuilder.simulation.plan_rounds import PlanRounds, RoundRunner
from odp_taskbuilder.simulation.processes import StartProcesses
from odp_taskbuilder.simulation.ray_engine import RayEngine
from odp_taskbuilder.simulation.round_options import RoundOptions
from odp_taskbuilder.simulation.round_reports import OnRound, Summary
from odp_taskbuilder.simulation.rounds import Rounds
from odp_taskbuilder.simulation.run_directory import RunDirectory
from odp_taskbuilder.simulation.tff_rounds import TffRounds, TffSetup

ENGINES = ("auto", "compiled", "local", "ray", "tff")
# Files of the size of a checkpoint that may be there at a time: partial sums, updates, checkpoints.
_SCRATCH_CHECKPOINTS = 40
_MEMORY_FILE_SYSTEM = "/dev/shm"


@keyword_only
@dataclasses.dataclass(frozen=True)
class SimulationOptions:
    """What to run, and with what.

    Attributes:
      data: data argument of the training clients (data.data_spec), or a part of such data.
      evaluation_data: of the evaluation clients; None takes `data`.
      run_directory: where checkpoints and metrics of all rounds are kept, and resumed from; None keeps nothing.
      logdir: TensorBoard summaries are written here round by round.
      engine: one of ENGINES.
      num_workers: processes that run clients; None takes one per processor that scheduler and control group grant.
      assumed_population: number of devices that privacy accounting assumes.
      rounds_per_day: pace of rounds that it assumes; None: as `rounds.hours_per_round` says.
      saved_model, task_config: what the artifacts were built from; TFF's engine needs them.
      trust_model: load that model without scanning it first.
    """

    data: Union[str, DataPart]
    rounds: RoundOptions
    evaluation_data: Optional[Union[str, DataPart]] = None
    run_directory: Optional[pathlib.Path] = None
    logdir: Optional[pathlib.Path] = None
    engine: str = "auto"
    num_workers: Optional[int] = None
    assumed_population: int = ASSUMED_POPULATION
    rounds_per_day: Optional[float] = None
    saved_model: Optional[pathlib.Path] = None
    task_config: Optional[str] = None
    trust_model: bool = False


def simulate(
    artifacts: Union[str, os.PathLike],
    options: SimulationOptions,
    on_round: OnRound = lambda report: None,
    on_notice: Callable[[str], None] = lambda notice: None,
) -> Summary:
    """Runs rounds of a task from its artifacts, as server and devices would.

    Takes about 6 s to load TensorFlow in the processes that do the work; this one does not load it.

    Args:
      artifacts: directory that `odp-task build` wrote.
      on_round: called with every round as it is finished.
      on_notice: told which engine runs the clients, and why, in a line.

    Raises:
      OdpTaskError: see the subclasses for what can be wrong. Finished rounds are kept then, and the same call resumes.
    """
    if options.engine == "tff":
        installation.require_tff_runtime()
    deployment, data, evaluation_data = open_simulation_data(artifacts, options)
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(_scratch_directory(deployment))
        directory = RunDirectory(
            options.run_directory or scratch / "run", deployment.population, is_kept=options.run_directory is not None
        )
        rounds = Rounds(deployment, data, evaluation_data, options.rounds, directory, on_round=on_round, logdir=options.logdir)
        stack.enter_context(directory.opened({**rounds.settings(), "oracle": options.engine == "tff"}))
        stack.callback(processes.stop_forkserver)
        engine = None
        if options.engine != "tff":
            engine = _make_engine(deployment, options, scratch, on_notice, former=directory.ran_compiled(), on_way=directory.note_way)
        checkpoints = (directory.root, deployment.initial_checkpoint)
        runner = _make_runner(deployment, options, engine, scratch, checkpoints, on_notice)
        stack.callback(runner.close)
        summary = rounds.run(runner)
        return dataclasses.replace(summary, compiled=engine.share) if isinstance(engine, CompiledEngine) else summary


def open_simulation_data(
    artifacts: Union[str, os.PathLike], options: SimulationOptions
) -> tuple[Deployment, ClientData, Optional[ClientData]]:
    """What is deployed, the training clients, and the evaluation clients if there is an evaluation task.

    Raises:
      OdpTaskError: as `simulate`.
    """
    deployment = load_deployment(pathlib.Path(artifacts), options.assumed_population, _pace(options))
    data = open_client_data(options.data, features=deployment.training.features)
    if deployment.evaluation is None:
        return deployment, data, None
    return deployment, data, open_client_data(options.evaluation_data or options.data, features=deployment.evaluation.features)


def open_simulation_runner(
    deployment: Deployment,
    options: SimulationOptions,
    scratch: pathlib.Path,
    on_notice: Callable[[str], None],
    start_processes: StartProcesses,
) -> PlanRounds:
    """Runs rounds in processes of another kind than children, with the engine `auto`, `compiled` or `local`.

    Raises:
      OdpTaskError: as `simulate`.
    """
    engine = _make_engine(deployment, options, scratch, on_notice, start_processes)
    return PlanRounds(_tasks(deployment), engine, scratch, options.rounds, start_processes)


def _pace(options: SimulationOptions) -> float:
    """Rounds per day. Raises UsageError if the options say two different things."""
    told = 24 / options.rounds.hours_per_round
    if options.rounds_per_day is None:
        return told
    if options.rounds.hours_per_round != RoundOptions.hours_per_round and not math.isclose(told, options.rounds_per_day):
        raise errors.UsageError(
            f"--hours_per_round {options.rounds.hours_per_round:g} makes {told:g} rounds per day, --rounds_per_day says "
            f"{options.rounds_per_day:g}.",
            next_step="Leave one of them out.",
        )
    return options.rounds_per_day


def _make_engine(
    deployment: Deployment,
    options: SimulationOptions,
    scratch: pathlib.Path,
    on_notice: Callable[[str], None],
    start_processes: StartProcesses = processes.ChildProcesses,
    *,
    former: Mapping[int, bool] = types.MappingProxyType({}),
    on_way: OnWay = lambda task_id, compiled: None,
) -> Engine:
    """Args: former, on_way: as of CompiledEngine."""
    tasks, data = _tasks(deployment), _data(deployment, options)
    num_workers = options.num_workers or available_processors()
    more: dict[str, Any] = {"on_notice": on_notice, "on_way": on_way, "start_processes": start_processes}
    if options.engine == "auto":
        clients = round(options.rounds.rounds * options.rounds.clients_per_round * (1 + deployment.evaluation_share))
        return make_auto_engine(tasks, data, num_workers, scratch, clients=clients, former=former, **more)
    is_compiled = options.engine == "compiled"
    if former and is_compiled not in former.values():
        ways = ("in the interpreter", "compiled")
        on_notice(f"clients run {ways[is_compiled]} from now on; those of the rounds that are there ran {ways[not is_compiled]}")
    if is_compiled:
        return CompiledEngine(tasks, data, num_workers, scratch, must_compile=True, **more)
    for task_id in tasks:
        on_way(task_id, False)
    if options.engine == "ray":
        return RayEngine(tasks, data, num_workers, scratch)
    return LocalEngine(tasks, data, num_workers, scratch, start_processes)


def _tasks(deployment: Deployment) -> dict[int, DeployedTask]:
    return {task.task_id: task for task in (deployment.training, deployment.evaluation) if task is not None}


def _data(deployment: Deployment, options: SimulationOptions) -> dict[int, Union[str, DataPart]]:
    """The data argument of each task's clients."""
    data = {deployment.training.task_id: options.data}
    if deployment.evaluation is not None:
        data[deployment.evaluation.task_id] = options.evaluation_data or options.data
    return data


def _make_runner(
    deployment: Deployment,
    options: SimulationOptions,
    engine: Optional[Engine],
    scratch: pathlib.Path,
    checkpoints: Sequence[pathlib.Path],
    on_notice: Callable[[str], None],
) -> RoundRunner:
    if engine is not None:
        return PlanRounds(_tasks(deployment), engine, scratch, options.rounds, checkpoints=checkpoints, on_notice=on_notice)
    if options.saved_model is None or options.task_config is None:
        raise errors.UsageError(
            "The engine `tff` composes the learning process anew.", next_step="Add --saved_model and --task_config."
        )
    if not options.rounds.spends_as_accounted:
        raise errors.UsageError(
            "--engine tff composes the learning process anew, with the noise that it has.",
            next_step="Leave --noise_as_deployed out, or take another engine.",
        )
    if options.rounds.skip_bad_clients:
        raise errors.UsageError(
            "--engine tff can skip no client.", next_step="Leave --skip_bad_clients out, or take another engine."
        )
    if not options.trust_model:
        admission.require_admissible(options.saved_model)
    _require_inputs(deployment, options.saved_model, options.task_config)
    return TffRounds(TffSetup(deployment, options.saved_model, options.task_config, _data(deployment, options)), scratch)


def _require_inputs(deployment: Deployment, saved_model: pathlib.Path, task_config: str) -> None:
    """Refuses a model or config that the artifacts were not built from, as far as their manifest tells."""
    if deployment.inputs is None:
        return
    given = input_digests(saved_model, load_config(task_config))
    different = sorted(name for name in {*given, *deployment.inputs} if given.get(name) != deployment.inputs.get(name))
    if different:
        raise errors.UsageError(
            f"The artifacts of {deployment.population} were built from other files than --saved_model {saved_model} and "
            f"--task_config {task_config}: different are {', '.join(different)}.",
            next_step="Name the model and the config of that build, or build again.",
        )


@contextlib.contextmanager
def _scratch_directory(deployment: Deployment) -> Iterator[pathlib.Path]:
    """A private directory that goes away; in memory where the platform has such a file system with room for the checkpoints."""
    try:
        needed = _SCRATCH_CHECKPOINTS * deployment.initial_checkpoint.stat().st_size
    except OSError as error:
        raise errors.StorageError(f"Cannot read {deployment.initial_checkpoint}: {error.strerror}") from error
    in_memory = os.access(_MEMORY_FILE_SYSTEM, os.W_OK) and shutil.disk_usage(_MEMORY_FILE_SYSTEM).free > needed
    with private_directory(pathlib.Path(_MEMORY_FILE_SYSTEM) if in_memory else None, "odp-task-simulate-") as scratch:
        yield scratch
