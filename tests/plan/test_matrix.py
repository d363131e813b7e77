"""Every kind of training task: its artifacts, executed, do what TensorFlow Federated does when it executes the process itself.

The noise of the weights is zero. The one random number that is left, the noise on the adaptive tree's count of clipped clients, is drawn
from seeds in the server state, and both sides begin with the emitted initial checkpoint.
"""

from __future__ import annotations

import numpy as np
import tensorflow_federated as tff
from matrix_cells import (
    for_each_aggregator,
    for_each_algorithm,
    for_each_dp_aggregator,
    for_each_form,
    for_each_optimizers,
    matrix_task,
    optimizers_task,
)
from plan_execution import BuiltTask, Round, assert_close, clip_of, flatten, read_checkpoint, update_norm
from tff_runtime import require_tff_runtime

from odp_taskbuilder.config.spec import PlanForm


def assert_agrees_with_tff(task: BuiltTask, form: PlanForm) -> None:
    for artifact_round, (state, metrics) in zip(task.artifact_rounds(form), task.tff_rounds):
        assert_close(artifact_round.state, state)
        assert_close(artifact_round.metrics, metrics)


def assert_forms_agree(task: BuiltTask) -> None:
    for map_reduce, distribute_aggregate in zip(*(task.artifact_rounds(form) for form in PlanForm)):
        assert_close(distribute_aggregate.state, map_reduce.state)
        assert_close(distribute_aggregate.metrics, map_reduce.metrics)


def model_weights(state: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([state[name].ravel() for name in sorted(state) if "/global_model_weights/" in name])


def norms_in_clips(artifact_round: Round, aggregator) -> np.ndarray:
    """L2 norm of each client's update, in units of the clip that the client was sent."""
    clip = clip_of(read_checkpoint(artifact_round.client_checkpoint), aggregator)
    return np.array([update_norm(read_checkpoint(update)) for update in artifact_round.updates]) / clip


@for_each_algorithm
@for_each_aggregator
@for_each_form
def test_three_rounds_agree_with_tff(built, algorithm, aggregator, form):
    task = built(matrix_task(algorithm, aggregator))
    assert_agrees_with_tff(task, form)
    # The agreement means something: weights move in every round.
    states = [read_checkpoint(task.initial_checkpoint), *(r.state for r in task.artifact_rounds(form))]
    for before, after in zip(states, states[1:]):
        assert np.linalg.norm(model_weights(after) - model_weights(before)) > 0.01


@for_each_algorithm
@for_each_aggregator
def test_both_forms_agree(built, algorithm, aggregator):
    assert_forms_agree(built(matrix_task(algorithm, aggregator)))


@for_each_optimizers
@for_each_form
def test_optimizers_agree_with_tff(built, client_optimizer, server_optimizer, form):
    assert_agrees_with_tff(built(optimizers_task(client_optimizer, server_optimizer)), form)


@for_each_optimizers
def test_both_forms_agree_for_each_optimizer(built, client_optimizer, server_optimizer):
    assert_forms_agree(built(optimizers_task(client_optimizer, server_optimizer)))


@for_each_algorithm
@for_each_aggregator
def test_the_initial_checkpoint_is_what_tff_initializes(built, algorithm, aggregator):
    require_tff_runtime()
    task = built(matrix_task(algorithm, aggregator))
    weights = tff.learning.models.ModelWeights([variable.numpy() for variable in task.loaded_model.trainable], [])
    state = flatten(task.state_type, task.process.set_model_weights(task.process.initialize(), weights))
    checkpoint = read_checkpoint(task.initial_checkpoint)
    assert checkpoint.keys() == state.keys()
    # Drawn by the clock.
    random = ("/seeds", "/below_estimate_state/numerator_state/tree_state/level_buffer")
    fixed = [name for name in state if not name.endswith(random)]
    assert_close({name: checkpoint[name] for name in fixed}, {name: state[name] for name in fixed})


@for_each_algorithm
@for_each_dp_aggregator
@for_each_form
def test_clients_clip_to_the_norm_that_they_are_sent(built, algorithm, aggregator, form):
    rounds = built(matrix_task(algorithm, aggregator)).artifact_rounds(form)
    assert max(norms_in_clips(artifact_round, aggregator).max() for artifact_round in rounds) <= 1 + 1e-6
    # In the first round one of the three clients stays below the clip.
    first, second, third = norms_in_clips(rounds[0], aggregator)
    assert second < 0.9
    np.testing.assert_allclose([first, third], 1, rtol=1e-6)
