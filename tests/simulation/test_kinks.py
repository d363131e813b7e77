"""Clients on a kink: where a pre-activation is zero up to rounding, relu goes one way compiled and another in the interpreter. Neither is
wrong: the run goes on, and such clients are counted."""

import numpy as np
import pytest
from runs import weights, write_client

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts.checkpoint_reader import open_checkpoint
from odp_taskbuilder.simulation import engines

pytest.importorskip("jax")
# All that a round of the task takes.
_CLIENTS = 13
# Of configs/digits/try_out.pbtxt.
_BATCH, _RATE = 4, 0.1


@pytest.fixture(scope="module")
def on_kinks(tasks, tmp_path_factory):
    """A directory of clients with four batches: three as they come, and one of examples that each put a unit of the hidden layer at zero, as
    near as float32 gets, once the three are learned."""
    directory = tmp_path_factory.mktemp("on_kinks")
    initial = initial_weights(tasks / "plain" / "digits" / "initial_state.server.ckp")
    rng = np.random.default_rng(0)
    for number in range(_CLIENTS):
        learned = initial
        examples = []
        for _ in range(3):
            x, y = rng.uniform(0, 1, (_BATCH, 64)).astype(np.float32), rng.integers(0, 10, _BATCH)
            learned = step(*learned, x.astype(np.float64), y)
            examples += [{"x": pixels, "y": np.array([label])} for pixels, label in zip(x, y)]
        kernel, bias, *_ = learned
        for unit in rng.choice(kernel.shape[1], _BATCH, replace=False):
            pixels = rng.uniform(0, 1, 64).astype(np.float32)
            pixel = int(np.argmax(np.abs(kernel[:, unit])))
            pixels[pixel] = 0
            pixels[pixel] = -(pixels @ kernel[:, unit] + bias[unit]) / kernel[pixel, unit]
            examples.append({"x": pixels, "y": np.array([unit % 10])})
        write_client(directory / f"client_{number:02}.tfrecord", *examples)
    return directory


def initial_weights(path):
    with open_checkpoint(path) as checkpoint:
        names = sorted(tensor.name for tensor in checkpoint.tensors if tensor.name.startswith("server/global_model_weights/"))
        return [checkpoint.read(name).astype(np.float64) for name in names]


def step(kernel, bias, kernel2, bias2, x, labels):
    """One step of gradient descent on relu(x kernel + bias) kernel2 + bias2 with softmax and cross entropy."""
    before = x @ kernel + bias
    hidden = np.maximum(before, 0)
    logits = hidden @ kernel2 + bias2
    gradient = np.exp(logits - logits.max(1, keepdims=True))
    gradient /= gradient.sum(1, keepdims=True)
    gradient[np.arange(len(labels)), labels] -= 1
    gradient /= len(labels)
    behind = gradient @ kernel2.T * (before > 0)
    steps = (x.T @ behind, behind.sum(0), hidden.T @ gradient, gradient.sum(0))
    return [value - _RATE * change for value, change in zip((kernel, bias, kernel2, bias2), steps)]


def test_clients_on_a_kink_go_to_the_interpreter_and_are_counted(on_kinks, run, monkeypatch):
    monkeypatch.setattr(engines, "_COMPARED_CLIENTS", _CLIENTS)
    monkeypatch.setattr(engines, "_MANY_KINKS", _CLIENTS)
    options = {"data": on_kinks, "rounds": 1, "clients_per_round": _CLIENTS}
    _, local = run(name="local", engine="local", **options)
    summary, compiled = run(name="compiled", engine="compiled", **options)
    share = summary.compiled
    # Which way rounding goes is the processor's matter. Two more clients are those of the evaluation round.
    assert 1 <= share.kinks < _CLIENTS and share.interpreted == share.kinks and share.compared == _CLIENTS + 2
    assert share.worst.difference < 1e-5
    moved = np.linalg.norm(weights(local, 1) - weights(local, 0))
    # Those that rounding sent another way would show: one of them moves a tensor of its update by some percent.
    assert np.linalg.norm(weights(compiled, 1) - weights(local, 1)) <= 1e-6 * moved

    # A run in which that is usual compares nothing any more.
    monkeypatch.setattr(engines, "_MANY_KINKS", 1)
    monkeypatch.setattr(engines, "_COMPARED_PER_KINK", _CLIENTS + 1)
    with pytest.raises(errors.ArtifactError, match=rf"rounding sends {share.kinks} of {_CLIENTS} compared clients another way"):
        run(name="ended", engine="compiled", **options)
    monkeypatch.setattr(engines, "_MIN_COMPILED_CLIENTS", 0)
    notices = []
    summary, _ = run(name="auto", engine="auto", on_notice=notices.append, **options)
    assert summary.training.rounds == 1
    assert any("task 1 runs in the interpreter from now on: rounding sends" in notice for notice in notices)
