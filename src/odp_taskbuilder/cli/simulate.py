"""`odp-task simulate`: runs the artifacts of a build on client data."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, Optional

import click

from odp_taskbuilder.base.phone_limits import MAX_EXAMPLE_BYTES, MAX_TRAINING_SECONDS, SLOWDOWN
from odp_taskbuilder.cli import commands, options, output
from odp_taskbuilder.config.spec import ASSUMED_POPULATION
from odp_taskbuilder.metrics.run import short_name
from odp_taskbuilder.privacy.rounding import rounded_up
from odp_taskbuilder.simulation.evaluation_schedule import CheckpointChoice
from odp_taskbuilder.simulation.round_options import RoundOptions
from odp_taskbuilder.simulation.round_reports import CompiledShare, RoundReport, Summary, TaskSummary
from odp_taskbuilder.simulation.sampling import Sampling
from odp_taskbuilder.simulation.simulate import ENGINES, SimulationOptions, simulate
from odp_taskbuilder.simulation.spending import SpentPrivacy

_DIRECTORY = click.Path(file_okay=False, path_type=pathlib.Path)
_WHY_ZEROS = "their gradients, updates or metrics were not finite or absurdly large (scale the features)"
# Bad clients of a round that are named.
_MAX_NAMED = 3


@commands.command(
    headings={
        "Client data": ("data", "evaluation_data"),
        "Rounds": ("rounds", "clients_per_round", "sampling", "seed", "skip_bad_clients", "evaluation_checkpoint", "hours_per_round"),
        "Privacy": ("noise_as_deployed", "population", "rounds_per_day"),
        "Engine": ("engine", "workers", "saved_model", "task_config", "trust_model"),
        "Where it goes": ("run_dir", "logdir"),
    }
)
@click.argument("artifacts", type=click.Path(path_type=pathlib.Path))
@click.option(
    "--data",
    type=options.PATH_OR_URL,
    required=True,
    help="Client data, PATH[?OPTIONS]; `synthetic` makes some that fits the plan. See `odp-task data -h`.",
)
@click.option("--evaluation_data", type=options.PATH_OR_URL, help="Client data of the evaluation task.  [default: that of --data]")
@click.option("--rounds", required=True, type=click.IntRange(min=1), help="Training rounds that the run is to have in the end.")
@click.option(
    "--clients_per_round",
    required=True,
    type=click.IntRange(min=1),
    help="Size of a training cohort; with Poisson sampling its mean.",
)
@click.option("--run_dir", type=_DIRECTORY, help="Keep checkpoints and metrics of all rounds here; resume what is there.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the sampling of clients.")
@click.option(
    "--sampling", type=click.Choice([kind.value for kind in Sampling]), default=Sampling.FIXED.value, show_default=True
)
@click.option("--skip_bad_clients", is_flag=True, help="Count clients that fail, as a server would, instead of ending.")
@click.option(
    "--noise_as_deployed",
    is_flag=True,
    help="Give rounds of few clients the noise that the mean of the task's report goal has. No epsilon holds for such a run.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes that run clients.  [default: the cores]")
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="auto",
    show_default=True,
    help="compiled: the client plan compiled by XLA, checked against the interpreter; local: the interpreter; auto: the faster "
    "of both, or what the run that is resumed had; ray: the interpreter on a Ray cluster; tff: TFF itself, to compare.",
)
@click.option("--saved_model", type=_DIRECTORY, help="What the artifacts were built from (--engine tff).")
@click.option("--task_config", type=options.PATH_OR_URL, help="What the artifacts were built from (--engine tff).")
@options.trust_model
@click.option(
    "--evaluation_checkpoint",
    type=click.Choice([choice.value for choice in CheckpointChoice]),
    default=CheckpointChoice.NEWEST.value,
    show_default=True,
    help="Which of the checkpoints that the selector admits an evaluation round takes; the server takes a random one.",
)
@click.option(
    "--hours_per_round",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="For selectors that count hours.",
)
@click.option(
    "--population",
    type=click.IntRange(min=1),
    default=ASSUMED_POPULATION,
    show_default=True,
    help="Number of devices that privacy accounting assumes.",
)
@click.option(
    "--rounds_per_day",
    type=click.FloatRange(min=0, min_open=True),
    help="Pace of the training rounds that privacy accounting assumes, at least.  [default: 24 / hours_per_round]",
)
@click.option("--logdir", type=_DIRECTORY, help="Write TensorBoard summaries, round by round.")
@options.json_option
def command(
    artifacts: pathlib.Path,
    data: str,
    evaluation_data: Optional[str],
    rounds: int,
    clients_per_round: int,
    run_dir: Optional[pathlib.Path],
    seed: int,
    sampling: str,
    skip_bad_clients: bool,
    noise_as_deployed: bool,
    workers: Optional[int],
    engine: str,
    saved_model: Optional[pathlib.Path],
    task_config: Optional[str],
    trust_model: bool,
    evaluation_checkpoint: str,
    hours_per_round: float,
    population: int,
    rounds_per_day: Optional[float],
    logdir: Optional[pathlib.Path],
    json_mode: bool,
) -> None:
    """Run the tasks of a build: the very plans that phones and server would get, on the examples of simulated clients.

    ARTIFACTS is the directory that `odp-task build` wrote. Each round samples clients, runs the client plan on each in
    TensorFlow Lite or compiled, aggregates and applies their updates with the server plan, and keeps checkpoint and metrics where a
    server would. The same command resumes an interrupted run.

    \b
      odp-task simulate odp_artifacts/digits --data clients/train --evaluation_data clients/test \\
          --rounds 30 --clients_per_round 10 --run_dir runs/digits
    """
    if trust_model:
        options.note_trusted_model()
    with output.status("reading the data and starting the processes that run clients") as tell:

        def on_round(report: RoundReport) -> None:
            _show_progress(report, rounds)
            if report.task == "training":
                tell(f"running round {report.number + 1} of {rounds}" if report.number < rounds else "finishing")

        summary = simulate(
            artifacts,
            SimulationOptions(
                data=data,
                evaluation_data=evaluation_data,
                rounds=RoundOptions(
                    rounds=rounds,
                    clients_per_round=clients_per_round,
                    sampling=Sampling(sampling),
                    seed=seed,
                    skip_bad_clients=skip_bad_clients,
                    noise_as_deployed=noise_as_deployed,
                    evaluation_checkpoint=CheckpointChoice(evaluation_checkpoint),
                    hours_per_round=hours_per_round,
                ),
                run_directory=run_dir,
                logdir=logdir,
                engine=engine,
                num_workers=workers,
                assumed_population=population,
                rounds_per_day=rounds_per_day,
                saved_model=saved_model,
                task_config=task_config,
                trust_model=trust_model,
            ),
            on_round=on_round,
            on_notice=output.note,
        )
    if json_mode:
        output.print_json(dataclasses.asdict(summary))
        return
    _print_summary(summary, run_dir)


def _show_progress(report: RoundReport, rounds: int) -> None:
    parts = [f"{report.clients} clients", f"{report.clients / max(report.seconds, 1e-9):.1f} clients/s"]
    parts += [f"{short_name(name)} {value:.4g}" for name, value in report.metrics.items() if name.endswith("/loss")]
    if report.privacy is not None:
        parts.append(_spent_so_far(report.privacy))
    if report.task == "training":
        output.note(f"round {report.number}/{rounds}: {', '.join(parts)}")
    else:
        output.note(f"  evaluation round {report.number}, of training round {report.checkpoint_round}: {', '.join(parts)}")
    if report.zeroed_clients:
        output.note(f"  {report.zeroed_clients} of {report.clients} clients sent zeros: {_WHY_ZEROS}")
    if report.without_effect:
        output.note(f"  the model stays as it was: {report.without_effect}")
    for client in report.bad_clients[:_MAX_NAMED]:
        output.note(f"  skipped: {client.reason}")
    if len(report.bad_clients) > _MAX_NAMED:
        output.note(f"  and {len(report.bad_clients) - _MAX_NAMED} more bad clients were skipped")


def _print_summary(summary: Summary, run_dir: Optional[pathlib.Path]) -> None:
    rate = summary.clients / summary.seconds if summary.seconds else 0.0
    lines = [f"Population {summary.population}: {summary.clients} clients in {summary.seconds:.1f} s, {rate:.1f} clients/s"]
    if summary.bad_clients:
        lines.append(f"  bad clients, skipped: {summary.bad_clients}")
    if summary.zeroed_clients:
        lines.append(f"  clients that sent zeros, of all rounds: {summary.zeroed_clients}; {_WHY_ZEROS}")
    if summary.oversized_examples:
        lines.append(
            f"  WARNING: {summary.oversized_examples} examples have more than the {MAX_EXAMPLE_BYTES:,} bytes that phones take"
        )
    if summary.max_client_seconds is not None:
        lines.append(
            f"  {summary.mean_client_seconds:.3g} s per client on this machine, {summary.max_client_seconds:.3g} s for the slowest"
        )
        if SLOWDOWN * summary.max_client_seconds > MAX_TRAINING_SECONDS:
            lines.append(
                f"  WARNING: a phone {SLOWDOWN} times slower would need {SLOWDOWN * summary.max_client_seconds:,.0f} s; phones stop after "
                f"{MAX_TRAINING_SECONDS} s. Lower max_training_batches_per_client."
            )
    if summary.rounds_without_effect:
        lines.append(f"  training rounds that left the model as it was: {summary.rounds_without_effect}")
    if summary.compiled is not None:
        lines.append(_compiled_line(summary.compiled))
    lines += _task_lines("training", summary.training)
    if summary.evaluation is not None:
        lines += _task_lines("evaluation", summary.evaluation)
    if summary.noise_of_reports is not None:
        lines.append(
            f"  privacy: none claimed. Rounds were weighed as if {summary.noise_of_reports:,} clients, the report goal, had reported: the "
            "noise is what phones will see, the privacy of these clients is not."
        )
    else:
        lines += _privacy_lines(summary.privacy)
    if run_dir is not None:
        lines.append(f"Show the metrics with: odp-task metrics {run_dir}")
    output.show("\n".join(lines))


def _spent_so_far(privacy: SpentPrivacy) -> str:
    text = f"epsilon {privacy.epsilon:.4g} {privacy.meant_for}"
    if privacy.simulated_epsilon is None:
        return text
    return f"{text}, {privacy.simulated_epsilon:.4g} for these {privacy.simulated_clients:,}"


def _privacy_lines(privacy: Optional[SpentPrivacy]) -> list[str]:
    if privacy is None:
        return ["  privacy: no DP aggregator, no guarantee"]
    lines = [
        f"  privacy after {privacy.rounds} rounds, at delta {privacy.delta:.7g}:",
        f"    epsilon {rounded_up(privacy.epsilon):.7g} {privacy.meant_for}",
    ]
    if privacy.simulated_epsilon is not None:
        lines.append(
            f"    epsilon {rounded_up(privacy.simulated_epsilon):.7g} for a population of {privacy.simulated_clients:,}, the clients of this "
            "simulation"
        )
    return [*lines, *(f"    {sentence}" for sentence in privacy.assumptions)]


def _compiled_line(share: CompiledShare) -> str:
    line = f"  compiled: {share.compiled} clients, in the interpreter: {share.interpreted}"
    if share.kinks:
        line += f"; rounding sent {share.kinks} of {share.compared} compared ones another way: the interpreter's update was taken"
    if share.worst is None:
        return line
    line += (
        f"; {share.compared - share.kinks} ran in both ways, with a relative L2 difference of at most {share.worst.difference:.2g} "
        f"({share.worst.tensor})"
    )
    if share.amplified:
        line += f"; of {share.amplified} the plan amplifies rounding so far"
    return line


def _task_lines(name: str, task: TaskSummary) -> list[str]:
    lines = [f"  {name}: {task.rounds} rounds"]
    if not task.rounds:
        return lines
    shown: dict[str, Any] = {short_name(key): value for key, value in task.metrics.items() if key.startswith("server/")}
    lines.append("    last round: " + ", ".join(f"{key} {value:.6g}" for key, value in shown.items()))
    for direction, total in (("broadcast", task.communication.broadcast), ("aggregated", task.communication.aggregated)):
        client = task.metrics.get(f"communication/{direction}_bytes_per_client")
        if client is None:
            continue
        round_ = task.metrics[f"communication/{direction}_bytes"]
        wire = task.metrics.get(f"communication/{direction}_wire_bytes_per_client")
        after_gzip = "" if wire is None else f" (after gzip {wire:,.0f})"
        lines.append(
            f"    {direction}: {client:,.0f} bytes ({8 * client:,.0f} bits) per client{after_gzip}, {round_:,.0f} bytes in the last round, "
            f"{total:,} bytes in all"
        )
    return lines
