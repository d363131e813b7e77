"""The privacy budget of a task: what its noise spends, or the noise that its target needs."""

from __future__ import annotations

import dataclasses
import math
from typing import Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.config import paths
from odp_taskbuilder.config.spec import (
    MAX_ROUNDS_PER_DAY,
    PARTICIPATION_MEMORY_DAYS,
    DpAggregator,
    PrivacySpec,
    TaskSpec,
    adaptive_noise_limit,
)
from odp_taskbuilder.privacy.assumptions import assumptions, assumptions_without_aggregator, meant_for
from odp_taskbuilder.privacy.calibration import LARGEST_NOISE, Calibration, UnreachableTargetError
from odp_taskbuilder.privacy.gaussian import SampledGaussian, smallest_delta
from odp_taskbuilder.privacy.rounding import rounded_up, stated_epsilon
from odp_taskbuilder.privacy.tree import TreeAggregation

# Where the values of a PrivacySpec stand in a task config.
_CONFIG_PATHS = {
    "noise_multiplier": f"{paths.PRIVACY}.noise_multiplier",
    "target_epsilon": f"{paths.RELEASE}.dp_target_epsilon",
    "delta": f"{paths.RELEASE}.dp_delta",
    "rounds": f"{paths.RELEASE}.num_max_training_rounds",
    "report_goal": f"{paths.RUNTIME}.report_goal",
    "minimum_separation": f"{paths.SEPARATION}.minimum_separation",
}
_FIXED_SIBLING = {
    DpAggregator.ADAPTIVE_GAUSSIAN: DpAggregator.FIXED_GAUSSIAN,
    DpAggregator.ADAPTIVE_TREE: DpAggregator.TREE_AGGREGATION,
}
_NOT_PRIVATE_ENOUGH = "[Invalid task config]: differential_privacy setup is not private enough to pass DP accounting check."


@dataclasses.dataclass(frozen=True)
class PrivacyBudget:
    """What the training rounds of one task spend.

    Attributes:
      aggregator: None when no DP aggregator is used.
      noise_multiplier: standard deviation of the noise in units of the clip; 0 without an aggregator.
      epsilon: an upper bound, rounded up to the digits that every processor agrees on, but not beyond a target that the bound itself
        meets; infinite without an aggregator.
      delta, target_epsilon, clip_norm, rounds, report_goal, population: as in the PrivacySpec.
      sampling_rate: report_goal / population; None for the tree aggregators, whose accounting does not use it.
      contributions_per_client: k, the number of rounds that the accounting lets one client take part in. For the Gaussian aggregators the
        number of rounds: there sampling bounds the loss.
      rounds_per_day: the pace that this k assumes; None for the Gaussian aggregators, whose accounting does not use it.
      calibrated: the noise was chosen to meet the target, not configured.
      meant_for: the population that epsilon holds for, in words to stand beside it; empty without an aggregator.
      accountant: the method, and the neighbouring relation that epsilon is about.
      assumptions: what the number rests on and leaves out, one sentence each.
    """

    aggregator: Optional[DpAggregator]
    noise_multiplier: float
    epsilon: float
    delta: float
    target_epsilon: float
    clip_norm: float
    rounds: int
    report_goal: int
    population: int
    sampling_rate: Optional[float]
    contributions_per_client: int
    rounds_per_day: Optional[float]
    calibrated: bool
    meant_for: str
    accountant: str
    assumptions: tuple[str, ...]


def budget_of(spec: TaskSpec) -> PrivacyBudget:
    """The privacy budget of a config's tasks. Raises PrivacyBudgetError, ConfigError."""
    return privacy_budget(accounted(spec))


def cannot_fail(spec: TaskSpec) -> bool:
    """Whether a bound that is quickly found, in 0.2 s, shows that `budget_of` takes long and raises nothing.

    Raises:
      ConfigError: a value is out of range.
    """
    privacy = accounted(spec)
    if privacy.skip_aggregator or privacy.aggregator.is_tree:
        return False
    mechanism = mechanism_of(privacy)
    noise = privacy.noise_multiplier
    if noise is None:
        # Whether an adaptive clip can adapt, calibration has to tell first.
        return not privacy.aggregator.is_adaptive and mechanism.quick_epsilon(LARGEST_NOISE) < privacy.target_epsilon / 2
    if privacy.aggregator.is_adaptive and not _clip_can_adapt(noise, privacy.report_goal):
        return False
    return privacy.skip_check or mechanism.quick_epsilon(noise) <= privacy.target_epsilon


