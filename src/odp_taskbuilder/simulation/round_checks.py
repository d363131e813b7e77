"""Whether a run is possible: every check raises UsageError with what is missing."""

from __future__ import annotations

from collections.abc import Sequence

from odp_taskbuilder import errors
from odp_taskbuilder.data.client_data import ClientData
from odp_taskbuilder.simulation.deployment import DeployedTask, Deployment
from odp_taskbuilder.simulation.jobs import named_after_client
from odp_taskbuilder.simulation.round_options import RoundOptions
from odp_taskbuilder.simulation.sampling import Sampling


def available_clients(data: ClientData, min_example_count: int, skip_bad_clients: bool) -> Sequence[str]:
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


def check_rounds(deployment: Deployment, options: RoundOptions) -> None:
    if options.rounds > deployment.total_rounds:
        raise errors.UsageError(
            f"{options.rounds} rounds are asked for; the task ends after {deployment.total_rounds}.",
            next_step="Lower --rounds, or build with a larger num_max_training_rounds.",
        )


def check_cohort(task: DeployedTask, client_ids: Sequence[str], data: ClientData, options: RoundOptions) -> None:
    wanted = options.clients_per_round
    if options.noise_as_deployed:
        if wanted > task.max_reports:
            raise errors.UsageError(
                f"{wanted} clients per round are asked for; the task's rounds take at most {task.max_reports} reports.",
                next_step="Lower --clients_per_round, or build with another report_goal or over_selection_rate.",
            )
    elif options.sampling is Sampling.FIXED and not task.report_goal <= wanted <= task.max_reports:
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


def evaluation_cohort_size(task: DeployedTask, data: ClientData, options: RoundOptions) -> int:
    """How many clients an evaluation round takes: as many as the task's report goal, or as there are where rounds stand for larger ones."""
    if options.evaluation_clients is not None or options.noise_as_deployed:
        return min(options.evaluation_clients or task.report_goal, len(data.client_ids))
    if len(data.client_ids) < task.report_goal:
        raise errors.UsageError(
            f"{data.source} has {len(data.client_ids)} clients: fewer than the report goal of the evaluation task, which is "
            f"{task.report_goal}.",
            next_step="Name other data with --evaluation_data, or lower the evaluation's report_goal.",
        )
    return task.report_goal
