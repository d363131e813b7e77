"""A client plan as a program: the updates of many clients, one after the other, added up inside of it.

On a CPU this is the fast form: a client's weights stay in the cache, no batch needs a mask, and what leaves the program is one sum. The
size of a client's last batch is part of the program, since the graph divides by the size that it sees: clients are grouped by it, and
each group has a program of its own, compiled when it is met.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

import jax
import jax.numpy as jnp
import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.compiled.graph import DTYPES, Function, read_functions
from odp_taskbuilder.compiled.rounding import find_roundings
from odp_taskbuilder.compiled.tracing import Tracer, all_hold
from odp_taskbuilder.compiled.translation import Untranslatable, Value

# A client whose state or update has a larger element is not added up. TFLite clamps at 3.4e38 what overflows, and XLA does not; below this
# the squares of a hundred million elements, which the clip adds up, do not overflow.
WILD_MAGNITUDE = 1e15
# Examples that one call takes: compiled in, so the same for all calls but those for a client with more.
_MAX_CALL_BYTES = 4 << 20
_MIN_CALL_ROWS, _MAX_CALL_ROWS = 256, 1 << 14
_MAX_CALL_CLIENTS = 512


@dataclasses.dataclass(frozen=True)
class ParsedFeature:
    """A feature as ParseExampleV2 yields it.

    Attributes:
      shape: of one example.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Batching:
    """How a client's examples become batches.

    Attributes:
      max_batches: -1 for all.
      drop_remainder: a last batch that is not full is left out.
    """

    size: int
    max_batches: int
    drop_remainder: bool

    def of(self, examples: int) -> tuple[int, int]:
        """The number of full batches of so many examples, and the size of one more; 0 if there is none."""
        if self.max_batches >= 0:
            examples = min(examples, self.size * self.max_batches)
        full, last = divmod(examples, self.size)
        return full, 0 if self.drop_remainder else last


