"""What the server cannot read is refused from the shapes of the weights, before anything is traced."""

from __future__ import annotations

import types

import numpy as np
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.config import ResolveOptions, parse_config, resolve
from odp_taskbuilder.learning import limits
from odp_taskbuilder.model.load import WeightSpec

MIB = 1 << 20


def spec(aggregator="FIXED_GAUSSIAN", rounds=1000, server_optimizer="SGD", skip_dp_aggregator=False):
    config = f"""
    mode: TRAINING_ONLY
    population_name: "large"
    policies {{ model_release_policy {{ num_max_training_rounds: {rounds} }} }}
    federated_learning {{
      learning_process {{ server_optimizer: {server_optimizer} runtime_config {{ report_goal: 100 }} }}
    }}
    differential_privacy {{ type: {aggregator} clip_norm: 0.1 noise_multiplier: 1 }}
    """
    return resolve(parse_config(config), ResolveOptions(skip_dp_aggregator=skip_dp_aggregator))


def model(trainable_mib, non_trainable_mib=()):
    """Stands for a LoadedModel with float32 weights of these sizes."""
    initial_weights = tuple(
        tuple(WeightSpec((mib, 512, 512), np.float32) for mib in group) for group in (trainable_mib, non_trainable_mib)
    )
    return types.SimpleNamespace(functional_model=types.SimpleNamespace(initial_weights=initial_weights))


def refusal(*args, **kwargs) -> str:
    with pytest.raises(errors.ModelError) as raised:
        limits.check_sizes(model(*args), spec(**kwargs))
    return str(raised.value)


def test_half_a_billion_parameters_fit():
    limits.check_sizes(model([477] * 4), spec())


def test_a_tensor_may_have_500_mib_and_no_more():
    limits.check_sizes(model([500]), spec())
    message = refusal([1, 501])
    assert "525,336,576 bytes: trainable weight 1, float32[501, 512, 512]" in message
    assert "524,288,000 bytes (500 MiB)" in message
    assert "non-trainable weight 0" in refusal([1], [501])


def test_a_checkpoint_stays_below_2_gib():
    limits.check_sizes(model([500] * 4, [47]), spec())
    message = refusal([500] * 4, [48])
    assert "2,147,483,648 bytes" in message
    assert "2 GiB" in message


def test_adam_on_the_server_triples_the_trainable_weights():
    limits.check_sizes(model([400] * 2 + [200], [47]), spec(server_optimizer="SGD"))
    limits.check_sizes(model([341] * 2), spec(server_optimizer="ADAM"))
    message = refusal([400] * 2, server_optimizer="ADAM")
    assert f"{3 * 800 * MIB:,} bytes" in message
    assert f"{2 * 800 * MIB:,} for the state of ADAM on the server" in message
    assert "server_optimizer SGD" in message


@pytest.mark.parametrize("aggregator", ["TREE_AGGREGATION", "ADAPTIVE_TREE"])
def test_tree_noise_grows_with_the_rounds(aggregator):
    # 100 MiB of weights, of last noise, and of noise for each tree node: 6 for 100 rounds, 7 for 126, ...
    limits.check_sizes(model([50] * 2), spec(aggregator, rounds=1000))
    limits.check_sizes(model([80] * 3), spec(aggregator, rounds=100))
    message = refusal([80] * 3, rounds=126, aggregator=aggregator)
    assert f"{80 * 7 * MIB:,} bytes: noise of 7 tree nodes for trainable weight" in message
    assert "FIXED_GAUSSIAN" in message
    message = refusal([50] * 5, rounds=126, aggregator=aggregator)
    assert f"{250 * 9 * MIB:,} bytes" in message
    assert f"{250 * 8 * MIB:,} for the noise of {aggregator} within 126 rounds" in message


def test_without_an_aggregator_there_is_no_noise():
    limits.check_sizes(model([80] * 3), spec("TREE_AGGREGATION", rounds=1000, skip_dp_aggregator=True))


@pytest.mark.parametrize("rounds", [*range(1, 70), 126, 127, 128, 253, 254, 255, 256, 1000, 1022, 1023, 1150, 1151, 1152, 5000])
def test_tree_nodes_are_those_of_the_binary_counter(rounds):
    """After r rounds of a tree its nodes are the binary digits 1 of r + 1 (the state is ready for one more leaf)."""
    ones = [bin(leaves).count("1") for leaves in range(1, rounds + 2)]
    assert limits.tree_nodes(spec("TREE_AGGREGATION", rounds=rounds)) == max(ones)
    # The adaptive tree restarts after rounds 128, 1152, 2176, ...
    leaves, most = 1, 1
    for finished in range(1, rounds + 1):
        leaves = 1 if finished % 1024 == 128 else leaves + 1
        most = max(most, bin(leaves).count("1"))
    assert limits.tree_nodes(spec("ADAPTIVE_TREE", rounds=rounds)) == most
