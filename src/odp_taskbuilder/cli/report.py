"""`odp-task report`: a page that compares runs."""

from __future__ import annotations

import pathlib

import click

from odp_taskbuilder.cli import commands, options, output
from odp_taskbuilder.cli.network_options import network_options
from odp_taskbuilder.metrics.reading import TaskFilter, groups, read_runs
from odp_taskbuilder.metrics.report_page import require_page_name, subjects, write_page
from odp_taskbuilder.metrics.run import select, short_name
from odp_taskbuilder.metrics.run_facts import read_facts
from odp_taskbuilder.transport.deadline import Network


@commands.command()
@click.argument("sources", metavar="RUN_OR_BUCKET...", type=options.PATH_OR_URL, nargs=-1, required=True)
@click.option(
    "--output",
    "page",
    type=click.Path(dir_okay=False, path_type=pathlib.Path),
    default="report.html",
    show_default=True,
    help="The page, one file.",
)
@click.option(
    "--metric", "patterns", multiple=True, help="Plot only metrics of this name; shell patterns and the last part of a name will do."
)
@network_options
def command(sources: tuple[str, ...], page: pathlib.Path, patterns: tuple[str, ...], network: Network) -> None:
    """Write a page that compares runs: settings, privacy, ops, bytes, rounds and plots.

    RUN_OR_BUCKET is as in `odp-task metrics`; NAME=RUN names one. The page stands for itself: it loads nothing, runs nothing, and fits
    screens of any width.

    \b
      odp-task report runs/digits
      odp-task report plain=runs/plain private=runs/digits --output digits.html
    """
    require_page_name(page)
    with output.stage("reading the metrics"):
        everything = read_runs(sources, TaskFilter(), network)
        places = groups(sources)
        facts = {name: read_facts(source) for name, source in places.items()}
    shown = select(everything, patterns) if patterns else [run.published() for run in everything]
    with output.status("drawing"):
        left_out = write_page(subjects(everything, places, facts), shown, page)
    output.note(f"Wrote {page}." + (f" No plot, as they are 0: {', '.join(map(short_name, left_out))}." if left_out else ""))