@dataclasses.dataclass(frozen=True)
class UpdateTensor:
    """A tensor of the update, as the plan saves it."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def sum_dtype(self) -> np.dtype:
        """In which updates are added up: so that neither the order nor the number of them shows in a float32."""
        return np.dtype(np.float64 if np.issubdtype(self.dtype, np.floating) else np.int64)


@dataclasses.dataclass(frozen=True)
class Sums:
    """What a call yields.

    Attributes:
      tensors: of the update, by name, added up in float64 or int64; codes are decoded, and the sum stands under the name that they are below.
      wild: positions of the clients that were left out: they, and only they, must run in the interpreter.
      integer_bytes: bytes that the integers of the clients' updates take in their files, which depends on their values.
    """

    tensors: dict[str, np.ndarray]
    wild: tuple[int, ...]
    integer_bytes: int


@dataclasses.dataclass(frozen=True)
class SingleUpdate:
    """One client's update.

    Attributes:
      saved: as the plan saves it, by name.
      unrounded: the same before the plan rounds: with float32 tensors in place of those that it does (`ClientProgram.roundings`).
    """

    saved: dict[str, np.ndarray]
    unrounded: dict[str, np.ndarray]


class ClientProgram:
    """Translates a client plan's flatbuffer, and runs it. Nothing is compiled before a client asks for it.

    Attributes:
      features: what `sums` takes of each client, in this order.
      reads: the names of the tensors of the checkpoint that the server sends.
      roundings: of tensors of the update, where the plan compresses it.
    """

    def __init__(self, flatbuffer: bytes):
        """Reads the plan.

        Raises:
          ArtifactError: it is no flatbuffer.
          Untranslatable: the way from examples to batches is none that can be followed.
        """
        self._tracer = Tracer(read_functions(flatbuffer))
        self._main = self._tracer.functions[0]
        self._dataset = _read_dataset(self._tracer, self._main)
        self.features = self._dataset.features
        self.batching = self._dataset.batching
        self.reads = tuple(
            name.decode() for node in self._main.nodes if node.name == "RestoreV2" for name in self._strings(node, 1)
        )
        self._saved = {
            name.decode(): index
            for node in self._main.nodes
            if node.name == "SaveSlices"
            for name, index in zip(self._strings(node, 1), node.operator.inputs[3:])
        }
        self.roundings = find_roundings(self._main, self._saved)
        self._rounded = {index for rounding in self.roundings for index in rounding.saved}
        self._programs: dict[tuple[int, int], Any] = {}
        self._singles: dict[tuple[int, int], Any] = {}
        self._update: Optional[tuple[UpdateTensor, ...]] = None

    def check(self, checkpoint: Mapping[str, np.ndarray]) -> None:
        """Traces the plan for a batch, which is how it shows whether all of it can be translated; nothing is compiled.

        Args:
          checkpoint: what the server sends, by name: its shapes count.

        Raises:
          Untranslatable: names the operator that cannot.
        """
        self.update(checkpoint)

    def update(self, checkpoint: Mapping[str, np.ndarray]) -> tuple[UpdateTensor, ...]:
        """The tensors of an update, in the plan's order. Raises Untranslatable."""
        if self._update is None:
            with jax.experimental.enable_x64():

                def trace(weights: list, batch: list) -> list:
                    values, _ = self._client(weights, batch, jnp.asarray(0, np.int32), jnp.asarray(1, np.int32), 0)
                    for rounding in self.roundings:
                        if rounding.step(values) is None:
                            raise Untranslatable("FLOOR", self._main.name, f"{rounding.name!r} is rounded in a way that is not known")
                    return [jnp.asarray(values[index]) for index in self._saved.values()]

                size = self.batching.size
                batch = [jax.ShapeDtypeStruct((size, *feature.shape), feature.dtype) for feature in self.features]
                shapes = jax.eval_shape(trace, self._weights(checkpoint), batch)
            self._update = tuple(
                UpdateTensor(name, np.dtype(shape.dtype), tuple(shape.shape)) for name, shape in zip(self._saved, shapes)
            )
        return self._update

    def sums(self, checkpoint: Mapping[str, np.ndarray], clients: Sequence[Sequence[np.ndarray]]) -> Sums:
        """Runs clients and adds up their updates.

        Args:
          checkpoint: what the server sends, by name.
          clients: of each client the features of all examples, each an array [examples, *shape].

        Raises:
          Untranslatable: the plan cannot be translated.
        """
        summed = self._summed(checkpoint)
        with jax.experimental.enable_x64():
            weights = jax.device_put(self._weights(checkpoint))
            sums = [np.zeros(tensor.shape, tensor.sum_dtype) for tensor in summed]
            wild: list[int] = []
            integer_bytes = 0
            calls = []
            for last, positions in self._groups(clients):
                for chunk, rows in self._chunks(clients, positions):
                    program = self._program(last, rows)
                    sums, chunk_wild, chunk_bytes = program(weights, *_call_arguments(self, clients, chunk, rows, last), sums)
                    calls.append((chunk, chunk_wild, chunk_bytes))
            # Asked for when all calls are under way.
            for chunk, chunk_wild, chunk_bytes in calls:
                wild += [position for position, is_wild in zip(chunk, np.asarray(chunk_wild)) if is_wild]
                integer_bytes += int(chunk_bytes)
            tensors = {tensor.name: np.asarray(total) for tensor, total in zip(summed, sums)}
        return Sums(tensors, tuple(sorted(wild)), integer_bytes)

    def single(self, checkpoint: Mapping[str, np.ndarray], client: Sequence[np.ndarray]) -> Optional[SingleUpdate]:
        """One client's update, and what of it the plan rounds. None if the client must run in the interpreter.

        Args: as of `sums`. Raises: as `sums`.
        """
        last = self.batching.of(len(client[0]))[1]
        ((chunk, rows),) = self._chunks([client], [0])
        key = (last, rows)
        if key not in self._singles:
            self._singles[key] = jax.jit(functools.partial(self._one, last))
        with jax.experimental.enable_x64():
            examples, first, full, _ = _call_arguments(self, [client], chunk, rows, last)
            weights = jax.device_put(self._weights(checkpoint))
            saved, unrounded, tame = self._singles[key](weights, examples, first, full)
            if not tame:
                return None
            by_name = dict(zip(self._saved, map(np.asarray, saved)))
            plain = {name: by_name[name] for name, index in self._saved.items() if index not in self._rounded}
            return SingleUpdate(
                by_name, {**plain, **{rounding.name: np.asarray(value) for rounding, value in zip(self.roundings, unrounded)}}
            )

    def rounded(self, unrounded: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, float]]:
        """What the plan makes of tensors that it rounds, operator by operator: what a compiler puts together rounds differences away that a
        single operator does not have.

        Args:
          unrounded: by name; those that are not rounded count for nothing.

        Returns:
          By name the decoded values, and the distance between two neighbouring ones.

        Raises:
          Untranslatable: an operator cannot be translated.
        """
        results = {}
        with jax.experimental.enable_x64():
            for rounding in self.roundings:
                values: dict[int, Any] = {**self._main.constants, rounding.unrounded: jnp.asarray(unrounded[rounding.name])}
                for node in rounding.nodes:
                    self._tracer.execute(self._main, node, values, [])
                results[rounding.name] = np.asarray(rounding.decoded(values)), float(rounding.step(values))
        return results

    def _summed(self, checkpoint: Mapping[str, np.ndarray]) -> list[UpdateTensor]:
        """What is added up: the update, with what the server decodes in place of codes."""
        update = {tensor.name: tensor for tensor in self.update(checkpoint)}
        by_index = {index: update[name] for name, index in self._saved.items()}
        plain = [tensor for index, tensor in by_index.items() if index not in self._rounded]
        float32 = np.dtype(np.float32)
        return plain + [UpdateTensor(rounding.name, float32, by_index[rounding.saved[0]].shape) for rounding in self.roundings]

    def _groups(self, clients: Sequence[Sequence[np.ndarray]]) -> list[tuple[int, list[int]]]:
        groups: dict[int, list[int]] = {}
        for position, client in enumerate(clients):
            groups.setdefault(self.batching.of(len(client[0]))[1], []).append(position)
        return sorted(groups.items())

    def _chunks(self, clients: Sequence[Sequence[np.ndarray]], positions: list[int]) -> Iterator[tuple[list[int], int]]:
        """Yields clients that one call can take, with the number of rows of their examples in that call."""
        row = sum(feature.dtype.itemsize * int(np.prod(feature.shape, dtype=np.int64)) for feature in self.features)
        usual = int(np.clip(_power_of_two(_MAX_CALL_BYTES // max(1, row)), _MIN_CALL_ROWS, _MAX_CALL_ROWS))
        chunk: list[int] = []
        taken = 0
        for position in positions:
            examples = len(clients[position][0])
            if chunk and (taken + examples > usual or len(chunk) == _MAX_CALL_CLIENTS):
                yield chunk, max(usual, _power_of_two(taken))
                chunk, taken = [], 0
            chunk.append(position)
            taken += examples
        if chunk:
            yield chunk, max(usual, _power_of_two(taken))

    def _weights(self, checkpoint: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        missing = [name for name in self.reads if name not in checkpoint]
        if missing:
            raise errors.ArtifactError(f"The client plan restores {missing[0]!r}, which the server's checkpoint does not hold.")
        return [checkpoint[name] for name in self.reads]

    def _program(self, last: int, rows: int) -> Any:
        key = (last, rows)
        if key not in self._programs:

            self._programs[key] = jax.jit(functools.partial(self._many, last))
        return self._programs[key]

    def _many(self, last: int, weights: list, examples: list, first: Value, full: Value, count: Value, sums: list) -> tuple:
        """Adds the updates of `count` clients to sums; the examples of client i are the rows from first[i] on."""

        def client(position: Value, carry: tuple) -> tuple:
            sums, wild, integer_bytes = carry
            values, tame = self._client(weights, examples, first[position], full[position], last)
            saved = [jnp.asarray(values[index]) for index in self._saved.values()]
            plain = [jnp.asarray(values[index]) for index in self._saved.values() if index not in self._rounded]
            decoded = [rounding.decoded(values) for rounding in self.roundings]
            sums = [
                total + jnp.where(tame, value, jnp.zeros_like(value)).astype(total.dtype)
                for total, value in zip(sums, plain + decoded)
            ]
            size = sum((_varint_bytes(value) for value in saved if jnp.issubdtype(value.dtype, jnp.integer)), jnp.int64(0))
            return sums, wild.at[position].set(~tame), integer_bytes + jnp.where(tame, size, 0)

        start = (sums, jnp.zeros(first.shape, bool), jnp.int64(0))
        return jax.lax.fori_loop(0, count, client, start)

    def _one(self, last: int, weights: list, examples: list, first: Value, full: Value) -> tuple[list[Value], list[Value], Value]:
        """What one client saves, what of it is rounded, and whether it is what TFLite would save."""
        values, tame = self._client(weights, examples, first[0], full[0], last)
        unrounded = [jnp.asarray(values[rounding.unrounded]) for rounding in self.roundings]
        return [jnp.asarray(values[index]) for index in self._saved.values()], unrounded, tame

    def _client(
        self, weights: list, examples: list, first: Value, full: Value, last: int
    ) -> tuple[dict[int, Any], Value]:
        """One client: the tensors of the main subgraph, and whether those that its plan saves are what TFLite would save."""
        values: dict[int, Any] = dict(self._main.constants)
        restored = iter(weights)
        conditions: list[Value] = []
        for node in self._main.nodes:
            operator = node.operator
            if node.name == "RestoreV2":
                values.update((index, next(restored)) for index in operator.outputs)
            elif node.name in _DATASET_OPS:
                continue
            elif node.name == "ReduceDataset":
                state = [values[index] for index in operator.inputs[1:]]
                step_count = len(operator.outputs)
                final, holds = self._loop(state[:step_count], state[step_count:], examples, first, full, last)
                conditions += [holds, *(_is_tame(value) for value in final)]
                values.update(zip(operator.outputs, final))
            elif node.name != "SaveSlices":
                self._tracer.execute(self._main, node, values, conditions)
        conditions += [_is_tame(jnp.asarray(values[index])) for index in self._saved.values()]
        return values, all_hold(conditions)

    def _loop(
        self, state: list[Value], captured: list[Value], examples: list, first: Value, full: Value, last: int
    ) -> tuple[list[Value], Value]:
        """ReduceDataset: the step over all batches of a client."""
        size = self.batching.size

        def step(start: Value, length: int, state: list[Value], holds: Value) -> tuple[list[Value], Value]:
            batch = [jax.lax.dynamic_slice_in_dim(feature, start, length) for feature in examples]
            found: list[Value] = []
            elements = self._tracer_map(batch, found)
            outputs = self._tracer.call(self._dataset.step, [*state, *elements, *captured], found)
            outputs = [jnp.asarray(output) for output in outputs]
            return outputs, holds & all_hold(found)

        def full_step(index: Value, carry: tuple) -> tuple:
            return step(first + index * size, size, *carry)

        carry = ([jnp.asarray(value) for value in state], jnp.array(True))
        carry = jax.lax.fori_loop(0, full, full_step, carry)
        return step(first + full * size, last, *carry) if last else carry

    def _tracer_map(self, batch: list[Value], conditions: list) -> list[Value]:
        """What the dataset's function makes of parsed features."""
        function = self._dataset.parse
        values: dict[int, Any] = dict(function.constants)
        for node in function.nodes:
            if node.name == "ParseExampleV2":
                values.update(zip(node.operator.outputs, batch))
            else:
                self._tracer.execute(function, node, values, conditions)
        return [values[index] for index in function.subgraph.outputs]

    def _strings(self, node: Any, position: int) -> tuple[bytes, ...]:
        return self._main.constants[node.operator.inputs[position]]


_DATASET_OPS = ("ExternalDataset", "BatchDatasetV2", "MapDataset", "TakeDataset")


@dataclasses.dataclass(frozen=True)
class _Dataset:
    features: tuple[ParsedFeature, ...]
    batching: Batching
    parse: Function
    step: Function


def _read_dataset(tracer: Tracer, main: Function) -> _Dataset:
    """What the dataset operators of the main subgraph say. They stand in the order batch, parse, take (learning.preprocessing)."""
    chain = [node for node in main.nodes if "VARIANT" in {main.subgraph.tensors[i].dtype for i in _all_tensors(node)}]
    found = tuple(node.name for node in chain)
    expected = ("ExternalDataset", "BatchDatasetV2", "MapDataset", "TakeDataset", "ReduceDataset")
    for name in found:
        if name not in expected:
            raise Untranslatable(name, main.name, "it has no translation")
    if found != expected:
        raise Untranslatable("ReduceDataset", main.name, f"its dataset comes by {', '.join(found)}")
    _, batch, parse, take, reduce = chain

    def constant(node: Any, position: int) -> Any:
        value = main.constants.get(node.operator.inputs[position])
        if value is None or value.size != 1:
            raise Untranslatable(node.name, main.name, f"its input {position} is known only when it runs")
        return value.item()

    def function(node: Any) -> Function:
        name = node.attributes["f"].func.name
        found = tracer.function(name)
        if found is None:
            raise Untranslatable(node.name, main.name, f"there is no subgraph {name!r}")
        return found

    parse_function = function(parse)
    return _Dataset(
        features=_parsed_features(parse_function),
        batching=Batching(constant(batch, 1), constant(take, 1), bool(constant(batch, 2)) if _has(main, batch, 2) else False),
        parse=parse_function,
        step=function(reduce),
    )


def _has(main: Function, node: Any, position: int) -> bool:
    """Whether an input is there. A false scalar of type bool has no buffer."""
    return node.operator.inputs[position] in main.constants


def _all_tensors(node: Any) -> tuple[int, ...]:
    return tuple(index for index in (*node.operator.inputs, *node.operator.outputs) if index >= 0)


def _parsed_features(parse: Function) -> tuple[ParsedFeature, ...]:
    nodes = [node for node in parse.nodes if node.name == "ParseExampleV2"]
    if len(nodes) != 1:
        raise Untranslatable("MapDataset", parse.name, f"its function parses examples {len(nodes)} times")
    (node,) = nodes
    names = parse.constants.get(node.operator.inputs[3], ())
    shapes = node.attributes["dense_shapes"].list.shape
    features = []
    for name, shape, index in zip(names, shapes, node.operator.outputs):
        tensor = parse.subgraph.tensors[index]
        if tensor.dtype not in DTYPES:
            raise Untranslatable("ParseExampleV2", parse.name, f"the feature {name.decode()!r} is {tensor.dtype}")
        features.append(ParsedFeature(name.decode(), DTYPES[tensor.dtype], tuple(dim.size for dim in shape.dim)))
    if len(features) != len(node.operator.outputs):
        raise Untranslatable("ParseExampleV2", parse.name, "it parses features of unknown length")
    return tuple(features)


def _call_arguments(
    program: ClientProgram, clients: Sequence[Sequence[np.ndarray]], chunk: list[int], rows: int, last: int
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.int32]:
    """The examples of some clients in one array per feature, where each client's start, how many full batches it has, and the number
    of clients."""
    examples = []
    for index, feature in enumerate(program.features):
        table = np.zeros((rows, *feature.shape), feature.dtype)
        parts = np.concatenate([clients[position][index] for position in chunk])
        table[: len(parts)] = parts
        examples.append(table)
    lengths = np.array([len(clients[position][0]) for position in chunk])
    first = np.zeros(_MAX_CALL_CLIENTS, np.int32)
    full = np.zeros(_MAX_CALL_CLIENTS, np.int32)
    first[: len(chunk)] = np.cumsum(lengths) - lengths
    full[: len(chunk)] = [program.batching.of(length)[0] for length in lengths]
    return examples, first, full, np.int32(len(chunk))


def _is_tame(value: Value) -> Value:
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return jnp.array(True)
    # Not a number is smaller than nothing.
    return jnp.all(jnp.abs(value) < WILD_MAGNITUDE)


def integer_bytes(update: Mapping[str, np.ndarray]) -> int:
    """Bytes that the integers of an update take in its file."""
    with jax.experimental.enable_x64():
        return sum(int(_varint_bytes(jnp.asarray(value))) for value in update.values() if value.dtype.kind in "iu")


def _varint_bytes(value: Value) -> Value:
    """Bytes of integers as protobuf's varints: seven bits each, ten bytes for a negative number."""
    wide = value.astype(jnp.int64)
    sizes = 1 + sum(((wide >> (7 * count)) != 0).astype(jnp.int64) for count in range(1, 9))
    return jnp.sum(jnp.where(wide < 0, 10, sizes))


def _power_of_two(number: int) -> int:
    """The smallest one that is not smaller."""
    return 1 << max(0, number - 1).bit_length()
