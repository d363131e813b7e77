"""A wrong translation ends a run: every operator's entry broken in turn, and the run-time check of some clients as it is."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("jax")
# In each of the first two rounds, at least.
_COMPARED = 4
_CLIENTS = 12
# Relative L2 distance: what differs by less was divided out again, or is not asked for.
_HARMLESS = 1e-6


class Broken:
    """A plan whose clients run compiled with broken entries, each compared with the interpreter as a worker does it.

    What loads TensorFlow is imported where it is used: collecting the tests should not.
    """

    def __init__(self, artifacts, clients, directory):
        from odp_taskbuilder.artifacts.checkpoint_reader import open_checkpoint
        from odp_taskbuilder.compiled.client_program import ClientProgram
        from odp_taskbuilder.runtime import client_runtime, server_runtime

        plan = client_runtime.load_client_only_plan(artifacts / "client_only_plan.pb")
        self._flatbuffer = plan.tflite_graph
        checkpoint = directory / "checkpoint"
        server = server_runtime.open_server(server_runtime.load_plan(artifacts / "plan.pb"))
        server.write_client_checkpoint(artifacts / "initial_state.server.ckp", checkpoint)
        with open_checkpoint(checkpoint) as opened:
            self._checkpoint = {tensor.name: opened.read(tensor.name) for tensor in opened.tensors}
        program = ClientProgram(self._flatbuffer)
        device = client_runtime.ClientRuntime(plan, watched=[rounding.unrounded for rounding in program.roundings])
        self._updates = []
        for path in clients:
            update = directory / path.name
            device.run(path, checkpoint, update)
            with open_checkpoint(update) as opened:
                self._updates.append(({tensor.name: opened.read(tensor.name) for tensor in opened.tensors}, device.watched_values()))
        self._clients = [_parsed(path) for path in clients]
        self._right = [self._outcome(program, client) for client in self._clients]

    def operators(self):
        from odp_taskbuilder.compiled.graph import read_functions

        return {node.name for function in read_functions(self._flatbuffer) for node in function.nodes}

    def share_caught(self, op=None, change=None):
        """The share of clients by which a broken entry is found, of those whose updates it changes; None if it changes none. By whom it
        cannot even be traced, by all."""
        from odp_taskbuilder.compiled import translation
        from odp_taskbuilder.compiled.client_program import ClientProgram

        entry = translation.TABLE.get(op)
        if op is not None:
            translation.TABLE[op] = dataclasses.replace(entry, apply=_wrong(entry.apply, change))
        try:
            program = ClientProgram(self._flatbuffer)
            found = [self._is_caught(program, *of_client) for of_client in zip(self._clients, self._updates, self._right)]
            changed = [caught for caught in found if caught is not None]
            return sum(changed) / len(found) if changed else None
        except translation.Untranslatable:
            return 1.0
        finally:
            if op is not None:
                translation.TABLE[op] = entry

    def _is_caught(self, program, client, update, right):
        from odp_taskbuilder.simulation.comparison import DifferentError
        from odp_taskbuilder.simulation.compiled_worker import compared_client

        own = program.sums(self._checkpoint, [client])
        # A client that is given back takes no harm, and is not compared; nor is the compiled update taken of one on a kink.
        if own.wild:
            return True
        found = self._outcome(program, client, right)
        if found is None:
            return True
        if all(np.linalg.norm(found[name] - value) <= _HARMLESS * np.linalg.norm(value) for name, value in right.items()):
            return None
        try:
            compared_client(program, "client", self._checkpoint, client, own, *update)
        except DifferentError:
            return True
        return False

    def _outcome(self, program, client, right=None):
        """What a program makes of a client. Of an update that the plan rounds: before that, and what rounding makes of what is right; None if
        the client is given back."""
        if not program.roundings:
            return program.sums(self._checkpoint, [client]).tensors
        single = program.single(self._checkpoint, client)
        if single is None:
            return None
        rounded = program.rounded(single.unrounded if right is None else right)
        return {**single.unrounded, **{f"{name}/rounded": values for name, (values, _) in rounded.items()}}


def _wrong(apply, change):
    def broken(op, *inputs):
        result = apply(op, *inputs)
        several = isinstance(result, (list, tuple))
        outputs = [change(output) for output in (result if several else [result])]
        return outputs if several else outputs[0]

    return broken


def _a_little(output):
    if output.dtype == bool:
        return ~output
    return output + output.dtype.type(1) if output.dtype.kind in "iu" else (output * np.float32(1.01)).astype(output.dtype)


def _sign(output):
    return ~output if output.dtype == bool else -output


def _all_zero(output):
    return output & False if output.dtype == bool else output * output.dtype.type(0)


def _parsed(path):
    from odp_taskbuilder.data import examples, tfrecord

    rows = [examples.decode(record) for record in tfrecord.read_records(path)]
    return np.stack([row["x"] for row in rows]), np.stack([row["y"] for row in rows])


@pytest.fixture(scope="module", params=["plain", "convolutional", "compressed", "compressed_daf"])
def broken(request, tasks, clients, tmp_path_factory):
    if request.param in ("convolutional", "compressed_daf") and not request.config.getoption("--full"):
        pytest.skip("long form; run with --full")
    chosen = sorted((clients / "train").iterdir())[:_CLIENTS]
    return Broken(tasks / request.param / "digits", chosen, tmp_path_factory.mktemp("broken"))


def test_the_check_finds_broken_translations_within_two_rounds(broken, request):
    from odp_taskbuilder.compiled import translation

    operators = broken.operators() & translation.TABLE.keys()
    assert len(operators) > 30
    # These two stand in the rounding of compressed updates only.
    short = sorted(operators & {"FLOOR", "SQRT"}) or ["ReluGrad", "SELECT", "SUM"]
    chosen = sorted(operators) if request.config.getoption("--full") else short
    missed, harmless = {}, set()
    for op in chosen:
        shares = [broken.share_caught(op, change) for change in (_a_little, _sign, _all_zero)]
        caught = [share for share in shares if share is not None]
        missed.update({op: (1 - min(caught)) ** (2 * _COMPARED)} if caught else {})
        harmless.update(() if caught else {op})
    assert max(missed.values()) < 0.01, missed
    # What changes no update, broken in any of these ways, makes none wrong: operators of the guard, which nothing trips here; the largest
    # logit, which cancels; axes of length one.
    assert harmless <= {"MAXIMUM", "NEG", "ZEROS_LIKE", "REDUCE_MAX", "BroadcastGradientArgs"}
