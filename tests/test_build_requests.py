"""What a build says of its config and its options before it looks at a model, and what its report claims."""

from __future__ import annotations

import math

import pytest

from odp_taskbuilder import build_request
from odp_taskbuilder.artifacts import tasks
from odp_taskbuilder.cli import output
from odp_taskbuilder.config import ResolveOptions
from odp_taskbuilder.config.build_options import BuildOptions
from odp_taskbuilder.privacy import budget_of
from odp_taskbuilder.transport.deadline import Network

CONFIG = """mode: TRAINING_ONLY
population_name: "requested"
policies {{ model_release_policy {{ num_max_training_rounds: 10 }} }}
federated_learning {{ learning_process {{ runtime_config {{ report_goal: 100 }} {destinations} }} }}
differential_privacy {{ clip_norm: 0.1 noise_multiplier: 1.0 }}
"""
DESTINATIONS = 'artifact_building { plan_url: "%s/plan" client_plan_url: "%s/client" checkpoint_url: "%s/state" }'
URLS_IN_VAIN = "artifact_building has no effect without --build_artifact_only."
STORAGE_PATH_IN_VAIN = "--storage_path has no effect: no destination that is used has {storage_path} in it."


def request(tmp_path, place="", *, artifact_only=False, **options) -> build_request.BuildRequest:
    destinations = DESTINATIONS.replace("%s", place) if place else ""
    (tmp_path / "config.pbtxt").write_text(CONFIG.format(destinations=destinations))
    build_options = BuildOptions(resolve=ResolveOptions(**options), artifact_only=artifact_only)
    return build_request.check_request(tmp_path / "config.pbtxt", tmp_path / "out", build_options, overwrite=False, network=Network())


@pytest.mark.parametrize(
    ("place", "options", "in_vain"),
    [
        ("", {}, set()),
        ("/models", {}, {URLS_IN_VAIN}),
        ("/models", {"artifact_only": True}, set()),
        ("", {"storage_path": "gs://bucket"}, {STORAGE_PATH_IN_VAIN}),
        ("/models", {"artifact_only": True, "storage_path": "gs://bucket"}, {STORAGE_PATH_IN_VAIN}),
        ("{storage_path}", {"storage_path": "gs://bucket"}, {URLS_IN_VAIN, STORAGE_PATH_IN_VAIN}),
        ("{storage_path}", {"artifact_only": True, "storage_path": "gs://bucket"}, set()),
    ],
)
def test_destinations_that_are_named_in_vain_are_noted(tmp_path, place, options, in_vain):
    notices = request(tmp_path, place, **options).spec.notices
    assert {notice for notice in notices if notice in (URLS_IN_VAIN, STORAGE_PATH_IN_VAIN)} == in_vain


def test_a_report_without_dp_shows_neither_noise_nor_clip(tmp_path):
    spec = request(tmp_path, skip_dp_aggregator=True).spec
    shown = tasks.task_report(spec, budget_of(spec)).dp_hyperparameters
    assert {field.name for field, _ in shown.ListFields()} == {"dp_delta", "dp_epsilon", "num_training_rounds"}
    assert shown.dp_epsilon == math.inf


def test_json_spells_infinity_as_protos_do(capsys):
    output.print_json({"epsilon": math.inf, "losses": [-math.inf, math.nan]})
    assert capsys.readouterr().out.split() == '{ "schema_version": 1, "epsilon": "Infinity", "losses": [ "-Infinity", "NaN" ] }'.split()
