"""Plans of recurrent models, and of losses with branches, run on phones and learn as TensorFlow Federated does."""

from __future__ import annotations

import numpy as np
import plan_execution
import pytest
import recurrent_models
import tiny_models

from odp_taskbuilder.config.spec import LearningAlgorithm, PlanForm
from odp_taskbuilder.model.load import LoadedModel
from odp_taskbuilder.ops.report import ops_report

MODULE_VERSION = 341812000


def plans_task(loaded_model: LoadedModel, algorithm: LearningAlgorithm, monkeypatch, directory) -> plan_execution.BuiltTask:
    clients = []
    for size in (1, 4, 5):
        x, y = recurrent_models.examples(size, *loaded_model.input_spec)
        clients.append({"x": x, "y": y})
    model = tiny_models.TinyModel(lambda: None, tuple(clients), lambda batch: (batch["x"], batch["y"]))
    monkeypatch.setattr(plan_execution, "_saved_and_loaded", lambda _: loaded_model)
    return plan_execution.BuiltTask(plan_execution.Task(model, algorithm, client_learning_rate=0.3, clip=1.0), directory)


def assert_learns_as_tff(task: plan_execution.BuiltTask, form: PlanForm) -> None:
    start = plan_execution.read_checkpoint(task.initial_checkpoint)
    names = [name for name in start if "/global_model_weights/" in name]
    (*_, (expected, _)) = task.tff_rounds
    actual = task.artifact_rounds(form)[-1].state
    moved = np.sqrt(sum(np.sum((np.asarray(expected[name]) - start[name]) ** 2) for name in names))
    error = np.sqrt(sum(np.sum((actual[name] - np.asarray(expected[name])) ** 2) for name in names))
    assert moved > 1e-2
    assert error < 1e-5 * moved


@pytest.mark.parametrize("form", PlanForm, ids=lambda form: form.value)
@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("gru", LearningAlgorithm.FED_AVG),
        ("masked_bidirectional_gru", LearningAlgorithm.FED_SGD),
        ("stacked", LearningAlgorithm.FED_AVG),
        ("zeros_for_masked_steps", LearningAlgorithm.FED_AVG),
        ("squared_hinge", LearningAlgorithm.FED_AVG),
    ],
)
def test_plans_run_on_phones_and_learn_as_in_tff(monkeypatch, tmp_path, name, algorithm, form):
    _, retraced, _ = recurrent_models.loaded(recurrent_models.MODELS[name])
    task = plans_task(retraced, algorithm, monkeypatch, tmp_path)
    training, evaluation = (task.deployment(form, evaluates=evaluates).ops for evaluates in (False, True))
    assert training.min_module_version == evaluation.min_module_version == MODULE_VERSION
    assert_learns_as_tff(task, form)


@pytest.mark.full
@pytest.mark.parametrize("algorithm", LearningAlgorithm, ids=lambda algorithm: algorithm.value)
@pytest.mark.parametrize("form", PlanForm, ids=lambda form: form.value)
@pytest.mark.parametrize("name", recurrent_models.MODELS)
def test_every_plan_learns_as_in_tff(monkeypatch, tmp_path, name, algorithm, form):
    _, retraced, _ = recurrent_models.loaded(recurrent_models.MODELS[name])
    assert_learns_as_tff(plans_task(retraced, algorithm, monkeypatch, tmp_path), form)


def test_plans_are_smaller_than_with_the_loops_of_tensorflow(monkeypatch, tmp_path):
    native, retraced, _ = recurrent_models.loaded(recurrent_models.MODELS["gru"])
    sizes = []
    for number, model in enumerate((native, retraced)):
        task = plans_task(model, LearningAlgorithm.FED_AVG, monkeypatch, tmp_path / str(number))
        plan = task.deployment(PlanForm.MAP_REDUCE).plan
        sizes.append(len(plan.client_tflite_graph_bytes))
        lacking = {use.op for use in ops_report(plan.client_tflite_graph_bytes).unsupported()}
        assert bool(lacking) == (number == 0)
    assert sizes[1] < sizes[0]
