"""TaskSpec: a task config after every default was applied and every value checked.

The stages behind `config` read these records only, never the proto: a value that is here is in range. All records are frozen;
enumerators are spelled as in the config's schema (schemas/task_builder.proto).
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping
from typing import Optional

from odp_taskbuilder.base.keyword_only import keyword_only

# The number of devices that privacy accounting assumes when nothing else is stated (spec: privacy.md, section 1).
ASSUMED_POPULATION = 3_000_000
# Phones keep the history of their participations for so many days (spec: phone.md, H2) ...
PARTICIPATION_MEMORY_DAYS = 7
# ... and the pace of rounds, which says how many rounds that is, stands in no config.
ASSUMED_ROUNDS_PER_DAY = 24.0
MAX_ROUNDS_PER_DAY = 1e9
# Metrics, which carry no noise, say much about each client of a smaller round.
SMALL_ROUND = 100


class TaskMode(enum.Enum):
    TRAINING_ONLY = "TRAINING_ONLY"
    TRAINING_AND_EVAL = "TRAINING_AND_EVAL"
    EVAL_ONLY = "EVAL_ONLY"

    @property
    def trains(self) -> bool:
        return self is not TaskMode.EVAL_ONLY

    @property
    def evaluates(self) -> bool:
        return self is not TaskMode.TRAINING_ONLY


class LearningAlgorithm(enum.Enum):
    FED_AVG = "FED_AVG"
    FED_SGD = "FED_SGD"


class OptimizerKind(enum.Enum):
    SGD = "SGD"
    ADAM = "ADAM"


class DpAggregator(enum.Enum):
    FIXED_GAUSSIAN = "FIXED_GAUSSIAN"
    TREE_AGGREGATION = "TREE_AGGREGATION"
    ADAPTIVE_GAUSSIAN = "ADAPTIVE_GAUSSIAN"
    ADAPTIVE_TREE = "ADAPTIVE_TREE"

    @property
    def is_tree(self) -> bool:
        return self in (DpAggregator.TREE_AGGREGATION, DpAggregator.ADAPTIVE_TREE)

    @property
    def is_adaptive(self) -> bool:
        return self in (DpAggregator.ADAPTIVE_GAUSSIAN, DpAggregator.ADAPTIVE_TREE)


class PlanForm(enum.Enum):
    """How the server's part of a plan is written (spec: plan.md, section 1.1)."""

    MAP_REDUCE = "MapReduce"
    DISTRIBUTE_AGGREGATE = "DistributeAggregate"


class Origin(enum.Enum):
    """Where a value of a TaskSpec came from."""

    CONFIG = "config"
    DEFAULT = "default"
    DERIVED = "derived"
    OPTION = "option"


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer with its learning rate. ADAM runs with beta_1 0.9, beta_2 0.999, epsilon 1e-7."""

    kind: OptimizerKind
    learning_rate: float


@dataclasses.dataclass(frozen=True)
class LearningSpec:
    """The learning process.

    Attributes:
      client_optimizer: has no effect under FED_SGD.
      metrics: accepted metric names in config order, without `loss`, which is always added last.
      rejected_metrics: names that are not on the allow list, in config order; reported, not built.
    """

    algorithm: LearningAlgorithm
    client_optimizer: OptimizerSpec
    server_optimizer: OptimizerSpec
    metrics: tuple[str, ...]
    rejected_metrics: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """Batching on the device.

    Attributes:
      batch_size: examples per batch; the remainder batch is kept.
      max_batches: batches per client and round, or -1 for all of them.
    """

    batch_size: int
    max_batches: int


@dataclasses.dataclass(frozen=True)
class ArtifactUrls:
    """Destinations that the config's `artifact_building` names; an empty string where it names none."""

    plan: str = ""
    client_plan: str = ""
    checkpoint: str = ""


@dataclasses.dataclass(frozen=True)
class RoundsSpec:
    """How rounds of one task are run.

    Attributes:
      report_goal: client reports that complete a round.
      over_selection_rate: share of devices admitted beyond it.
      max_aggregation_size: floor(report_goal * (1 + over_selection_rate)) in double arithmetic.
      example_selector_uri: collection URI of the device's example store; may be empty.
      traffic_weight: relative chance that a device is handed this task.
    """

    report_goal: int
    over_selection_rate: float
    max_aggregation_size: int
    example_selector_uri: str
    traffic_weight: int
    urls: ArtifactUrls = ArtifactUrls()


@dataclasses.dataclass(frozen=True)
class CheckpointSelector:
    """Which training checkpoints an evaluation task reads: the first of every `every` rounds, or hours."""

    every: int
    unit: str  # "round" or "hour"

    def __str__(self) -> str:
        return f"every_{self.every}_{self.unit}"


