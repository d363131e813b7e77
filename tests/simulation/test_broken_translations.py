"""A wrong translation ends a run: every operator's entry broken in turn, and the run-time check of some clients as it is."""

import dataclasses

import numpy as np
import pytest

from odp_taskbuilder import errors

pytest.importorskip("jax")
# In every round, at least.
_COMPARED = 2
_CLIENTS = 12


class Broken:
    """A plan whose clients run compiled with broken entries, each compared with the interpreter as a worker does it.

    What loads TensorFlow is imported where it is used: collecting the tests should not.
    """

    def __init__(self, artifacts, clients, directory):
        from odp_taskbuilder.artifacts.checkpoint_reader import open_checkpoint
        from odp_taskbuilder.runtime import client_runtime, server_runtime

        self._client_runtime = client_runtime
        plan = client_runtime.load_client_only_plan(artifacts / "client_only_plan.pb")
        self._flatbuffer = plan.tflite_graph
        checkpoint = directory / "checkpoint"
        server = server_runtime.open_server(server_runtime.load_plan(artifacts / "plan.pb"))
        server.write_client_checkpoint(artifacts / "initial_state.server.ckp", checkpoint)
        with open_checkpoint(checkpoint) as opened:
            self._checkpoint = {tensor.name: opened.read(tensor.name) for tensor in opened.tensors}
        device = client_runtime.ClientRuntime(plan)
        self._updates = []
        for path in clients:
            update = directory / path.name
            device.run(path, checkpoint, update)
            with open_checkpoint(update) as opened:
                self._updates.append({tensor.name: opened.read(tensor.name) for tensor in opened.tensors})
        self._clients = [_parsed(path) for path in clients]

    def operators(self):
        from odp_taskbuilder.compiled.graph import read_functions

        return {node.name for function in read_functions(self._flatbuffer) for node in function.nodes}

    def share_caught(self, op=None):
        """The share of clients by which a broken entry is found; by whom it cannot even be traced, by all."""
        from odp_taskbuilder.compiled import translation
        from odp_taskbuilder.compiled.client_program import ClientProgram
        from odp_taskbuilder.simulation.comparison import compared

        entry = translation.TABLE.get(op)
        if op is not None:
            translation.TABLE[op] = dataclasses.replace(entry, apply=_wrong(entry.apply))
        try:
            program = ClientProgram(self._flatbuffer)
            return sum(self._is_caught(program, *pair, compared) for pair in zip(self._clients, self._updates)) / len(self._clients)
        except translation.Untranslatable:
            return 1.0
        finally:
            if op is not None:
                translation.TABLE[op] = entry

    def _is_caught(self, program, client, update, compared):
        def run(checkpoint):
            sums = program.sums(checkpoint, [client])
            return None if sums.wild else sums.tensors

        own = run(self._checkpoint)
        try:
            # A client that is given back takes no harm, and is not compared; nor is the compiled update taken of one on a kink.
            if own is not None:
                compared("client", self._checkpoint, own, update, run)
        except errors.ArtifactError:
            return True
        return own is None


def _wrong(apply):
    def broken(op, *inputs):
        result = apply(op, *inputs)
        several = isinstance(result, (list, tuple))
        outputs = [_changed(output) for output in (result if several else [result])]
        return outputs if several else outputs[0]

    return broken


def _changed(output):
    if output.dtype == bool:
        return ~output
    return output + output.dtype.type(1) if output.dtype.kind in "iu" else (output * np.float32(1.01)).astype(output.dtype)


def _parsed(path):
    from odp_taskbuilder.data import examples, tfrecord

    rows = [examples.decode(record) for record in tfrecord.read_records(path)]
    return np.stack([row["x"] for row in rows]), np.stack([row["y"] for row in rows])


@pytest.fixture(scope="module", params=["plain", "convolutional"])
def broken(request, tasks, clients, tmp_path_factory):
    if request.param != "plain" and not request.config.getoption("--full"):
        pytest.skip("long form; run with --full")
    chosen = sorted((clients / "train").iterdir())[:_CLIENTS]
    return Broken(tasks / request.param / "digits", chosen, tmp_path_factory.mktemp("broken"))


def test_the_check_finds_broken_translations_within_two_rounds(broken, request):
    from odp_taskbuilder.compiled import translation

    assert broken.share_caught() == 0
    operators = broken.operators() & translation.TABLE.keys()
    assert len(operators) > 30
    chosen = sorted(operators) if request.config.getoption("--full") else ["ReluGrad", "SELECT", "SUM"]
    missed = {op: (1 - broken.share_caught(op)) ** (2 * _COMPARED) for op in chosen}
    assert max(missed.values()) < 0.01, missed
