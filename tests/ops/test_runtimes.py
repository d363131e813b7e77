"""The release of TensorFlow Lite that client graphs need."""

import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.ops import report, runtimes
from odp_taskbuilder.ops.tflite import OpKind, read_tflite
from odp_taskbuilder.proto import plan_pb2


@pytest.mark.parametrize("form", ["expected_mapreduce", "expected_distribute_aggregate"])
@pytest.mark.parametrize(("name", "release"), [("client_only_plan.pb", (2, 6, 0)), ("eval_client_only_plan.pb", (1, 15, 0))])
def test_the_list_agrees_with_what_the_published_plans_state(golden, form, name, release):
    plan = plan_pb2.ClientOnlyPlan.FromString((golden / "keras_dense" / form / name).read_bytes())
    assert read_tflite(plan.tflite_graph).min_runtime == release
    ops = report.ops_report(plan.tflite_graph)
    builtins = [use for use in ops.ops if use.kind is OpKind.BUILTIN]
    assert all(use.min_runtime is not None for use in builtins)
    assert max(use.min_runtime for use in builtins) == ops.min_runtime == release
    assert report.check_runtime(ops) == ()


@pytest.mark.parametrize(("text", "release"), [("2.13.0", (2, 13, 0)), ("2.13", (2, 13, 0)), ("10.2.3", (10, 2, 3))])
def test_a_release_is_read(text, release):
    assert runtimes.parse_runtime(text) == release


@pytest.mark.parametrize("text", ["", "2", "2.x", "2.13.0.1", "-2.1", "2.٣", "v2.1", "2.123456"])
def test_what_is_no_release_is_refused(text):
    with pytest.raises(errors.UsageError, match="is no release of TensorFlow Lite"):
        runtimes.parse_runtime(text)
