"""`diff` tells two builds apart by what they say."""

import handmade_artifacts as handmade
import numpy as np
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.config.show import ResolvedValue
from odp_taskbuilder.config.spec import Origin
from odp_taskbuilder.inspection.diff import ABSENT, diff
from odp_taskbuilder.inspection.document import inspection_document
from odp_taskbuilder.inspection.inspect import inspect
from odp_taskbuilder.inspection.text import inspection_text


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


def test_tasks_reports_and_the_config_that_was_resolved_are_compared(tmp_path):
    policies = "info { training_info { eligibility_task_info { eligibility_policies { %s } } } }"
    left = handmade.save(
        tmp_path / "a",
        task="max_aggregation_size: 13 " + policies % "min_sep_policy { minimum_separation: 5 }",
        report="# A note.\ndp_hyperparameters { dp_epsilon: 6 }",
        config=[ResolvedValue("batch_size", 4, Origin.CONFIG), ResolvedValue("clip_norm", 0.1, Origin.DEFAULT)],
    )
    right = handmade.save(
        tmp_path / "b",
        task="max_aggregation_size: 20 " + policies % "min_sep_policy { minimum_separation: 9 }",
        report="dp_hyperparameters { dp_epsilon: 5 }",
        config=[ResolvedValue("batch_size", 8, Origin.CONFIG), ResolvedValue("clip_norm", 0.1, Origin.CONFIG)],
    )
    policy = "task.pbtxt > info > training_info > eligibility_task_info > eligibility_policies > [0] > min_sep_policy"
    assert _told(diff(left, right)) == {
        "task.pbtxt > max_aggregation_size": ("13", "20"),
        f"{policy} > minimum_separation": ("5", "9"),
        "report.pbtxt > dp_hyperparameters > dp_epsilon": ("6.0", "5.0"),
        "report.pbtxt > notes": ("(present)", ABSENT),
        "manifest.json > config > batch_size > value": ("4", "8"),
        "manifest.json > config > clip_norm > origin": ("default", "config"),
    }


def test_what_is_no_task_is_compared_as_bytes(tmp_path):
    saved = [handmade.save(tmp_path / name, task=text) for name, text in (("a", "no task"), ("b", "nor this {"), ("c", "no task"))]
    ((place, (left, right)),) = _told(diff(saved[0], saved[1])).items()
    assert (place, left != right) == ("task.pbtxt > content", True)
    assert left.startswith("no Task in text format")
    assert diff(saved[0], saved[2]) == []


def test_inspect_shows_what_the_artifacts_were_built_with(tmp_path):
    config = [ResolvedValue("use_daf", False, Origin.DEFAULT), ResolvedValue("label_name", None, Origin.OPTION)]
    folder = handmade.save(tmp_path / "a", config=config)
    inspection = inspect([folder])
    assert inspection_document(inspection)["configs"] == [
        {
            "directory": str(folder),
            "values": {"use_daf": {"value": False, "origin": "default"}, "label_name": {"value": None, "origin": "option"}},
        }
    ]
    assert inspection_text(inspection).endswith("  use_daf     false   default\n  label_name  (none)  option")
    assert inspect([handmade.save(tmp_path / "b") / "plan.pb"]).configs == {}


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
