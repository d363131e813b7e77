"""`odp-task privacy`: epsilon of a noise, noise for an epsilon, and curves of epsilon."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import sys
from typing import Any, Callable, Optional

import click

from odp_taskbuilder import config, errors, privacy
from odp_taskbuilder.cli import commands, options, output
from odp_taskbuilder.config.spec import ASSUMED_POPULATION, ASSUMED_ROUNDS_PER_DAY, DpAggregator, PrivacySpec
from odp_taskbuilder.privacy.assumptions import meant_for, rounding_assumption
from odp_taskbuilder.privacy.plot import plot_curve
from odp_taskbuilder.privacy.rounding import rounded_up

_DEFAULT_EPSILON = 10.0


class _FiniteFloat(click.types.FloatParamType):
    """A number; click's own float lets "nan" and "inf" pass."""

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def _spec_options(function: Callable) -> Callable:
    """The options that say what is accounted for; the function receives those that were given as `stated`."""

    @functools.wraps(function)
    def with_stated(**parameters: Any) -> Any:
        stated = {name: parameters.pop(name) for name in _SPEC_FIELDS}
        return function(stated={name: value for name, value in stated.items() if value is not None}, **parameters)

    for option in reversed(_SPEC_OPTIONS):
        with_stated = option(with_stated)
    return with_stated


_SPEC_OPTIONS = [
    click.option("--task_config", type=options.PATH_OR_URL, metavar="FILE", help="Task config to start from; the options below replace its values."),
    click.option(
        "--aggregator",
        type=click.Choice([aggregator.value for aggregator in DpAggregator]),
        help="DP aggregator. [default: FIXED_GAUSSIAN]",
    ),
    click.option("--report_goal", type=int, help="Clients per round."),
    click.option("--rounds", type=int, help="Training rounds."),
    click.option("--noise_multiplier", type=_FiniteFloat(), help="Standard deviation of the noise in units of the clip."),
    click.option("--epsilon", "target_epsilon", type=_FiniteFloat(), help=f"Target epsilon. [default: {_DEFAULT_EPSILON:g}]"),
    click.option(
        "--delta",
        type=_FiniteFloat(),
        help="Delta, at most 1 / population. [default: 1 / 3,000,000, or 1 / population where that is larger]",
    ),
    click.option(
        "--minimum_separation", type=int, help="Rounds from one contribution of a client to its next (trees). [default: 0]"
    ),
    click.option("--population", type=click.IntRange(min=1), help="Real number of devices, instead of the assumed 3,000,000."),
    click.option(
        "--rounds_per_day",
        type=_FiniteFloat(),
        help="Pace of the rounds, at least: phones forget after 7 days that they took part (trees). "
        f"[default: {ASSUMED_ROUNDS_PER_DAY:g}]",
    ),
]
_HEADINGS = {
    "Task": ("task_config", "aggregator", "report_goal", "rounds", "noise_multiplier", "minimum_separation", "compress_updates"),
    "Guarantee": ("epsilon", "delta", "reference"),
    "Fleet": ("population", "rounds_per_day"),
}
_SPEC_FIELDS = (
    "task_config",
    "aggregator",
    "report_goal",
    "rounds",
    "noise_multiplier",
    "target_epsilon",
    "delta",
    "minimum_separation",
    "population",
    "rounds_per_day",
)


def _privacy_spec(stated: dict[str, Any]) -> PrivacySpec:
    """The spec of the config, if there is one, with the stated options in it."""
    stated = dict(stated)
    task_config = stated.pop("task_config", None)
    if "aggregator" in stated:
        stated["aggregator"] = DpAggregator(stated["aggregator"])
    # What is asked for is a number: it is shown whether or not it meets the target.
    stated.update(skip_aggregator=False, skip_check=True)
    if task_config is not None:
        task = config.resolve(
            config.load_config(task_config), config.ResolveOptions(population=stated.get("population", ASSUMED_POPULATION))
        )
        if not task.mode.trains:
            raise errors.UsageError(f"{task_config} makes an evaluation task only; privacy is accounted for in training.")
        return _checked(dataclasses.replace(task.privacy, **stated))
    for name in ("report_goal", "rounds"):
        if name not in stated:
            raise errors.UsageError(f"--{name} is missing: state it, or a --task_config that has it.")
    stated.setdefault("population", ASSUMED_POPULATION)
    defaults = {
        "aggregator": DpAggregator.FIXED_GAUSSIAN,
        "noise_multiplier": None,
        "clip_norm": 1.0,  # Epsilon does not depend on it.
        "target_epsilon": _DEFAULT_EPSILON,
        "delta": 1 / max(ASSUMED_POPULATION, stated["population"]),
        "minimum_separation": 0,
    }
    return _checked(PrivacySpec(**{**defaults, **stated}))