@dataclasses.dataclass(frozen=True)
class EvaluationSpec:
    rounds: RoundsSpec
    traffic: float
    checkpoint_selector: CheckpointSelector
    source_training_population: str
    source_training_task_id: int


@dataclasses.dataclass(frozen=True)
class EligibilitySpec:
    """When a device may take part in training. Neither policy applies to evaluation tasks."""

    minimum_separation: int
    min_example_count: int


@keyword_only
@dataclasses.dataclass(frozen=True)
class PrivacySpec:
    """What the privacy accounting starts from.

    Attributes:
      aggregator: the configured DP aggregator.
      skip_aggregator: build without it: no clip, no noise, no guarantee.
      skip_check: build even when epsilon exceeds the target.
      noise_multiplier: standard deviation of the noise in units of the clip; None: the smallest that meets the target.
      clip_norm: L2 clip of the aggregator, the first one if it adapts.
      target_epsilon, delta: the budget.
      rounds: T, the number of training rounds.
      report_goal: n, clients per round.
      minimum_separation: rounds from one contribution of a client to its next.
      population: N, the number of devices assumed; n / N is the sampling rate of the Gaussian aggregators.
      rounds_per_day: the pace of rounds that is assumed, at least; the trees' accounting uses it.
    """

    aggregator: DpAggregator
    skip_aggregator: bool
    skip_check: bool
    noise_multiplier: Optional[float]
    clip_norm: float
    target_epsilon: float
    delta: float
    rounds: int
    report_goal: int
    minimum_separation: int
    population: int = ASSUMED_POPULATION
    rounds_per_day: float = ASSUMED_ROUNDS_PER_DAY

    @property
    def remembered_rounds(self) -> int:
        """Rounds that fit into the time for which a phone remembers that it took part, at least 1."""
        return max(1, math.floor(PARTICIPATION_MEMORY_DAYS * self.rounds_per_day))

    @property
    def effective_separation(self) -> int:
        """Rounds after which a phone may take part again: minimum_separation, as far as phones remember. At least 1."""
        return max(1, min(self.minimum_separation, self.remembered_rounds))

    @property
    def max_contributions(self) -> int:
        """k, how often one phone can take part in the rounds of a task."""
        return -(-self.rounds // self.effective_separation)


def adaptive_noise_limit(report_goal: int) -> float:
    """What the noise multiplier must stay below for the clip to adapt: twice the standard deviation, report_goal / 20, of the noise that
    TFF adds to the count of clipped updates (spec: privacy.md, section 4)."""
    return 0.1 * report_goal


def adaptive_noise_inflation(noise_multiplier: float, report_goal: int) -> float:
    """How many times the noise multiplier an adaptive aggregator adds to the updates, because the count of clipped ones takes its part:
    1 / noise_multiplier^2 = 1 / (noise on the updates)^2 + 1 / adaptive_noise_limit^2."""
    return (1 - (noise_multiplier / adaptive_noise_limit(report_goal)) ** 2) ** -0.5


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """One task config, resolved.

    Attributes:
      label_name: feature name of the label; None where the config has none (single-tensor features then use `y`).
      num_rounds: `total_iteration` of every task.
      training: rounds of the training task; under EVAL_ONLY None.
      evaluation: None under TRAINING_ONLY.
      origins: for each resolved value its dotted config path and where it came from.
      notices: repairs and assumptions that a person should see, one sentence each.
    """

    mode: TaskMode
    population_name: str
    label_name: Optional[str]
    form: PlanForm
    num_rounds: int
    learning: LearningSpec
    dataset: DatasetSpec
    eligibility: EligibilitySpec
    training: Optional[RoundsSpec]
    evaluation: Optional[EvaluationSpec]
    privacy: PrivacySpec
    origins: Mapping[str, Origin] = dataclasses.field(default_factory=dict)
    notices: tuple[str, ...] = ()

    def with_notices(self, notices: Iterable[str]) -> TaskSpec:
        """The spec with more notices."""
        return dataclasses.replace(self, notices=(*self.notices, *notices))


@keyword_only
@dataclasses.dataclass(frozen=True)
class ResolveOptions:
    """Options of the command line that take part in resolving a config.

    Attributes:
      population_name: replaces the config's.
      skip_dp_check, skip_dp_aggregator: see PrivacySpec.
      population: real number of devices, in place of ASSUMED_POPULATION; delta's bound is then 1 / population.
      rounds_per_day: see PrivacySpec.
      storage_path: replaces the literal `{storage_path}` in artifact URLs.
      require_artifact_urls: check that the URLs of the tasks to be built are usable (artifact-only mode on a server).
    """

    population_name: Optional[str] = None
    skip_dp_check: bool = False
    skip_dp_aggregator: bool = False
    population: int = ASSUMED_POPULATION
    rounds_per_day: float = ASSUMED_ROUNDS_PER_DAY
    storage_path: Optional[str] = None
    require_artifact_urls: bool = False
