"""`odp-task proxy`: which cheap simulation tells candidates apart as the full one does, and which candidate it puts first."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional

import click

from odp_taskbuilder import errors
from odp_taskbuilder.cli import commands, options, output
from odp_taskbuilder.proxy.space import SEEDS, Proxy, grid

if TYPE_CHECKING:
    from odp_taskbuilder.proxy.sources import Source
    from odp_taskbuilder.proxy.workshop import ProxyOptions, Workshop

_DIRECTORY = click.Path(file_okay=False, path_type=pathlib.Path)
_SHARES = ("0.1", "0.2", "0.5")


@click.group("proxy", cls=commands.CommandGroup)
def command() -> None:
    """Choose a task's model and settings by cheap simulations that rank candidates as the full one does.

    \b
      odp-task proxy select --space my_space.py:candidates --data clients/train --evaluation_data clients/test --dir tuning
      odp-task proxy search --dir tuning --vary population_share=0.1,0.2,0.5
      odp-task proxy rank --dir tuning --number 30

    docs/proxy_tasks.md leads through them.
    """


def _numbers(kind: type) -> Callable:
    def parse(ctx: click.Context, param: click.Parameter, value: Optional[str]) -> Optional[tuple]:
        if value is None:
            return None
        try:
            numbers = tuple(kind(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        if not numbers or not all(0 < number < float("inf") for number in numbers):
            raise click.BadParameter(f"expected numbers above 0 with commas between them, found {value!r}.", ctx, param)
        return numbers

    return parse


_HEADINGS = {
    "Candidates": (
        "space",
        "model_function",
        "saved_model",
        "task_config",
        "widths",
        "client_learning_rates",
        "server_learning_rates",
        "clips",
        "report_goals",
        "batch_sizes",
    ),
    "Full training": ("data", "evaluation_data", "metric", "clients_per_round", "full_rounds", "evaluation_every", "latency"),
    "Work": ("dir", "seed", "engine", "parallel_trials", "ray"),
}
_COMMON = [
    click.option("--dir", "directory", required=True, type=_DIRECTORY, help="Keep everything here; go on with what is there."),
    click.option(
        "--space",
        metavar="MODULE:FUNCTION|DIRECTORY",
        help="Where candidates come from: a function of a NumPy generator that yields them, or a directory with one directory for each.",
    ),
    click.option(
        "--model_function",
        metavar="MODULE:FUNCTION",
        help="In place of --space: makes the model for a width, whose settings are varied around --task_config.",
    ),
    click.option("--saved_model", type=_DIRECTORY, help="The same for a saved model, which has one width."),
    click.option("--task_config", type=click.Path(dir_okay=False), help="The config that is varied."),
    click.option("--widths", callback=_numbers(float), help="Widths to choose from, with commas.  [default: 0.5,1,2]"),
    click.option("--client_learning_rates", callback=_numbers(float), help="[default: 0.3, 1 and 3 times the config's]"),
    click.option("--server_learning_rates", callback=_numbers(float), help="[default: 0.5 and 1 times the config's]"),
    click.option("--clips", callback=_numbers(float), help="Of the DP aggregator.  [default: 0.3, 1 and 3 times the config's]"),
    click.option("--report_goals", callback=_numbers(int), help="[default: the config's]"),
    click.option("--batch_sizes", callback=_numbers(int), help="[default: half and all of the config's]"),
    click.option("--data", help="Data of the training clients, PATH[?OPTIONS]."),
    click.option("--evaluation_data", help="Data of the test clients.  [default: that of --data]"),
    click.option(
        "--metric", help="Evaluation metric to judge by; `-` before it: less is better.  [default: the first accuracy, else auc-roc, else -loss]"
    ),
    click.option("--clients_per_round", type=click.IntRange(min=1), help="Of the full training, at most.  [default: the report goal]"),
    click.option("--full_rounds", type=click.IntRange(min=1), help="Of the full training, at most.  [default: as each config says]"),
    click.option("--evaluation_every", type=click.IntRange(min=1), help="Rounds.  [default: a twentieth of the full training]"),
    click.option(
        "--latency",
        metavar="local|none|COMMAND",
        help="local: the client plan in this machine's interpreter; COMMAND: with {client_only_plan} {checkpoint} {examples} in it, its "
        "last line a number.  [default: local]",
    ),
    click.option("--seed", type=click.IntRange(min=0), help="Of everything random.  [default: 0]"),
    click.option("--engine", type=click.Choice(["auto", "compiled", "local"]), default="auto", show_default=True, help="As of simulate."),
    click.option("--parallel_trials", type=click.IntRange(min=1), help="Trainings at a time.  [default: the cores]"),
    click.option("--ray", "on_ray", is_flag=True, help="Train on a Ray cluster, one task per training; it must see --dir and the data."),
]


def _common(function: Callable) -> Callable:
    """Adds the options that all commands share, and calls with ProxyOptions in their place."""

    @functools.wraps(function)
    def called(**values: Any) -> None:
        from odp_taskbuilder.proxy.sources import ReadyMadeSpace
        from odp_taskbuilder.proxy.workshop import ProxyOptions

        names = {field.name for field in dataclasses.fields(ProxyOptions)} - {"source", "rounds"}
        ready_made = {field.name: values.pop(field.name) for field in dataclasses.fields(ReadyMadeSpace)}
        source = _source(values.pop("space"), ready_made)
        common = {name: values.pop(name) for name in names}
        function(ProxyOptions(source=source, rounds=values.pop("full_rounds"), **common), **values)

    for option in reversed(_COMMON):
        called = option(called)
    return called


@contextlib.contextmanager
def _at_work(common: ProxyOptions, doing: str) -> Iterator[Workshop]:
    """A workshop, while a person at a terminal sees what is going on in it."""
    from odp_taskbuilder.proxy.workshop import opened

    with output.status(doing), opened(common, output.note) as workshop:
        yield workshop


def _source(space: Optional[str], ready_made: dict[str, Any]) -> Optional[Source]:
    from odp_taskbuilder.proxy.sources import ReadyMadeSpace, check_reference, source_of

    given = [f"--{name}" for name, value in ready_made.items() if value is not None]
    if space is not None:
        if given:
            raise errors.UsageError(f"--space and {given[0]} exclude each other: a space has its own models and configs.")
        return source_of(space)
    if not given:
        return None
    if (ready_made["model_function"] is None) == (ready_made["saved_model"] is None) or ready_made["task_config"] is None:
        raise errors.UsageError(
            f"{given[0]} is of a ready-made space.", next_step="It takes --task_config and either --model_function or --saved_model."
        )
    if ready_made["model_function"] is not None:
        check_reference(ready_made["model_function"])
    paths = {name: str(pathlib.Path(ready_made[name]).resolve()) for name in ("saved_model", "task_config") if ready_made[name] is not None}
    return ReadyMadeSpace(**{**ready_made, **paths})


@command.command("variance", headings={"Variance": ("copies", "fix"), **_HEADINGS})
@_common
@click.option("--copies", type=click.IntRange(min=2), default=5, show_default=True, help="Of one candidate that trains.")
@click.option("--fix", multiple=True, type=click.Choice(SEEDS), help="A seed that is the same in all copies; may be repeated.")
@options.json_option
def variance_command(common: ProxyOptions, copies: int, fix: tuple[str, ...], json_mode: bool) -> None:
    """Train copies of one candidate: how far do scores differ by chance, and how smoothly do they grow?"""
    from odp_taskbuilder.proxy.variance import VarianceOptions, measure_variance

    with _at_work(common, "training copies of one candidate") as workshop:
        measured = measure_variance(workshop, VarianceOptions(copies, frozenset(fix)))
    if json_mode:
        output.print_json(dataclasses.asdict(measured))
        return
    scores = ", ".join(f"{score:.4g}" for score in measured.scores)
    output.show(f"{copies} copies of {measured.candidate}: {scores}\n  {measured.variance_info}\n  {measured.smoothness_info}")


@command.command("select", headings={"Selection": ("start", "remove", "final", "previous_model_selection_dir"), **_HEADINGS})
@_common
@click.option("--start", type=click.IntRange(min=1), default=30, show_default=True, help="Candidates to begin with.")
@click.option("--remove", type=click.IntRange(min=1), default=5, show_default=True, help="Candidates that go after each iteration.")
@click.option("--final", type=click.IntRange(min=1), default=10, show_default=True, help="Candidates that are trained to the end.")
@click.option("--previous_model_selection_dir", type=_DIRECTORY, help="Go on from the selection in another directory.")
@options.json_option
def select_command(
    common: ProxyOptions,
    start: int,
    remove: int,
    final: int,
    previous_model_selection_dir: Optional[pathlib.Path],
    json_mode: bool,
) -> None:
    """Train candidates that differ to their end, so that proxies can be compared with them, at the cost of about a third of all."""
    from odp_taskbuilder.proxy.selection import SelectionOptions, select

    selection_options = SelectionOptions(start, remove, final)
    with _at_work(common, "training candidates") as workshop:
        selection = select(workshop, selection_options, previous_model_selection_dir)
    if json_mode:
        output.print_json(dataclasses.asdict(selection))
        return
    lines = [f"{len(selection.references)} references, for the client runs of {selection.full_trainings:.1f} full trainings:"]
    for reference in selection.references:
        latency = "" if reference.latency is None else f"  {reference.latency:8.2f} ms"
        lines.append(f"  {reference.score:10.4f}{latency}  {reference.name}")
    if selection.failures:
        lines.append(f"{len(selection.failures)} candidates failed")
    output.show("\n".join(lines))


@command.command(
    "search",
    headings={
        "Proxies": ("proxies", "vary", "rounds", "previous_model_selection_dir", "previous_proxy_task_search_dir"),
        "Which is good enough": (
            "desired_accuracy_correlation",
            "max_p",
            "hold",
            "desired_latency_correlation",
            "desired_accuracy",
            "time_limit_hours",
            "early_stop_proxy_task_if_not_best",
            "cost",
        ),
        **_HEADINGS,
    },
)
@_common
@click.option("--proxies", metavar="MODULE:FUNCTION", help="A function that returns a list of ProxyTaskConfig(name, docker_args_map).")
@click.option(
    "--vary",
    multiple=True,
    metavar="DIMENSION=V1,V2",
    help="In place of --proxies: all combinations of the values.  [default: population_share=0.1,0.2,0.5]",
)
@click.option("--desired_accuracy_correlation", type=click.FloatRange(-1, 1), default=0.65, show_default=True, help="Kendall's tau.")
@click.option("--hold", type=click.IntRange(min=1), default=2, show_default=True, help="Evaluations in a row that must show it.")
@click.option("--max_p", type=click.FloatRange(0, 1), default=0.05, show_default=True, help="Exact p-value that each may have at most.")
@click.option("--desired_latency_correlation", type=click.FloatRange(-1, 1), help="Kendall's tau of the latencies.")
@click.option("--desired_accuracy", type=float, help="Median score at which a proxy ends, agreed or not.")
@click.option("--time_limit_hours", type=click.FloatRange(min=0, min_open=True), help="Median training time at which a proxy ends.")
@options.absl_flag("early_stop_proxy_task_if_not_best", help="End a proxy that costs more than the best one so far.")
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds that a proxy has at most.  [default: of the full training]")
@click.option("--cost", type=click.Choice(("time", "client_updates")), default="time", show_default=True, help="What is least of the best proxy.")
@click.option("--previous_model_selection_dir", type=_DIRECTORY, help="Where the full scores are, if not in --dir.")
@click.option("--previous_proxy_task_search_dir", type=_DIRECTORY, help="Go on from the search in another directory.")
@options.json_option
def search_command(
    common: ProxyOptions,
    proxies: Optional[str],
    vary: tuple[str, ...],
    previous_model_selection_dir: Optional[pathlib.Path],
    previous_proxy_task_search_dir: Optional[pathlib.Path],
    json_mode: bool,
    **values: Any,
) -> None:
    """Find the cheapest proxy that ranks the references as their full trainings do."""
    from odp_taskbuilder.proxy.search import SearchOptions, search
    from odp_taskbuilder.proxy.sources import check_reference

    search_options = SearchOptions(**values)
    variations = _variations(vary)
    if proxies is not None and vary:
        raise errors.UsageError("--proxies and --vary exclude each other.")
    if proxies is not None:
        check_reference(proxies)
    with _at_work(common, "training the references under proxies") as workshop:
        result = search(
            workshop,
            _proxies(workshop, proxies, variations),
            search_options,
            previous_selection=previous_model_selection_dir,
            previous=previous_proxy_task_search_dir,
        )
    if json_mode:
        output.print_json(dataclasses.asdict(result))
        return
    lines = []
    for found in result.proxies:
        mark = "*" if found.name == result.best else " "
        lines.append(
            f"{mark} {found.name}: {found.stopping_state}; tau {found.correlation:.3f} (p {found.p_value:.2g}) after {found.rounds} rounds, "
            f"{100 * found.cost_share:.3g} % of the client runs of a full training"
        )
    if result.best is None:
        lines.append("No proxy agrees with the full training. Try larger ones, or more rounds.")
    else:
        lines.append(f"Rank candidates under the best one with: {common.directory / 'search' / 'best_proxy_task.sh'}")
    output.show("\n".join(lines))


@command.command("rank", headings={"Ranking": ("number", "proxy", "rounds"), **_HEADINGS})
@_common
@click.option("--number", type=click.IntRange(min=1), default=30, show_default=True, help="Candidates, from the first one of the space.")
@click.option("--proxy", help="A proxy that a search ran.  [default: the best]")
@click.option("--rounds", type=click.IntRange(min=1), help="[default: those after which it agreed]")
@options.json_option
def rank_command(common: ProxyOptions, number: int, proxy: Optional[str], rounds: Optional[int], json_mode: bool) -> None:
    """Train candidates under a proxy, and show them best first."""
    from odp_taskbuilder.proxy.ranking import rank

    with _at_work(common, "training candidates under the proxy") as workshop:
        ranking = rank(workshop, number, proxy, rounds)
    if json_mode:
        output.print_json(dataclasses.asdict(ranking))
        return
    lines = [f"{len(ranking.scores)} candidates under {ranking.proxy}, {ranking.rounds} rounds:"]
    lines += [f"  {score:10.4f}  {name}" for name, score in ranking.scores.items()]
    if ranking.failures:
        lines.append(f"{len(ranking.failures)} candidates failed")
    first = next(iter(ranking.scores))
    lines.append(f"Model and config of the first: {ranking.directories[first]}")
    output.show("\n".join(lines))


def _variations(vary: tuple[str, ...]) -> dict[str, list[str]]:
    variations: dict[str, list[str]] = {}
    for text in vary:
        name, equals, values = text.partition("=")
        if not equals or not name or "" in values.split(","):
            raise errors.UsageError(f"Cannot read --vary {text!r}: expected DIMENSION=VALUE,VALUE.")
        if name in variations:
            raise errors.UsageError(f"--vary {name} is given twice.", next_step="Name all of its values at once.")
        variations[name] = values.split(",")
    return variations


def _proxies(workshop: Workshop, function: Optional[str], variations: dict[str, list[str]]) -> list[Proxy]:
    """What the options say; without any, the space's own `proxies`, if it has such a function, else shares of the population."""
    from odp_taskbuilder.proxy.sources import FunctionSpace

    if function is not None:
        return workshop.user_proxies(function)
    if variations:
        return grid(variations)
    source = workshop.source
    if isinstance(source, FunctionSpace):
        try:
            return workshop.user_proxies(source.function.rpartition(":")[0] + ":proxies")
        except errors.UsageError as error:
            if "has no function 'proxies'" not in error.message:
                raise
    return grid({"population_share": list(_SHARES)})