def accounted(spec: TaskSpec) -> PrivacySpec:
    """What of a config its budget is computed from."""
    # Evaluation adds no noise and spends nothing that could be accounted: its state takes any noise.
    return spec.privacy if spec.mode.trains else dataclasses.replace(spec.privacy, skip_aggregator=True)


def privacy_budget(spec: PrivacySpec) -> PrivacyBudget:
    """Accounts for the configured noise, or calibrates it when the spec has none.

    Takes 0.1 to 5 s for the Gaussian aggregators, milliseconds for the trees.

    Raises:
      PrivacyBudgetError: the configured noise spends more than the target and the check is not skipped.
      ConfigError: a value is out of range, no noise meets the target, or an adaptive clip is impossible with so few clients per round.
    """
    if spec.skip_aggregator:
        return _budget(spec, Calibration(0.0, math.inf), "none", assumptions_without_aggregator())
    mechanism = mechanism_of(spec)
    if spec.noise_multiplier is None:
        found = smallest_noise(spec)
        _check_clip_can_adapt(spec, found.noise_multiplier)
    else:
        _check_clip_can_adapt(spec, spec.noise_multiplier)
        found = Calibration(spec.noise_multiplier, mechanism.epsilon(spec.noise_multiplier))
        if found.epsilon > spec.target_epsilon and not spec.skip_check:
            raise _not_private_enough(spec, found.noise_multiplier, stated_epsilon(found.epsilon, mechanism.digits))
    stated = found._replace(epsilon=stated_epsilon(found.epsilon, mechanism.digits, spec.target_epsilon))
    sentences = assumptions(spec, stated.noise_multiplier, stated.epsilon, calibrated=spec.noise_multiplier is None)
    return _budget(spec, stated, mechanism.accountant, sentences)


def mechanism_of(spec: PrivacySpec) -> Union[SampledGaussian, TreeAggregation]:
    """The mechanism that a spec describes, to be asked for the epsilon of a noise or the noise for an epsilon.

    Raises:
      ConfigError: a value is out of range.
    """
    problems = problems_of(spec)
    if problems:
        raise errors.ConfigError(problems)
    if spec.aggregator.is_tree:
        return TreeAggregation(spec.rounds, spec.max_contributions, spec.delta)
    return SampledGaussian(spec.report_goal / spec.population, spec.rounds, spec.delta)


def smallest_noise(spec: PrivacySpec) -> Calibration:
    """The smallest noise multiplier that meets the spec's target, and the epsilon that it spends.

    Raises:
      ConfigError: a value is out of range, or no noise meets the target.
    """
    mechanism = mechanism_of(spec)
    try:
        return mechanism.smallest_noise(spec.target_epsilon)
    except UnreachableTargetError as error:
        remedy = "State a larger epsilon or a larger delta."
        if spec.aggregator.is_tree and spec.max_contributions > 1:
            remedy = f"One client can take part {spec.max_contributions} times: {_fewer_contributions(spec)}."
        raise _config_error("target_epsilon", f"{error} at delta {spec.delta!r} over {spec.rounds} rounds.", remedy) from None


def _budget(spec: PrivacySpec, found: Calibration, accountant: str, sentences: tuple[str, ...]) -> PrivacyBudget:
    is_tree = spec.aggregator.is_tree
    return PrivacyBudget(
        aggregator=None if spec.skip_aggregator else spec.aggregator,
        noise_multiplier=found.noise_multiplier,
        epsilon=found.epsilon,
        delta=spec.delta,
        target_epsilon=spec.target_epsilon,
        clip_norm=spec.clip_norm,
        rounds=spec.rounds,
        report_goal=spec.report_goal,
        population=spec.population,
        sampling_rate=None if is_tree else spec.report_goal / spec.population,
        contributions_per_client=spec.max_contributions if is_tree else spec.rounds,
        rounds_per_day=spec.rounds_per_day if is_tree and not spec.skip_aggregator else None,
        calibrated=spec.noise_multiplier is None and not spec.skip_aggregator,
        meant_for="" if spec.skip_aggregator else meant_for(spec),
        accountant=accountant,
        assumptions=sentences,
    )


def _fewer_contributions(spec: PrivacySpec) -> str:
    if spec.remembered_rounds >= spec.rounds:
        return f"state minimum_separation {spec.rounds} (the number of rounds) or more"
    memory = f"phones forget after {PARTICIPATION_MEMORY_DAYS} days, {spec.remembered_rounds} rounds at {spec.rounds_per_day:g} a day"
    if spec.minimum_separation < spec.remembered_rounds:
        return f"state minimum_separation {spec.remembered_rounds} or more ({memory}), or fewer rounds"
    return f"{memory}; state fewer rounds, or, if rounds come faster, their pace with --rounds_per_day"