def _checked(spec: PrivacySpec) -> PrivacySpec:
    problems = privacy.problems_of(spec)
    if problems:
        raise errors.UsageError(
            "\n".join(" ".join(filter(None, [problem.message, problem.suggestion])) for problem in problems)
        )
    return spec


@click.group(cls=commands.CommandGroup)
def command() -> None:
    """Account for the differential privacy of a training task.

    Every epsilon is an upper bound.
    """


@command.command("epsilon", headings=_HEADINGS)
@_spec_options
@click.option(
    "--reference",
    is_flag=True,
    help="Also compute the figure that the existing task builder reports, on its grid: seconds to half a minute.",
)
@options.compress_updates
@options.json_option
def epsilon_command(stated: dict[str, Any], reference: bool, compress_updates: Optional[int], json_mode: bool) -> Optional[int]:
    """The epsilon that a noise multiplier spends.

    The exit code is 5 when it is above the target.

    \b
      odp-task privacy epsilon --task_config task_config.pbtxt
      odp-task privacy epsilon --report_goal 2000 --rounds 1000 --noise_multiplier 0.5
      odp-task privacy epsilon --report_goal 2000 --rounds 1000 --noise_multiplier 0.5 --population 100000
    """
    spec = _privacy_spec(stated)
    if spec.noise_multiplier is None:
        raise errors.UsageError(
            "--noise_multiplier is missing, and no config states one. `odp-task privacy noise` computes the noise."
        )
    if reference and spec.aggregator.is_tree:
        raise errors.UsageError(
            "--reference is for the Gaussian aggregators; the trees are accounted for in the existing task builder's way."
        )
    with output.stage("accounting"):
        budget = privacy.privacy_budget(spec)
    document = _document(budget, compress_updates)
    if reference:
        mechanism: Any = privacy.mechanism_of(spec)  # SampledGaussian: no tree gets here.
        with output.stage("computing the reference's figure"):
            of_reference = mechanism.reference_epsilon(spec.noise_multiplier)
        document["reference_epsilon"] = float(f"{of_reference:.{mechanism.resolved_digits}g}")
    _print(document, json_mode)
    return errors.EXIT_OK if document["target_met"] else errors.PrivacyBudgetError.exit_code


@command.command("noise", headings=_HEADINGS)
@_spec_options
@options.compress_updates
@options.json_option
def noise_command(stated: dict[str, Any], compress_updates: Optional[int], json_mode: bool) -> None:
    """The smallest noise multiplier that meets a target epsilon.

    \b
      odp-task privacy noise --report_goal 2000 --rounds 1000 --epsilon 6
      odp-task privacy noise --task_config task_config.pbtxt --epsilon 2
    """
    if "noise_multiplier" in stated:
        raise errors.UsageError("--noise_multiplier is what this command computes. `odp-task privacy epsilon` takes one.")
    spec = dataclasses.replace(_privacy_spec(stated), noise_multiplier=None)
    with output.stage("calibrating the noise"):
        budget = privacy.privacy_budget(spec)
    _print(_document(budget, compress_updates), json_mode)


