"""The second line: hostile models that nobody scanned, loaded and run by TensorFlow in a sandbox."""

from concurrent import futures

import pytest
import untrusted_corpus

from odp_taskbuilder import errors, sandbox

# Ample for a model that loads and answers, which takes about a second of processor time.
_LIMITS = sandbox.SandboxLimits(wall_seconds=25, cpu_seconds=6, memory_bytes=2 * 2**30, processes=256, file_bytes=2**26)
# Models that would run for ever, or wait for an answer for ever.
_ENDED_BY_A_LIMIT = ("endless_loop", "endless_loop_over_a_constant", "endless_dataset")


@pytest.fixture(scope="module")
def zygote():
    # The importing of TensorFlow is done once, before anything untrusted is near.
    with sandbox.Zygote(preload=["tensorflow_federated", "hostile_models", "misbehaviour"]) as zygote:
        yield zygote


def _attack(zygote, model, scratch):
    """Returns everything that comes out of a sandbox in which a model is loaded and run."""
    scratch.mkdir()
    try:
        said = str(zygote.run("hostile_models:attack", {"path": str(model)}, scratch=scratch, readable=[model], limits=_LIMITS))
    except errors.ModelError as error:
        said = f"ModelError: {error}"
    return said + (scratch / "log.txt").read_text(errors="replace")


@pytest.fixture(scope="module")
def zygote_without_namespaces():
    with sandbox.Zygote(preload=["tensorflow_federated", "hostile_models", "without_namespaces"]) as zygote:
        yield zygote


@pytest.mark.parametrize("kind", ["zygote", "zygote_without_namespaces"])
def test_hostile_models_achieve_nothing(kind, request, corpus, tmp_path):
    missing = [str(protection) for protection in sandbox.available() if not protection.in_force]
    if missing:
        pytest.skip(f"not in force on this machine: {missing}")
    zygote = request.getfixturevalue(kind)
    before, connections = corpus.snapshot(), corpus.connections()
    states = corpus.states()
    with futures.ThreadPoolExecutor(4) as pool:
        said = dict(
            zip(
                (path.name for path in corpus.hostile),
                pool.map(lambda path: _attack(zygote, path, tmp_path / path.name), corpus.hostile),
            )
        )

    assert corpus.snapshot() == before
    assert corpus.states() == states
    assert corpus.connections() == connections
    assert [name for name, text in said.items() if untrusted_corpus.SECRET in text] == []
    for name in _ENDED_BY_A_LIMIT:
        assert "and was ended" in said[name]
    # They were really loaded: what is harmless in itself ran, and what is not was stopped by the kernel.
    assert "harmless" in said["unused_function"]
    for name in untrusted_corpus.PROVEN:
        assert "ModelError" in said[name] or name == "matching_files"
    # And the zygote is none the worse for it.
    benign = next(path for path in corpus.benign if path.name == "control_flow")
    assert "ModelError" not in _attack(zygote, benign, tmp_path / "benign")


def test_a_functional_model_works_in_a_sandbox(zygote, golden, tmp_path):
    model = golden / "keras_dense" / "model"
    output = zygote.run(
        "misbehaviour:load_functional_model", {"path": str(model)}, scratch=tmp_path, readable=[model], limits=_LIMITS
    )
    assert len(output) == 2
    assert output[0] == pytest.approx(output[1])
    assert 0 < output[0] < 1


def test_tff_executes_computations_in_a_sandbox(zygote, tmp_path):
    assert zygote.run("misbehaviour:execute_computation", {}, scratch=tmp_path, limits=_LIMITS) == 42
