"""`odp-task metrics`: the metrics of rounds as a table, a figure, CSV or TensorBoard summaries."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Optional

import click

from odp_taskbuilder import errors
from odp_taskbuilder.cli import commands, options, output
from odp_taskbuilder.cli.network_options import network_options
from odp_taskbuilder.metrics.csv_export import write_csv
from odp_taskbuilder.metrics.plot import OVER, plot_runs
from odp_taskbuilder.metrics.reading import TaskFilter, groups, read_runs
from odp_taskbuilder.metrics.run import Run, select, short_name
from odp_taskbuilder.metrics.run_facts import read_facts
from odp_taskbuilder.metrics.table import format_run
from odp_taskbuilder.metrics.tensorboard import write_summaries
from odp_taskbuilder.transport.deadline import Network

_FILE = click.Path(dir_okay=False, path_type=pathlib.Path)


@commands.command(
    headings={"What is shown": ("population_name", "task_id", "metric"), "Where it goes": ("plot", "over", "csv", "logdir")}
)
@click.argument("sources", metavar="RUN_OR_BUCKET...", type=options.PATH_OR_URL, nargs=-1, required=True)
@click.option("--population_name", help="Only the tasks of this population.")
@click.option("--task_id", type=int, help="Only the task of this id.")
@click.option(
    "--metric", "patterns", multiple=True, help="Only metrics of this name; shell patterns and the last part of a name will do."
)
@click.option(
    "--plot", "plot_file", type=_FILE, help="Plot each metric over the rounds, all runs in one figure (.png, .svg, .pdf)."
)
@click.option(
    "--over",
    type=click.Choice(list(OVER)),
    help="Plot over what training transferred, both ways, instead of over rounds: bytes of files, or after gzip (wire).",
)
@click.option("--csv", "csv_file", type=_FILE, help="Write one line per run and round.")
@click.option(
    "--logdir",
    type=click.Path(file_okay=False, path_type=pathlib.Path),
    help="Write TensorBoard summaries, with hyperparameters, a directory per run; those of a former export are replaced.",
)
@options.json_option
@network_options
def command(
    sources: tuple[str, ...],
    population_name: Optional[str],
    task_id: Optional[int],
    patterns: tuple[str, ...],
    plot_file: Optional[pathlib.Path],
    over: Optional[str],
    csv_file: Optional[pathlib.Path],
    logdir: Optional[pathlib.Path],
    json_mode: bool,
    network: Network,
) -> None:
    """Show the metrics that a task server or a simulation wrote.

    RUN_OR_BUCKET is a run directory of `odp-task simulate` or the server's model bucket, gs://BUCKET; several are compared, and NAME=RUN
    names one in tables and legends.
    What a simulation adds to the task's metrics (communication/..., simulation/...) is tabulated and plotted when --metric
    asks for it.

    \b
      odp-task metrics runs/digits --plot digits.png
      odp-task metrics runs/plain runs/private --metric loss --metric 'eval/*'
      odp-task metrics runs/plain runs/compressed --metric 'eval/*accuracy' --plot bytes.png --over wire
      odp-task metrics gs://fcp-prod-m-0 --population_name digits --csv digits.csv
    """
    if csv_file is not None and csv_file.suffix.lower() not in ("", ".csv", ".txt"):
        raise errors.UsageError(f"{csv_file} is no name of a CSV file.", next_step="Name one that ends in .csv; --plot draws figures.")
    with output.stage("reading the metrics"):
        everything = read_runs(sources, TaskFilter(population_name, task_id), network)
    if over is not None:
        _require_communication(everything, over, plot_file)
    runs = select(everything, patterns) if patterns else everything
    shown = runs if patterns else [run.published() for run in runs]
    if plot_file is not None:
        with output.status("drawing"):
            left_out = plot_runs(_with_positions(shown, everything, over), plot_file, over)
        output.note(f"Wrote {plot_file}." + (f" Left out, as they are 0: {', '.join(map(short_name, left_out))}." if left_out else ""))
    if csv_file is not None:
        write_csv(runs, csv_file)
        output.note(f"Wrote {csv_file}.")
    if logdir is not None:
        facts = {name: read_facts(source) for name, source in groups(sources).items()}
        write_summaries(runs, logdir, {name: known.hyperparameters() for name, known in facts.items() if known is not None})
        output.note(f"Wrote {logdir}. Look at it with: tensorboard --logdir {logdir}")
    if json_mode:
        output.print_json({"runs": [{"run": run.name, "rounds": run.rounds} for run in runs]})
        return
    output.show("\n\n".join(format_run(run) for run in shown))


def _require_communication(runs: Sequence[Run], over: str, plot_file: Optional[pathlib.Path]) -> None:
    if plot_file is None:
        raise errors.UsageError("--over says over what to plot; there is no --plot.")
    silent = [run.name for run in runs if OVER[over][0] not in run.metric_names()]
    if silent:
        raise errors.UsageError(
            f"{', '.join(silent)}: no round says what had been transferred ({OVER[over][0]}).",
            next_step="`odp-task simulate` with --engine local writes it.",
        )


def _with_positions(shown: Sequence[Run], everything: Sequence[Run], over: Optional[str]) -> Sequence[Run]:
    """The runs as they are shown, with what they are plotted over."""
    if over is None:
        return shown
    name = OVER[over][0]
    return [
        dataclasses.replace(
            run, rounds={number: {**values, **whole.only([name]).rounds[number]} for number, values in run.rounds.items()}
        )
        for run, whole in zip(shown, everything)
    ]
