"""The differential privacy of a config: what accounting and aggregators start from (spec: privacy.md, sections 1 and 4)."""

from __future__ import annotations

import math
from typing import Optional

from odp_taskbuilder.config import paths, rules, spec

# Under EVAL_ONLY the clip only fills a server state that nobody reads.
_UNREAD_CLIP = 0.1


def privacy_spec(
    fields: rules.FieldReader,
    options: spec.ResolveOptions,
    mode: Optional[spec.TaskMode],
    *,
    num_rounds: int,
    minimum_separation: int,
    training: Optional[spec.RoundsSpec],
) -> spec.PrivacySpec:
    """Everything about privacy. The accounting itself, and with it the check of the budget, is in privacy/."""
    aggregator = fields.enum(f"{paths.PRIVACY}.type", spec.DpAggregator, default=spec.DpAggregator.FIXED_GAUSSIAN)
    # Under EVAL_ONLY a config may, but need not, say how training ran.
    goal_path = f"{paths.RUNTIME if training or fields.raw(f'{paths.RUNTIME}.report_goal') else paths.EVALUATION}.report_goal"
    privacy = spec.PrivacySpec(
        aggregator=aggregator,
        skip_aggregator=options.skip_dp_aggregator,
        skip_check=options.skip_dp_check,
        noise_multiplier=_noise_multiplier(fields),
        clip_norm=_clip_norm(fields, aggregator, is_read=mode is None or mode.trains),
        target_epsilon=fields.number(
            f"{paths.RELEASE}.dp_target_epsilon",
            lambda x: 0 <= x <= 10,
            "dp_target_epsilon must be a float number between 0 and 10.000000",
            default=10.0,
        ),
        delta=_delta(fields, options),
        rounds=num_rounds,
        report_goal=max(1, fields.raw(goal_path)),
        minimum_separation=minimum_separation,
        population=options.population,
        rounds_per_day=options.rounds_per_day,
    )
    if not privacy.skip_aggregator and fields.raw(goal_path) > 0:
        _check_aggregator_limits(fields, privacy, goal_path)
    return privacy


def _noise_multiplier(fields: rules.FieldReader) -> Optional[float]:
    path = f"{paths.PRIVACY}.noise_multiplier"
    noise_multiplier = fields.nonnegative(path)
    if noise_multiplier == 0:
        if fields.is_given(path):
            fields.notices.append(f"{path} 0 counts as unset: the noise is calibrated to the target epsilon.")
        fields.origins[path] = spec.Origin.DERIVED
        return None
    return noise_multiplier


def _delta(fields: rules.FieldReader, options: spec.ResolveOptions) -> float:
    path = f"{paths.RELEASE}.dp_delta"
    bound = 1 / options.population
    delta = fields.number(
        path,
        lambda x: 0 <= x <= bound,
        f"dp_delta must be a float number between 0 and {bound:.6E}",
        default=min(bound, 1 / spec.ASSUMED_POPULATION),
        suggestion=f"Delta must not exceed 1 / population: set it to {_round_down(bound)}, or leave the field out.",
    )
    if fields.raw(path) == 0 and options.population > spec.ASSUMED_POPULATION:
        fields.origins[path] = spec.Origin.OPTION
    return delta


def _round_down(bound: float) -> str:
    """A bound with two digits, not above it.

    >>> _round_down(1 / 3_000_000), _round_down(1 / 1000)
    ('3.3e-7', '1e-3')
    """
    exponent = math.floor(math.log10(bound))
    tenths = math.floor(bound * 10.0 ** (1 - exponent) * (1 + 1e-12))
    return f"{tenths / 10:g}e{exponent}"


def _clip_norm(fields: rules.FieldReader, aggregator: spec.DpAggregator, *, is_read: bool) -> float:
    """The clip that applies. Fixed aggregators need one, adaptive ones start from 0.1 unless told otherwise."""
    fixed, initial = f"{paths.PRIVACY}.clip_norm", f"{paths.PRIVACY}.init_clip_norm"
    if aggregator.is_adaptive:
        fields.check_finite([fixed])
        rule = "init_clip_norm must be a positive float or be left empty when using ADAPTIVE_GAUSSIAN or ADAPTIVE_TREE DP Aggregator."
        return fields.number(initial, lambda x: x >= 0, rule, default=0.1)
    fields.check_finite([initial])
    rule = "clip_norm is required and must be a positive float when using FIXED_GAUSSIAN or TREE_AGGREGATION DP Aggregator."
    return fields.number(fixed, lambda x: x > 0 or (x == 0 and not is_read), rule, default=_UNREAD_CLIP)


def _check_aggregator_limits(fields: rules.FieldReader, privacy: spec.PrivacySpec, goal_path: str) -> None:
    if not privacy.aggregator.is_tree and privacy.report_goal > privacy.population:
        rule = f"A round cannot draw more clients than the population has: report_goal must not exceed {privacy.population}."
        fields.bad_value(goal_path, privacy.report_goal, rule)
    limit = spec.adaptive_noise_limit(privacy.report_goal)
    if privacy.aggregator.is_adaptive and privacy.noise_multiplier is not None and privacy.noise_multiplier >= limit:
        rule = (
            f"With {privacy.aggregator.name} noise_multiplier must be below {limit:g}, a tenth of the report goal of {privacy.report_goal}: "
            "part of the noise goes into the estimate of the clip."
        )
        advice = f"Raise {goal_path}, lower the noise, or choose an aggregator with a fixed clip."
        fields.bad_value(f"{paths.PRIVACY}.noise_multiplier", privacy.noise_multiplier, rule, advice)