@command.command("curve", headings={"Curve": ("over", "from", "to", "steps", "output"), **_HEADINGS})
@click.option("--over", required=True, type=click.Choice([v.name.lower() for v in privacy.CurveVariable]), help="What varies.")
@click.option("--from", "start", required=True, type=_FiniteFloat(), help="Its first value.")
@click.option("--to", "stop", required=True, type=_FiniteFloat(), help="Its last value.")
@click.option("--steps", type=click.IntRange(2, 1000), default=20, show_default=True, help="Number of values, in even ratios.")
@_spec_options
@click.option(
    "--output",
    "figure",
    type=click.Path(dir_okay=False, path_type=pathlib.Path),
    help="Draw the curve (.png, .svg, .pdf).",
)
@options.json_option
def curve_command(
    over: str, start: float, stop: float, steps: int, stated: dict[str, Any], figure: Optional[pathlib.Path], json_mode: bool
) -> None:
    """Epsilon over rounds, noise or report goal.

    Where no noise multiplier is stated, it is calibrated to the target at the stated rounds and report goal, or else at the curve's end.

    \b
      odp-task privacy curve --over rounds --from 10 --to 10000 --report_goal 2000 --noise_multiplier 0.5 --output curve.png
      odp-task privacy curve --over noise --from 0.2 --to 2 --task_config task_config.pbtxt
    """
    variable = privacy.CurveVariable[over.upper()]
    if variable.is_count and "task_config" not in stated:
        stated.setdefault(variable.value, round(stop))
    show = (lambda text: None) if json_mode else output.show
    with output.status("calibrating the noise"):
        curve = privacy.empty_curve(_privacy_spec(stated), variable, start, stop)
    spec = curve.spec
    show(f"{curve.setting()}, delta {spec.delta:.7g}, {meant_for(spec)}, target epsilon {spec.target_epsilon:g}")
    show(f"{variable.value:>16}  epsilon")
    values = privacy.curve_values(variable, start, stop, steps)
    with output.status("accounting") as tell:
        for number, value in enumerate(values, 1):
            tell(f"accounting: {number} of {len(values)}")
            point = privacy.curve_point(curve, value)
            curve = dataclasses.replace(curve, points=(*curve.points, point))
            mark = "  above the target" if point.epsilon > spec.target_epsilon else ""
            # As it comes: a point may take seconds.
            show(f"{point.value:>16.6g}  {rounded_up(point.epsilon, digits=5):<10.5g}{mark}".rstrip())
            sys.stdout.flush()
    if figure is not None:
        plot_curve(curve, figure)
        output.note(f"Wrote {figure}.")
    if json_mode:
        output.print_json(_curve_document(curve))
        return
    for sentence in curve.assumptions:
        output.show(f"- {sentence}")


def _document(budget: privacy.PrivacyBudget, compress_updates: Optional[int]) -> dict[str, Any]:
    document = dataclasses.asdict(budget)
    del document["clip_norm"]
    document["aggregator"] = budget.aggregator.value
    if compress_updates is not None:
        document["assumptions"] = (*document["assumptions"], rounding_assumption(compress_updates))
    document["target_met"] = budget.epsilon <= budget.target_epsilon
    return document


def _curve_document(curve: privacy.PrivacyCurve) -> dict[str, Any]:
    spec = curve.spec
    fixed = {
        name: getattr(spec, name) for name in ("target_epsilon", "delta", "population", "minimum_separation", "rounds_per_day")
    }
    varying = {
        variable.value: getattr(spec, variable.value) for variable in privacy.CurveVariable if variable is not curve.variable
    }
    points = [{curve.variable.value: point.value, "epsilon": point.epsilon} for point in curve.points]
    return {
        "aggregator": spec.aggregator.value,
        **fixed,
        **varying,
        "over": curve.variable.value,
        "points": points,
        "assumptions": list(curve.assumptions),
    }


def _print(document: dict[str, Any], json_mode: bool) -> None:
    if json_mode:
        output.print_json(document)
        return
    output.show(f"epsilon           {rounded_up(document['epsilon']):.7g} at delta {document['delta']:.7g}, {document['meant_for']}")
    if "reference_epsilon" in document:
        output.show(f"reference epsilon {document['reference_epsilon']!r}")
    output.show(f"noise multiplier  {document['noise_multiplier']!r}" + (" (calibrated)" if document["calibrated"] else ""))
    output.show(
        f"aggregator        {document['aggregator']}, {document['rounds']:,} rounds of {document['report_goal']:,} clients"
    )
    output.show(f"accountant        {document['accountant']}")
    for sentence in document["assumptions"]:
        output.show(f"- {sentence}")