def _not_private_enough(spec: PrivacySpec, noise_multiplier: float, epsilon: float) -> errors.PrivacyBudgetError:
    noise = smallest_noise(spec).noise_multiplier
    return errors.PrivacyBudgetError(
        f"{_NOT_PRIVATE_ENOUGH} noise_multiplier {noise_multiplier:.7g} spends epsilon {epsilon:.7g} {meant_for(spec)}; the limit "
        f"is dp_target_epsilon {spec.target_epsilon:.7g}, at delta {spec.delta:.7g}.",
        next_step=f"State noise_multiplier {rounded_up(noise, digits=4):g} or more, or leave it out to have it calibrated.",
    )


def _check_clip_can_adapt(spec: PrivacySpec, noise_multiplier: float) -> None:
    """Refuses an adaptive clip that TFF would refuse, with the report goal that it would take."""
    if not spec.aggregator.is_adaptive or _clip_can_adapt(noise_multiplier, spec.report_goal):
        return
    enough, noise = spec, noise_multiplier
    while not _clip_can_adapt(noise, enough.report_goal):
        enough = dataclasses.replace(enough, report_goal=math.floor(10 * noise) + 1)
        if spec.noise_multiplier is None and not spec.aggregator.is_tree:  # More clients per round need more noise.
            noise = smallest_noise(enough).noise_multiplier
    how = "calibrated" if spec.noise_multiplier is None else "configured"
    raise _config_error(
        "noise_multiplier",
        f"{spec.aggregator.value} needs noise_multiplier < 0.1 * report_goal, which is {adaptive_noise_limit(spec.report_goal):.7g} with report_goal "
        f"{spec.report_goal}; the {how} noise is {noise_multiplier:.7g}.",
        f"State report_goal {enough.report_goal} or more, or use {_FIXED_SIBLING[spec.aggregator].value}, which has no such limit.",
    )


def _clip_can_adapt(noise_multiplier: float, report_goal: int) -> bool:
    return noise_multiplier < adaptive_noise_limit(report_goal)


def problems_of(spec: PrivacySpec) -> list[errors.Problem]:
    """One problem for every value of a spec that accounting cannot use; none for most specs that config.resolve makes."""
    problems = []

    def require(holds: bool, name: str, rule: str, suggestion: Optional[str] = None) -> None:
        if not holds:
            message = f"{name} must be {rule}, found {getattr(spec, name)!r}."
            problems.append(errors.Problem(message, path=_CONFIG_PATHS.get(name, name), suggestion=suggestion))

    # NaN fails every comparison, and so every requirement.
    noise = spec.noise_multiplier
    require(noise is None or 1e-30 <= noise <= 1e30, "noise_multiplier", "between 1e-30 and 1e30, or unset to calibrate it")
    require(0 < spec.target_epsilon < math.inf, "target_epsilon", "a positive number")
    require(1 <= spec.rounds < 2**63, "rounds", "at least 1", "Without rounds nothing is trained, and nothing to account for.")
    require(1 <= spec.report_goal < 2**63, "report_goal", "at least 1")
    require(0 <= spec.minimum_separation < 2**63, "minimum_separation", "at least 0")
    require(0 < spec.rounds_per_day <= MAX_ROUNDS_PER_DAY, "rounds_per_day", f"above 0 and at most {MAX_ROUNDS_PER_DAY:g}")
    require(1 <= spec.population < 2**63, "population", "at least 1")
    require(1e-14 <= spec.delta < 1, "delta", "between 1e-14, below which accounting in floating point does not resolve, and 1")
    if not problems:
        resolved = 0.0 if spec.aggregator.is_tree else smallest_delta(spec.rounds)
        require(
            spec.delta >= resolved,
            "delta",
            f"at least {resolved:.2g}: over {spec.rounds:,} rounds, accounting in floating point does not resolve a smaller one",
        )
        largest_delta = 1 / spec.population
        require(
            spec.delta <= largest_delta,
            "delta",
            f"at most 1 / population, which is {largest_delta:.7g}",
            f"If the real population is {math.floor(1 / spec.delta):,} devices or fewer, state it with --population; else lower delta.",
        )
        require(
            spec.aggregator.is_tree or spec.report_goal <= spec.population,
            "report_goal",
            f"at most the population, which is {spec.population:,}",
            "If the real population is larger, state it with --population; else lower the report goal.",
        )
    return problems


def _config_error(name: str, message: str, suggestion: str) -> errors.ConfigError:
    return errors.ConfigError([errors.Problem(message, path=_CONFIG_PATHS[name], suggestion=suggestion)])
