"""`diff` tells two builds apart by what they say."""

import handmade_artifacts as handmade
import numpy as np
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.inspection.diff import ABSENT, diff


def _told(differences):
    return {" > ".join(difference.path): (difference.left, difference.right) for difference in differences}


def test_equal_builds_do_not_differ(tmp_path, golden):
    assert diff(handmade.save(tmp_path / "a"), handmade.save(tmp_path / "b")) == []
    published = golden / "keras_dense" / "expected_mapreduce"
    assert diff(published, published) == []


def test_a_changed_setting_shows_where_it_stands(tmp_path):
    told = _told(diff(handmade.save(tmp_path / "a"), handmade.save(tmp_path / "b", batch_size=9, extra_op="Conv2D")))
    assert told["plan.pb > client > examples > batch_size"] == ("7", "9")
    assert told["plan.pb > client > tflite > ops > Conv2D"] == (ABSENT, "1 times")
    assert told["plan.pb > client > tflite > min_module_version"] == ("341812000", "null")
    # The client's part is told once, with the plan.
    assert not any(path.startswith("client_only_plan.pb > client") for path in told)


def test_changed_values_of_a_checkpoint_show(tmp_path):
    handmade.write_checkpoint(tmp_path / "a.ckp")
    handmade.write_checkpoint(tmp_path / "b.ckp", weight=np.full((3, 2), 2, np.float32), clip=0.25)
    told = _told(diff(tmp_path / "a.ckp", tmp_path / "b.ckp"))
    clip = "server/aggregator/query_state/numerator_state/l2_norm_clip"
    assert told[f"tensors > {clip} > value"] == ("0.5", "0.25")
    assert told["privacy > parameters > query_state/numerator_state/l2_norm_clip > value"] == ("0.5", "0.25")
    assert told["tensors > server/global_model_weights/trainable/0 > statistics > maximum"] == ("5.0", "2.0")


def test_the_published_forms_differ_in_what_is_known_of_them(golden):
    sets = golden / "keras_dense"
    told = _told(diff(sets / "expected_mapreduce", sets / "expected_distribute_aggregate"))
    assert told["plan.pb > form"] == ("MapReduce", "DistributeAggregate")
    assert told["plan.pb > client > tflite > ops > L2Loss"] == ("4 times", ABSENT)
    assert told["plan.pb > client > tflite > min_module_version"] == ("341912000", "341812000")
    assert told["plan.pb > server > aggregations"] == (ABSENT, "6 entries")
    assert told["initial_state.server.ckp"] == ("(present)", ABSENT)
    assert told["traffic > training > plan_bytes"] == ("31698", "38187")


def test_a_file_cannot_be_compared_with_a_directory(tmp_path):
    artifacts = handmade.save(tmp_path / "a")
    with pytest.raises(errors.UsageError, match="one is a directory, the other a file"):
        diff(artifacts, artifacts / "plan.pb")
