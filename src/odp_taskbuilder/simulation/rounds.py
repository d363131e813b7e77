"""The loop over the rounds of a run: sample, run, keep, evaluate, report; and resume."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.data.client_data import ClientData
from odp_taskbuilder.metrics.run import PROGRESS_PREFIX
from odp_taskbuilder.metrics.tensorboard import EventFile
from odp_taskbuilder.simulation.communication import Communication, communication_metrics, cumulative
from odp_taskbuilder.simulation.deployment import DeployedTask, Deployment
from odp_taskbuilder.simulation.evaluation_schedule import CheckpointChoice, choose_checkpoint, evaluation_rounds_due
from odp_taskbuilder.simulation.jobs import BadClient, named_after_client
from odp_taskbuilder.simulation.plan_rounds import RoundResult, RoundRunner
from odp_taskbuilder.simulation.run_directory import RunDirectory
from odp_taskbuilder.simulation.sampling import CohortSampler, Sampling, draw_evaluation_cohort
from odp_taskbuilder.simulation.spending import PrivacySpending


@dataclasses.dataclass(frozen=True)
class RoundOptions:
    """What a run does, beside what the tasks say.

    Attributes:
      rounds: training rounds that the run is to have in the end.
      clients_per_round: size of a training cohort; with Poisson sampling its mean.
      skip_bad_clients: a client that fails is counted; otherwise it ends the run.
      evaluation_checkpoint: which checkpoint an evaluation round takes of those that the task's selector admits.
      hours_per_round: what a training round takes on the fleet, for selectors that count hours.
    """

    rounds: int
    clients_per_round: int
    sampling: Sampling = Sampling.FIXED
    seed: int = 0
    skip_bad_clients: bool = False
    evaluation_checkpoint: CheckpointChoice = CheckpointChoice.NEWEST
    hours_per_round: float = 1.0


@dataclasses.dataclass(frozen=True)
class RoundReport:
    """A round that was just run.

    Attributes:
      task: "training" or "evaluation".
      number: of the round, from 1.
      checkpoint_round: training round whose checkpoint was used.
      metrics: as they were written.
      epsilon: spent so far, at some ten training rounds of a run with a DP aggregator; else None.
    """

    task: str
    number: int
    checkpoint_round: int
    metrics: Mapping[str, float]
    clients: int
    bad_clients: tuple[BadClient, ...]
    seconds: float
    epsilon: Optional[float]


@dataclasses.dataclass(frozen=True)
class TaskSummary:
    """One task at the end of a run.

    Attributes:
      metrics: of the last round; empty if there was none.
      communication: of all rounds, those of a resumed run included.
    """

    rounds: int
    metrics: Mapping[str, float]
    communication: Communication


@dataclasses.dataclass(frozen=True)
class Summary:
    """A run at its end.

    Attributes:
      evaluation: None if there is no evaluation task.
      epsilon, delta: spent by the training rounds; None without a DP aggregator.
      clients, seconds: run by this command, without what it resumed.
      bad_clients: that were skipped by this command.
    """

    population: str
    training: TaskSummary
    evaluation: Optional[TaskSummary]
    epsilon: Optional[float]
    delta: Optional[float]
    clients: int
    bad_clients: int
    seconds: float


OnRound = Callable[[RoundReport], None]


class Rounds:
    """One run: the state that its rounds share."""

    def __init__(
        self,
        deployment: Deployment,
        data: ClientData,
        evaluation_data: Optional[ClientData],
        options: RoundOptions,
        directory: RunDirectory,
        *,
        on_round: OnRound,
        logdir: Optional[pathlib.Path] = None,
    ):
        """Checks that the run is possible.

        Args:
          evaluation_data: of the evaluation task; needed if there is one.

        Raises:
          UsageError: it asks for more rounds than the task has, or there are fewer clients than the tasks need.
        """
        self._deployment = deployment
        self._options = options
        self._directory = directory
        self._on_round = on_round
        self._logdir = logdir
        self._events: dict[str, EventFile] = {}
        self._client_ids = _available_clients(data, deployment.eligibility.min_example_count, options.skip_bad_clients)
        self._evaluation_client_ids: Sequence[str] = ()
        _check_rounds(deployment, options)
        _check_cohort(deployment.training, self._client_ids, data, options)
        if deployment.evaluation is not None and evaluation_data is not None:
            self._evaluation_client_ids = evaluation_data.client_ids
            _check_evaluation_cohort(deployment.evaluation, evaluation_data)
        self._spending = PrivacySpending(deployment.privacy, options.rounds)
        self._totals = {"training": Communication(), "evaluation": Communication()}
        self._last: dict[str, tuple[int, Mapping[str, float]]] = {"training": (0, {}), "evaluation": (0, {})}
        self._clients = self._bad_clients = 0

    def settings(self) -> dict[str, Any]:
        """Everything that the results depend on, beside the number of rounds and the software."""
        options = self._options
        tasks = [task for task in (self._deployment.training, self._deployment.evaluation) if task is not None]
        return {
            "tasks": {str(task.task_id): task.digest for task in tasks},
            "clients": _digest(self._client_ids),
            "evaluation_clients": _digest(self._evaluation_client_ids),
            "clients_per_round": options.clients_per_round,
            "sampling": options.sampling.value,
            "seed": options.seed,
            "skip_bad_clients": options.skip_bad_clients,
            "evaluation_checkpoint": options.evaluation_checkpoint.value,
            "hours_per_round": options.hours_per_round,
        }

    def run(self, runner: RoundRunner) -> Summary:
        """Runs all rounds that the run directory does not hold yet. When it raises, what is finished is kept.

        Raises:
          UsageError: too few clients may take part in a round, or reported in one.
          OdpTaskError: a client is bad and must not be skipped, or something failed.
        """
        start = time.monotonic()
        deployment, options = self._deployment, self._options
        task = deployment.training
        if not self._directory.checkpoint(task.task_id, 0).exists():
            self._directory.keep_checkpoint(task.task_id, 0, deployment.initial_checkpoint)
        sampler = CohortSampler(
            self._client_ids,
            sampling=options.sampling,
            clients_per_round=options.clients_per_round,
            minimum_separation=deployment.eligibility.minimum_separation,
            seed=options.seed,
        )
        training_clients = 0
        for number in range(1, options.rounds + 1):
            cohort = sampler.next_cohort()
            self._round(runner, "training", task, number, number - 1, cohort)
            training_clients += len(cohort)
            self._evaluate(runner, number, training_clients)
        return self._summary(time.monotonic() - start)

    def _evaluate(self, runner: RoundRunner, last_round: int, training_clients: int) -> None:
        """Runs the evaluation rounds that are due after a training round."""
        deployment, options = self._deployment, self._options
        task = deployment.evaluation
        if task is None:
            return
        due = evaluation_rounds_due(training_clients, deployment.evaluation_share, task.report_goal)
        for number in range(self._last["evaluation"][0] + 1, min(due, deployment.total_rounds) + 1):
            chosen = choose_checkpoint(
                deployment.checkpoint_selector,
                options.evaluation_checkpoint,
                last_round,
                options.hours_per_round,
                options.seed,
                number,
            )
            cohort = draw_evaluation_cohort(self._evaluation_client_ids, task.report_goal, options.seed, number)
            self._round(runner, "evaluation", task, number, chosen, cohort)

    def _round(
        self, runner: RoundRunner, kind: str, task: DeployedTask, number: int, checkpoint_round: int, cohort: Sequence[str]
    ) -> None:
        """Runs a round of one of the tasks, unless it is finished already."""
        metrics = self._directory.metrics(task.task_id, number)
        if metrics is None:
            metrics = self._run_round(runner, kind, task, number, checkpoint_round, cohort)
        self._totals[kind] = cumulative(metrics)
        self._last[kind] = (number, metrics)

    def _run_round(
        self, runner: RoundRunner, kind: str, task: DeployedTask, number: int, checkpoint_round: int, cohort: Sequence[str]
    ) -> Mapping[str, float]:
        start = time.monotonic()
        server_checkpoint = self._directory.checkpoint(self._deployment.training.task_id, checkpoint_round)
        result = runner.run_round(task.task_id, server_checkpoint, cohort)
        self._check_reports(kind, task, number, result, len(cohort))
        metrics = {
            **result.metrics,
            f"{PROGRESS_PREFIX}reports": float(result.reports),
            f"{PROGRESS_PREFIX}bad_clients": float(len(result.bad_clients)),
            f"{PROGRESS_PREFIX}checkpoint_round": float(checkpoint_round),
        }
        if result.communication is not None:
            total = self._totals[kind] + result.communication
            metrics.update(communication_metrics(result.communication, total, len(cohort), result.reports))
        if kind == "training":
            self._directory.keep_checkpoint(task.task_id, number, result.new_checkpoint)
        self._directory.finish_round(task.task_id, number, metrics)
        self._log(kind, number, metrics)
        seconds = time.monotonic() - start
        self._clients += len(cohort)
        self._bad_clients += len(result.bad_clients)
        epsilon = self._spending.progress(number) if kind == "training" else None
        self._on_round(RoundReport(kind, number, checkpoint_round, metrics, len(cohort), result.bad_clients, seconds, epsilon))
        return metrics

    def _check_reports(self, kind: str, task: DeployedTask, number: int, result: RoundResult, clients: int) -> None:
        """Refuses a round that a server would not complete. For an evaluation round it would find other clients; here some
        are missing then."""
        if kind == "training" and self._options.sampling is Sampling.POISSON:
            return
        needed = task.report_goal if kind == "training" else 1
        if result.reports < needed:
            raise errors.UsageError(
                f"In {kind} round {number} {result.reports} of {clients} clients reported; a server completes no round with "
                f"fewer than {needed}. The first that did not: {result.bad_clients[0].reason}",
                next_step="Mend the data, or raise --clients_per_round.",
            )

    def _log(self, kind: str, number: int, metrics: Mapping[str, float]) -> None:
        if self._logdir is not None:
            if kind not in self._events:
                # A resumed run goes on where it was; a new one takes the place of another.
                self._events[kind] = EventFile(self._logdir / kind, replace=number == 1)
            self._events[kind].add_scalars(number, metrics)

    def _summary(self, seconds: float) -> Summary:
        privacy = self._deployment.privacy
        return Summary(
            population=self._deployment.population,
            training=self._task_summary("training"),
            evaluation=None if self._deployment.evaluation is None else self._task_summary("evaluation"),
            epsilon=self._spending.total(),
            delta=None if privacy is None else privacy.delta,
            clients=self._clients,
            bad_clients=self._bad_clients,
            seconds=seconds,
        )

    def _task_summary(self, kind: str) -> TaskSummary:
        rounds, metrics = self._last[kind]
        return TaskSummary(rounds, metrics, self._totals[kind])


def _available_clients(data: ClientData, min_example_count: int, skip_bad_clients: bool) -> Sequence[str]:
    """The clients with enough examples; nothing is counted if none is asked for. A bad client that is to be skipped is found
    out when it is drawn."""
    if min_example_count < 1:
        return data.client_ids
    available = []
    for client_id in data.client_ids:
        try:
            if data.num_examples(client_id) >= min_example_count:
                available.append(client_id)
        except errors.OdpTaskError as error:
            if not skip_bad_clients:
                raise named_after_client(error, client_id) from error
            available.append(client_id)
    return available


def _check_rounds(deployment: Deployment, options: RoundOptions) -> None:
    if options.rounds > deployment.total_rounds:
        raise errors.UsageError(
            f"{options.rounds} rounds are asked for; the task ends after {deployment.total_rounds}.",
            next_step="Lower --rounds, or build with a larger num_max_training_rounds.",
        )


def _check_cohort(task: DeployedTask, client_ids: Sequence[str], data: ClientData, options: RoundOptions) -> None:
    wanted = options.clients_per_round
    if options.sampling is Sampling.FIXED and not task.report_goal <= wanted <= task.max_reports:
        raise errors.UsageError(
            f"{wanted} clients per round are asked for; the task's rounds take from {task.report_goal} (the report goal) to "
            f"{task.max_reports} reports.",
            next_step="Choose --clients_per_round in this range, or build with another report_goal or over_selection_rate.",
        )
    if len(client_ids) < wanted:
        few = (
            ""
            if len(client_ids) == len(data.client_ids)
            else f", of which {len(client_ids)} hold as many examples as the task asks for"
        )
        raise errors.UsageError(
            f"{data.source} has {len(data.client_ids)} clients{few}: too few for rounds of {wanted}.",
            next_step="Use data of more clients, or lower --clients_per_round and the task's report_goal.",
        )


def _check_evaluation_cohort(task: DeployedTask, data: ClientData) -> None:
    if len(data.client_ids) < task.report_goal:
        raise errors.UsageError(
            f"{data.source} has {len(data.client_ids)} clients: fewer than the report goal of the evaluation task, which is "
            f"{task.report_goal}.",
            next_step="Name other data with --evaluation_data, or lower the evaluation's report_goal.",
        )


def _digest(client_ids: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(client_ids).encode()).hexdigest()
