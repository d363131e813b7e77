"""The loop over the rounds of a run: sample, run, keep, evaluate, report; and resume."""

from __future__ import annotations

import hashlib
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.data.client_data import ClientData
from odp_taskbuilder.metrics.run import PROGRESS_PREFIX
from odp_taskbuilder.metrics.tensorboard import EventFile
from odp_taskbuilder.simulation import round_checks
from odp_taskbuilder.simulation.communication import Communication, communication_metrics, cumulative, training_metrics
from odp_taskbuilder.simulation.deployment import DeployedTask, Deployment
from odp_taskbuilder.simulation.evaluation_schedule import choose_checkpoint, evaluation_rounds_due
from odp_taskbuilder.simulation.facts import run_facts, with_end
from odp_taskbuilder.simulation.plan_rounds import RoundResult, RoundRunner
from odp_taskbuilder.simulation.round_options import RoundOptions
from odp_taskbuilder.simulation.round_reports import (
    REPORTS_METRIC,
    OnRound,
    RoundReport,
    Summary,
    TaskSummary,
    why_without_effect,
)
from odp_taskbuilder.simulation.run_directory import RunDirectory
from odp_taskbuilder.simulation.sampling import CohortSampler, Sampling, draw_evaluation_cohort
from odp_taskbuilder.simulation.spending import PrivacySpending


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
        self._client_ids = round_checks.available_clients(
            data, deployment.eligibility.min_example_count, options.skip_bad_clients
        )
        self._fingerprint = data.fingerprint()
        self._evaluation_client_ids: Sequence[str] = ()
        self._evaluation_size = 0
        self._evaluation_fingerprint: Optional[str] = None
        round_checks.check_rounds(deployment, options)
        round_checks.check_cohort(deployment.training, self._client_ids, data, options)
        if deployment.evaluation is not None and evaluation_data is not None:
            self._evaluation_client_ids = evaluation_data.client_ids
            self._evaluation_fingerprint = evaluation_data.fingerprint()
            self._evaluation_size = round_checks.evaluation_cohort_size(deployment.evaluation, evaluation_data, options)
        self._spending = PrivacySpending(
            # With another noise than the plan's, or one that can be repeated, a run claims nothing.
            deployment.privacy if options.spends_as_accounted else None,
            options.rounds,
            clients=len(self._client_ids),
            clients_per_round=options.clients_per_round,
            draws_as_accounted=options.sampling is Sampling.POISSON,
        )
        self._facts = run_facts(
            deployment, options, clients=len(self._client_ids), evaluation_clients=len(self._evaluation_client_ids)
        )
        self._totals = {"training": Communication(), "evaluation": Communication()}
        self._last: dict[str, tuple[int, Mapping[str, float]]] = {"training": (0, {}), "evaluation": (0, {})}
        self._clients = self._bad_clients = self._rounds_without_effect = self._oversized_examples = self._zeroed_clients = 0
        self._client_seconds: list[float] = []

    def settings(self) -> dict[str, Any]:
        """Everything that the results depend on, beside the number of rounds and the software."""
        options = self._options
        tasks = [task for task in (self._deployment.training, self._deployment.evaluation) if task is not None]
        settings = {
            "tasks": {str(task.task_id): task.digest for task in tasks},
            "clients": _digest(self._client_ids),
            "evaluation_clients": _digest(self._evaluation_client_ids),
            "data": self._fingerprint,
            "evaluation_data": self._evaluation_fingerprint,
            "clients_per_round": options.clients_per_round,
            "sampling": options.sampling.value,
            "seed": options.seed,
            "skip_bad_clients": options.skip_bad_clients,
            "evaluation_checkpoint": options.evaluation_checkpoint.value,
            "hours_per_round": options.hours_per_round,
        }
        # Later than the others: runs that were begun before they were there have none of them.
        for name in ("noise_as_deployed", "noise_seed", "evaluation_every", "evaluation_clients"):
            value = getattr(options, name)
            if value is not None and value is not False:
                # The digest of the clients has that name.
                settings["evaluation_clients_per_round" if name == "evaluation_clients" else name] = value
        return settings

    def run(self, runner: RoundRunner) -> Summary:
        """Runs all rounds that the run directory does not hold yet. When it raises, what is finished is kept.

        Raises:
          UsageError: the run has more rounds already, or too few clients may take part in a round, or reported in one.
          OdpTaskError: a client is bad and must not be skipped, or something failed.
        """
        start = time.monotonic()
        deployment, options = self._deployment, self._options
        task = deployment.training
        finished = self._directory.last_round(task.task_id)
        if finished > options.rounds:
            # Its model has spent the privacy of all of them.
            raise errors.UsageError(
                f"{self._directory.root} holds a run of {finished} rounds; {options.rounds} are asked for.",
                next_step=f"Ask for {finished} --rounds or more, or name another --run_dir.",
            )
        self._directory.keep_facts(self._facts)
        if not self._directory.checkpoint(task.task_id, 0).exists():
            self._directory.keep_checkpoint(task.task_id, 0, deployment.initial_checkpoint)
        sampler = CohortSampler(
            self._client_ids,
            sampling=options.sampling,
            clients_per_round=options.clients_per_round,
            # A client that stands for many others may come back as one of them.
            minimum_separation=1 if options.noise_as_deployed else deployment.eligibility.minimum_separation,
            seed=options.seed,
        )
        training_clients = 0
        for number in range(1, options.rounds + 1):
            cohort = sampler.next_cohort()
            self._round(runner, "training", task, number, number - 1, cohort)
            training_clients += task.report_goal if options.noise_as_deployed else len(cohort)
            self._evaluate(runner, number, training_clients)
        summary = self._summary(time.monotonic() - start)
        self._directory.keep_facts(with_end(self._facts, summary))
        return summary

    def _evaluate(self, runner: RoundRunner, last_round: int, training_clients: int) -> None:
        """Runs the evaluation rounds that are due after a training round."""
        deployment, options = self._deployment, self._options
        task = deployment.evaluation
        if task is None:
            return
        if options.evaluation_every is not None:
            if last_round % options.evaluation_every == 0 or last_round == options.rounds:
                cohort = draw_evaluation_cohort(self._evaluation_client_ids, self._evaluation_size, options.seed, last_round)
                self._round(runner, "evaluation", task, last_round, last_round, cohort)
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
            cohort = draw_evaluation_cohort(self._evaluation_client_ids, self._evaluation_size, options.seed, number)
            self._round(runner, "evaluation", task, number, chosen, cohort)

    def _round(
        self, runner: RoundRunner, kind: str, task: DeployedTask, number: int, checkpoint_round: int, cohort: Sequence[str]
    ) -> None:
        """Runs a round of one of the tasks, unless it is finished already."""
        metrics: Optional[Mapping[str, float]] = self._directory.metrics(task.task_id, number)
        if metrics is None:
            metrics = self._run_round(runner, kind, task, number, checkpoint_round, cohort)
        if kind == "training" and why_without_effect(metrics):
            self._rounds_without_effect += 1
        self._totals[kind] = cumulative(metrics)
        self._last[kind] = (number, metrics)

    def _run_round(
        self, runner: RoundRunner, kind: str, task: DeployedTask, number: int, checkpoint_round: int, cohort: Sequence[str]
    ) -> Mapping[str, float]:
        start = time.monotonic()
        server_checkpoint = self._directory.checkpoint(self._deployment.training.task_id, checkpoint_round)
        result = runner.run_round(task.task_id, number, server_checkpoint, cohort)
        self._check_reports(kind, task, number, result, len(cohort))
        metrics = {
            **result.metrics,
            REPORTS_METRIC: float(result.reports),
            f"{PROGRESS_PREFIX}bad_clients": float(len(result.bad_clients)),
            f"{PROGRESS_PREFIX}checkpoint_round": float(checkpoint_round),
        }
        if result.zeroed_clients is not None:
            metrics[f"{PROGRESS_PREFIX}zeroed_clients"] = float(result.zeroed_clients)
        if result.communication is not None:
            total = self._totals[kind] + result.communication
            metrics.update(communication_metrics(result.communication, total, len(cohort), result.reports))
            metrics.update(training_metrics(total if kind == "training" else self._totals["training"]))
        if kind == "training":
            self._directory.keep_checkpoint(task.task_id, number, result.new_checkpoint)
        self._directory.finish_round(task.task_id, number, metrics)
        self._log(kind, number, metrics)
        seconds = time.monotonic() - start
        self._clients += len(cohort)
        self._bad_clients += len(result.bad_clients)
        self._client_seconds += result.client_seconds
        self._oversized_examples += result.oversized_examples
        self._zeroed_clients += result.zeroed_clients or 0
        self._on_round(
            RoundReport(
                task=kind,
                number=number,
                checkpoint_round=checkpoint_round,
                metrics=metrics,
                clients=len(cohort),
                bad_clients=result.bad_clients,
                seconds=seconds,
                privacy=self._spending.progress(number) if kind == "training" else None,
                zeroed_clients=result.zeroed_clients,
                without_effect=why_without_effect(metrics) if kind == "training" else None,
            )
        )
        return metrics

    def _check_reports(self, kind: str, task: DeployedTask, number: int, result: RoundResult, clients: int) -> None:
        """Refuses a round that a server would not complete. For an evaluation round it would find other clients; here some
        are missing then."""
        if kind == "training" and self._options.sampling is Sampling.POISSON:
            return
        needed = task.report_goal if kind == "training" and not self._options.noise_as_deployed else 1
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
                self._events[kind].add_hyperparameters(self._facts.hyperparameters(), str(self._logdir))
            self._events[kind].add_scalars(number, metrics)

    def _summary(self, seconds: float) -> Summary:
        return Summary(
            population=self._deployment.population,
            training=self._task_summary("training"),
            evaluation=None if self._deployment.evaluation is None else self._task_summary("evaluation"),
            privacy=self._spending.total(),
            noise_of_reports=self._noise_of_reports(),
            clients=self._clients,
            bad_clients=self._bad_clients,
            rounds_without_effect=self._rounds_without_effect,
            zeroed_clients=self._zeroed_clients,
            oversized_examples=self._oversized_examples,
            seconds=seconds,
            mean_client_seconds=statistics.fmean(self._client_seconds) if self._client_seconds else None,
            max_client_seconds=max(self._client_seconds, default=None),
        )

    def _noise_of_reports(self) -> Optional[int]:
        has_noise = self._deployment.privacy is not None
        return self._deployment.training.report_goal if has_noise and self._options.noise_as_deployed else None

    def _task_summary(self, kind: str) -> TaskSummary:
        rounds, metrics = self._last[kind]
        return TaskSummary(rounds, metrics, self._totals[kind])


def _digest(client_ids: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(client_ids).encode()).hexdigest()
