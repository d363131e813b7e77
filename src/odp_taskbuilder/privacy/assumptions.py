"""What an epsilon rests on, in sentences for the person who relies on it."""

from __future__ import annotations

from odp_taskbuilder.config.spec import (
    ASSUMED_POPULATION,
    ASSUMED_ROUNDS_PER_DAY,
    PARTICIPATION_MEMORY_DAYS,
    SMALL_ROUND,
    PrivacySpec,
    adaptive_noise_inflation,
)
from odp_taskbuilder.privacy.rounding import rounded_up

_OVER_SELECTION = "The sampling rate counts {goal}; over-selected clients, if they are aggregated, are not counted."
_TREE = (
    "Neither sampling nor the population lowers this epsilon: it holds whichever clients take part.",
    "Server checkpoints, the initial one included, hold the seeds of the tree noise: epsilon holds against readers of models, not "
    "against readers of checkpoints.",
)


def assumptions_without_aggregator() -> tuple[str, ...]:
    return (
        "No differential privacy was applied: the DP aggregator is skipped, updates are neither clipped nor noised, and epsilon is infinite.",
        "Models, training metrics and evaluation metrics may reveal any single client's data.",
    )


def assumptions(spec: PrivacySpec, noise_multiplier: float, epsilon: float, calibrated: bool) -> tuple[str, ...]:
    """The sentences that belong beside an epsilon: what it assumes, what it leaves out, and how it compares with the target."""
    sentences = [_comparison(spec, epsilon, calibrated)]
    sentences += _tree(spec) if spec.aggregator.is_tree else _sampling(spec)
    if spec.aggregator.is_adaptive:
        sentences.append(_adaptive(spec, noise_multiplier))
    sentences.append(_metrics(spec))
    return tuple(sentences)


def meant_for(spec: PrivacySpec) -> str:
    """The population that an epsilon of this spec holds for, in the words that stand beside the number."""
    if spec.aggregator.is_tree:
        return "whatever the population"
    return f"for {'an assumed' if spec.population == ASSUMED_POPULATION else 'a stated'} population of {spec.population:,} devices"


def curve_assumptions(spec: PrivacySpec) -> tuple[str, ...]:
    """The sentences that belong beside a curve, along which rounds, noise or report goal vary."""
    if spec.aggregator.is_tree:
        return (
            f"A client can take part rounds / {spec.effective_separation:,} times, rounded up, and is accounted for as such "
            f"(minimum_separation {spec.minimum_separation:,}).",
            *pace(spec),
            *_TREE,
        )
    return (*_sampling_with("report goal / population", spec), _OVER_SELECTION.format(goal="the report goal"))


def rounding_assumption(bits: int, coded: str = "") -> str:
    """What epsilon assumes of updates that travel in codes of so many bits; `coded` counts what does."""
    what = f"{coded} travel" if coded else "large tensors travel"
    return (
        f"Of an update, {what} in {bits} bits: the phone shortens what it rounded to at most the length of the clipped update, so that epsilon holds as "
        "it stands; rounding counts as no noise."
    )


def pace(spec: PrivacySpec) -> tuple[str, ...]:
    """What a tree's epsilon assumes of the pace of rounds; nothing where no separation is needed for it."""
    if not spec.aggregator.is_tree or spec.minimum_separation <= 1:
        return ()
    origin = "assumed" if spec.rounds_per_day == ASSUMED_ROUNDS_PER_DAY else "stated"
    return (
        f"A phone forgets its contributions after {PARTICIPATION_MEMORY_DAYS} days. Rounds are {origin} to come at a pace of "
        f"{spec.rounds_per_day:g} a day or more, so that it remembers {spec.remembered_rounds:,} of them; at a slower pace it may come back "
        "sooner, and epsilon is larger.",
    )


def _comparison(spec: PrivacySpec, epsilon: float, calibrated: bool) -> str:
    shown = f"{rounded_up(epsilon):.7g} {meant_for(spec)}"  # Of a stated epsilon, all digits; a target may have more.
    if epsilon > spec.target_epsilon:
        return f"The target is exceeded: epsilon is {shown}, the limit {spec.target_epsilon:.7g}; only skip_dp_check lets such a task pass."
    how = "the noise was calibrated to it" if calibrated else "with the configured noise"
    return f"The target is met: epsilon is at most {shown}, the limit {spec.target_epsilon:.7g}; {how}."


def _sampling(spec: PrivacySpec) -> list[str]:
    return [
        *_sampling_with(f"{spec.report_goal / spec.population:.3g}", spec),
        _OVER_SELECTION.format(goal=f"the report goal of {spec.report_goal:,} clients per round"),
    ]


def _sampling_with(probability: str, spec: PrivacySpec) -> list[str]:
    origin = "assumed" if spec.population == ASSUMED_POPULATION else "stated"
    return [
        f"Each round is assumed to draw every client independently with probability {probability} (Poisson sampling); real rounds take the "
        "devices that happen to check in.",
        f"A client may be drawn in any number of rounds: minimum_separation, here {spec.minimum_separation:,}, is neither needed nor "
        "counted.",
        f"The population is {origin} to be {spec.population:,} devices; with fewer, the same noise spends more epsilon.",
    ]


def _tree(spec: PrivacySpec) -> list[str]:
    contributions = spec.max_contributions
    separation = f"minimum_separation {spec.minimum_separation:,}"
    if contributions == 1:
        sentences = [
            f"Each client takes part at most once: {separation} keeps it from coming back within the {spec.rounds:,} rounds."
        ]
    else:
        sentences = [
            f"A client can take part {contributions:,} times in {spec.rounds:,} rounds with {separation}, and is accounted for as such "
            f"(noise / {contributions:,}){_what_would_make_it_once(spec)}."
        ]
    return [*sentences, *pace(spec), *_TREE]


def _what_would_make_it_once(spec: PrivacySpec) -> str:
    if spec.remembered_rounds < spec.rounds:
        return f": phones remember a separation of {spec.remembered_rounds:,} rounds at most"
    return f"; minimum_separation {spec.rounds:,} or more would make it once"


def _adaptive(spec: PrivacySpec, noise_multiplier: float) -> str:
    inflation = adaptive_noise_inflation(noise_multiplier, spec.report_goal)
    return (
        f"The clip adapts to a noised count of clipped updates, which shares the budget: the noise on the updates is "
        f"{inflation * noise_multiplier:.4g}, {inflation:.3g} times the noise multiplier, and each round releases its clip. The "
        "clip that is stated is the first one."
    )


def _metrics(spec: PrivacySpec) -> str:
    sentence = "Training and evaluation metrics carry no noise and are outside this accounting"
    if spec.report_goal < SMALL_ROUND:
        return f"{sentence}; with {spec.report_goal:,} clients per round they come close to releasing single clients' values."
    return f"{sentence}."
