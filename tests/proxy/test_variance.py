"""Copies of one candidate: which one, what is the same in them, what is written, and what repeats cost. The workers are scripted."""

import json
import statistics

import pytest
from scripted_pool import ScriptedPool, workshop

from odp_taskbuilder import errors
from odp_taskbuilder.proxy.variance import VarianceOptions, measure_variance

NOISE = {f"variance_copy_{number}": 0.1 for number in range(1, 6)}


class SeedNotingPool(ScriptedPool):
    """Attributes: seeds: of the trials, by group: (sampling, noise)."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seeds = {}

    def _train(self, trial, rounds):
        self.seeds[trial.directory.parent.name] = (trial.sampling_seed, trial.noise_seed)
        return super()._train(trial, rounds)


def test_five_copies_of_the_first_candidate_that_trains_give_variance_and_smoothness(tmp_path):
    pool, told = ScriptedPool(broken=["c0"], noise=NOISE), []
    with workshop(tmp_path, pool, told) as opened:
        measured = measure_variance(opened, VarianceOptions())
    assert measured.candidate == "c1" and "c0 does not train: it is broken" in told
    assert len(set(measured.scores)) == 5
    assert measured.variance == pytest.approx(statistics.pstdev(measured.scores) / statistics.mean(measured.scores), rel=1e-12)
    found = json.loads((tmp_path / "variance/variance_and_smoothness.json").read_text())
    assert list(found) == ["variance_value", "variance_info", "smoothness_value", "smoothness_info"]
    assert found["variance_value"] == measured.variance
    assert found["variance_info"] == f"Good: the coefficient of variation {measured.variance:.3g} is at most 0.4."
    state = json.loads((tmp_path / "variance/measurement_state.json").read_text())
    assert list(state) == ["workable_model_dir", "training_job_name", "finished_model_dirs"]
    assert len(state["finished_model_dirs"]) == 5 and state["workable_model_dir"].endswith("c1")
    assert (tmp_path / "variance/variance.png").read_bytes().startswith(b"\x89PNG")
    assert {line.split()[0] for line in pool.log} == {f"variance_copy_{number}/c1" for number in range(1, 6)}


def test_a_measurement_that_is_repeated_runs_nothing_and_one_with_other_options_is_refused(tmp_path):
    pool = ScriptedPool(noise=NOISE)
    with workshop(tmp_path, pool) as opened:
        measured = measure_variance(opened, VarianceOptions(copies=3))
    assert len(pool.log) == len(set(pool.log)) == 3 * 100
    pool.log.clear()
    with workshop(tmp_path, pool) as opened:
        assert measure_variance(opened, VarianceOptions(copies=3)) == measured
        assert not pool.log
        with pytest.raises(errors.UsageError, match="holds a measurement with"):
            measure_variance(opened, VarianceOptions(copies=4))


@pytest.mark.parametrize("fixed", [(), ("sampling",), ("noise",), ("sampling", "noise", "weights")])
def test_seeds_that_are_fixed_are_the_same_in_all_copies_and_the_others_differ(tmp_path, fixed):
    pool = SeedNotingPool(noise=NOISE)
    with workshop(tmp_path, pool) as opened:
        measure_variance(opened, VarianceOptions(copies=3, fixed=frozenset(fixed)))
    sampling, noise = zip(*pool.seeds.values())
    assert len(pool.seeds) == 3
    assert len(set(sampling)) == (1 if "sampling" in fixed else 3)
    assert len(set(noise)) == (1 if "noise" in fixed else 3)


def test_ten_candidates_of_which_none_trains_end_with_a_table_of_causes(tmp_path):
    with pytest.raises(errors.ModelError) as raised, workshop(tmp_path, ScriptedPool(broken=[f"c{n}" for n in range(10)])) as opened:
        measure_variance(opened, VarianceOptions())
    assert raised.value.exit_code == 4
    assert raised.value.message.startswith("None of the first 10 candidates trains:") and "it is broken" in raised.value.message
