"""Inspections as text for people."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Optional, Union

from odp_taskbuilder.artifacts import artifact_set
from odp_taskbuilder.artifacts.tensors import TensorSpec, shape_text
from odp_taskbuilder.base import plain_text
from odp_taskbuilder.base.phone_limits import DOUBTFUL_RUNTIME, MAX_RUNTIME
from odp_taskbuilder.inspection.checkpoint_facts import CheckpointFacts, TensorFacts
from odp_taskbuilder.inspection.client_ops import ClientOps
from odp_taskbuilder.inspection.inspect import InspectedFile, Inspection
from odp_taskbuilder.inspection.plan_facts import (
    CheckpointStep,
    Client,
    DistributeAggregateServer,
    MapReduceServer,
    PlanFacts,
    Session,
)
from odp_taskbuilder.inspection.server_graph import ServerGraph
from odp_taskbuilder.inspection.traffic import Traffic
from odp_taskbuilder.ops.advice import advice_for
from odp_taskbuilder.ops.report import OpsReport
from odp_taskbuilder.ops.runtimes import parse_runtime, runtime_text
from odp_taskbuilder.ops.tflite import OpKind

if TYPE_CHECKING:
    from odp_taskbuilder.inspection.diff import Difference
    from odp_taskbuilder.inspection.verify import Verification

_LABEL_WIDTH = 14
_WIDTH = 118
# Longer lists of tensors end with how many more there are.
_MAX_TENSORS = 60


def inspection_text(inspection: Inspection) -> str:
    """What `odp-task inspect` prints."""
    blocks = ["\n".join(_file(file, inspection)) for file in inspection.files]
    if inspection.traffic:
        blocks.append("\n".join(_traffic_table(inspection)))
    for path, values in inspection.configs.items():
        rows = [(name, _setting(entry["value"]), entry["origin"]) for name, entry in values.items()]
        blocks.append("\n".join([f"Built with ({path / artifact_set.MANIFEST})", *(f"  {row}" for row in _in_columns(rows))]))
    return plain_text.escaped("\n\n".join(blocks), keep="\n")


def _setting(value: Union[str, float, bool, None]) -> str:
    if value is None:
        return "(none)"
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'


def client_ops_text(graphs: Sequence[ClientOps], module_version: Optional[int]) -> str:
    """What `odp-task ops` prints; `module_version` is what phones are asked to have."""
    return plain_text.escaped("\n\n".join("\n".join(_client_ops(graph, module_version)) for graph in graphs), keep="\n")


def _client_ops(graph: ClientOps, module_version: Optional[int]) -> Iterator[str]:
    ops = graph.ops
    unsupported = ops.unsupported(module_version)
    yield f"{graph.name}: {sum(use.count for use in ops.ops)} operators in {len(ops.subgraphs)} subgraphs"
    rows = [("op", "kind", "count", "subgraphs", "from version", "kernel")]
    for use in ops.ops:
        version = "never" if use.min_module_version is None else str(use.min_module_version)
        if use.kind is OpKind.BUILTIN:
            version = f"TFLite {runtime_text(use.min_runtime)}" if use.min_runtime else "TFLite of an unknown release"
            version += f" (op version {use.version})"
        version += " (!)" if use in unsupported else ""
        rows.append((use.op, use.kind.value, str(use.count), ", ".join(map(str, use.counts)), version, use.kernel))
    yield from (f"  {row}" for row in _aligned(rows))
    yield "Subgraphs: " + ", ".join(f"{index} {name}" for index, name in enumerate(ops.subgraphs))
    if ops.replaced:
        yield "Replaced, because phones lack them:"
        for replaced in ops.replaced:
            yield f"  {replaced}"
            yield from (f"    from {origin}" for origin in graph.origins.get(replaced.op, ()))
    if not unsupported:
        wanted = "" if module_version is None else f" Version {module_version} runs it."
        yield f"Needs module version {ops.min_module_version or 'any'}.{wanted}"
        yield from _runtime(ops)
        return
    phones = "No listed module version has" if module_version is None else f"Module version {module_version} does not have"
    yield f"{phones} {', '.join(use.op for use in unsupported)}."
    for use in unsupported:
        advice = advice_for(use.op)
        yield f"  {use.op}" + (f": {advice.source}" if advice else "")
        yield from (f"    from {origin}" for origin in graph.origins.get(use.op, ()))
        if advice:
            yield f"    instead: {advice.instead}"


def _runtime(ops: OpsReport) -> Iterator[str]:
    if ops.min_runtime is None:
        return
    known = f"Needs TensorFlow Lite {runtime_text(ops.min_runtime)}"
    doubtful = parse_runtime(DOUBTFUL_RUNTIME)
    if ops.min_runtime <= doubtful:
        yield f"{known}; phones have a fork of about {DOUBTFUL_RUNTIME}."
        return
    late = ", ".join(use.op for use in ops.beyond_runtime(doubtful))
    fate = "may not load it" if ops.min_runtime <= parse_runtime(MAX_RUNTIME) else "do not load it"
    yield f"{known}{f' ({late})' if late else ''}; phones have a fork of about {DOUBTFUL_RUNTIME} and {fate}."


def differences_text(differences: Sequence[Difference]) -> str:
    """What `odp-task diff` prints: by file, one line per difference."""
    if not differences:
        return "No difference."
    lines, file = [], None
    for difference in differences:
        if difference.path[:1] != file:
            file = difference.path[:1]
            lines.append("".join(file))
        place = " > ".join(difference.path[1:]) or "the file"
        lines.append(f"  {place}: {difference.left} -> {difference.right}")
    return plain_text.escaped("\n".join(lines), keep="\n")


def verification_text(verification: Verification) -> str:
    """What `odp-task verify` prints."""
    lines = [f"{finding.file}: {finding.problem}" for finding in verification.findings]
    for prefix, done in verification.rounds.items():
        metrics = ", ".join(f"{name} {value:.6g}" for name, value in done.metrics.items())
        lines.append(
            f"{prefix}plan.pb: a round with {len(done.upload_bytes)} devices ran; each downloaded {done.plan_bytes:,} and "
            f"{done.download_bytes:,} bytes and uploaded {max(done.upload_bytes):,}, in at most {max(done.client_seconds):.2g} s here; {metrics}"
        )
    for prefix, wild in verification.wild_updates.items():
        norms = [update.norm for update in wild.updates if update.norm is not None]
        longest = f"; the longest update has norm {max(norms):.6g} under a clip of {wild.clip:.6g}" if norms else ""
        failed = sum(update.failure is not None for update in wild.updates)
        failures = f", of which {failed} reported nothing" if failed else ""
        lines.append(f"{prefix}plan.pb: {len(wild.updates)} clients with examples that nobody would send{failures}{longest}")
    lines += [f"Note: {note}" for note in verification.notes]
    verdict = "does not hold" if verification.findings else "holds"
    lines.append(f"{len(verification.checked)} files, {len(verification.findings)} findings: {verdict}.")
    return plain_text.escaped("\n".join(lines), keep="\n")


def size_text(num_bytes: Optional[int]) -> str:
    """1,234, or "unknown"."""
    return "unknown" if num_bytes is None else f"{num_bytes:,}"


def _file(file: InspectedFile, inspection: Inspection) -> Iterator[str]:
    facts = file.facts
    if isinstance(facts, CheckpointFacts):
        yield f"{file.path}: checkpoint, {facts.num_bytes:,} bytes"
        yield from _checkpoint(facts)
        return
    form = f", {facts.form} form" if facts.form else ""
    yield f"{file.path}: {file.kind}{form}, {facts.num_bytes:,} bytes"
    plan = _plan_beside(file, inspection)
    if plan is not None and isinstance(plan.facts, PlanFacts) and plan.facts.client == facts.client:
        yield f"  the client's part of {plan.path.name}"
        return
    yield from _client(facts.client, inspection.traffic_of(file))
    if isinstance(facts.server, MapReduceServer):
        yield from _map_reduce(facts.server)
    elif isinstance(facts.server, DistributeAggregateServer):
        yield from _distribute_aggregate(facts.server)


def _plan_beside(file: InspectedFile, inspection: Inspection) -> Optional[InspectedFile]:
    """The Plan of the same task, for a ClientOnlyPlan."""
    if file.kind != "ClientOnlyPlan":
        return None
    beside = (other for other in inspection.files if other.kind == "Plan" and other.path.parent == file.path.parent)
    return next((other for other in beside if other.task == file.task), None)


def _client(client: Client, traffic: Traffic) -> Iterator[str]:
    graph = client.graph
    yield "  client"
    yield from _session("takes", client.session)
    yield from _entry("features", _tensor_rows(graph.features))
    limit = "all batches" if graph.max_batches == -1 else f"at most {graph.max_batches} batches"
    yield from _entry("examples", [f"batches of {graph.batch_size}, {limit}, iterated by {graph.loop}"])
    yield from _entry("selector", [client.session.example_selector_uri or graph.example_selector_uri or "(empty)"])
    # The server's side knows more shapes than the flatbuffer.
    yield from _entry("reads", _tensor_rows(traffic.download))
    yield from _entry("writes", _tensor_rows(traffic.upload))
    yield from _entry("secure sums", client.secure_aggregations)
    operators = sum(subgraph.operators for subgraph in graph.subgraphs)
    yield from _entry("TFLite graph", [f"{graph.num_bytes:,} bytes, {len(graph.subgraphs)} subgraphs, {operators} operators"])
    version = client.ops.min_module_version
    needs = "no listed module version has all its ops" if version is None else f"module version {version or 'any'}"
    yield from _entry("runs on", [needs])
    yield from _entry("flex ops", _ops(client.ops, OpKind.FLEX))
    yield from _entry("builtin ops", _ops(client.ops, OpKind.BUILTIN))
    yield from _entry("custom ops", _ops(client.ops, OpKind.CUSTOM))
    yield from _entry("replaced", [str(op) for op in client.ops.replaced])


def _ops(ops: OpsReport, kind: OpKind) -> list[str]:
    unsupported = ops.unsupported()
    return _wrapped(
        f"{use.op}{f' x{use.count}' if use.count > 1 else ''}{' (unsupported)' if use in unsupported else ''}"
        for use in ops.ops
        if use.kind is kind
    )


def _session(label: str, session: Session) -> Iterator[str]:
    inputs = [session.token] if session.token else []
    yield from _entry(label, _wrapped([*inputs, *(tensor.name for tensor in session.inputs)]))
    yield from _entry("runs", _wrapped(session.targets))
    yield from _entry("fetches", _tensor_rows(session.outputs))


def _map_reduce(server: MapReduceServer) -> Iterator[str]:
    yield "  server"
    entries = {name: _step(step) for name, step in server.checkpoints.items()}
    entries.update({name: [op] for name, op in server.ops.items()})
    width = max(map(len, entries), default=0)
    for name, lines in entries.items():
        yield from _entry(name, lines, width)
    yield from _entry("metrics", [f"{metric.name} <- {metric.tensor}" for metric in server.metrics])
    yield from _graph(server.graph)


def _step(step: CheckpointStep) -> list[str]:
    restore = [name for name in (step.before_restore, step.restore, step.after_restore) if name]
    save = [name for name in (step.before_save, step.save, step.after_save) if name]
    return [f"{when}: {', '.join(names)}" for when, names in (("restore", restore), ("save", save)) if names]


def _distribute_aggregate(server: DistributeAggregateServer) -> Iterator[str]:
    for name, session, graph in (
        ("prepare", server.prepare, server.prepare_graph),
        ("result", server.result, server.result_graph),
    ):
        yield f"  server, {name}"
        if session is not None:
            yield from _session("takes", session)
        yield from _graph(graph)
    yield "  server, aggregations"
    rows = [
        f"{aggregation.intrinsic}({', '.join(map(str, aggregation.inputs + aggregation.state_inputs))})"
        f" -> {', '.join(tensor.name for tensor in aggregation.outputs)}"
        for aggregation in server.aggregations
    ]
    yield from (f"    {row}" for row in _shortened(rows))


def _graph(graph: Optional[ServerGraph]) -> Iterator[str]:
    if graph is None:
        yield from _entry("graph", ["(absent)"])
        return
    yield from _entry("graph", [f"{graph.num_bytes:,} bytes, {graph.nodes} nodes, {len(graph.variables)} variables"])
    yield from _entry("", _wrapped(f"{op} x{count}" if count > 1 else op for op, count in graph.ops.items()))


def _checkpoint(checkpoint: CheckpointFacts) -> Iterator[str]:
    yield f"  {checkpoint.role}, {len(checkpoint.tensors)} tensors"
    yield from _shortened([f"    {row}" for row in _grouped(checkpoint.tensors)])
    if checkpoint.privacy is not None:
        privacy = checkpoint.privacy
        yield f"  DP aggregator: {privacy.aggregator}"
        yield from (f"    {meaning}: {_value(value)}  ({name})" for name, meaning, value in privacy.parameters if value != "")
        if privacy.noise_seeds:
            yield "  WARNING: whoever reads this file can take the noise off the model. The seeds of the noise are in"
            yield from (f"    {name}" for name in privacy.noise_seeds)


def _grouped(tensors: Sequence[TensorFacts]) -> Iterator[str]:
    """Tensors below the part of the name that they share with their neighbours: names may be long."""
    for scope, group in itertools.groupby(tensors, key=lambda tensor: tensor.name.rpartition("/")[0]):
        yield f"{scope}/" if scope else ""
        cells = [(tensor.name.rpartition("/")[2], _type(tensor), _size(tensor), _content(tensor)) for tensor in group]
        yield from (f"  {row}" for row in _aligned(cells))


def _size(tensor: Union[TensorFacts, TensorSpec]) -> str:
    return "" if tensor.num_bytes is None else f"{tensor.num_bytes:,}"


def _type(tensor: Union[TensorFacts, TensorSpec]) -> str:
    return f"{tensor.dtype}{shape_text(tensor.shape)}"


def _content(tensor: TensorFacts) -> str:
    if tensor.value is not None:
        return _value(tensor.value)
    numbers = tensor.statistics
    if numbers is None:
        return ""
    odd = f", {numbers.non_finite} NOT FINITE" if numbers.non_finite else ""
    return f"min {numbers.minimum:.6g}, max {numbers.maximum:.6g}, mean {numbers.mean:.6g}, norm {numbers.norm:.6g}{odd}"


def _value(value: Union[float, int, bool, str]) -> str:
    return f"{value:.8g}" if isinstance(value, float) else repr(value) if isinstance(value, str) else str(value)


def _traffic_table(inspection: Inspection) -> Iterator[str]:
    several = len({entry.directory for entry in inspection.traffic}) > 1
    rows: list[tuple[str, ...]] = [("Bytes per device and round, uncompressed", "plan", "model down", "update up", "total")]
    for entry in inspection.traffic:
        sizes = [entry.traffic.plan_bytes, entry.traffic.download_bytes, entry.traffic.upload_bytes]
        label = str(entry.directory / entry.task) if several else entry.task
        rows.append((f"  {label}", *map(size_text, [*sizes, None if None in sizes else sum(sizes)])))
        plain = [sizes[0], entry.traffic.plain_download_bytes, entry.traffic.plain_upload_bytes]
        if plain != sizes:
            rows.append((f"  {label}, without codes", *map(size_text, [*plain, None if None in plain else sum(plain)])))
    width = max(len(row[0]) for row in rows)
    for label, *numbers in rows:
        yield f"{label:{width}}" + "".join(f"{number:>14}" for number in numbers)
    if any("unknown" in row for row in rows):
        yield "The plan alone does not tell the shape of every tensor: name a server checkpoint of the task, too."


def _entry(label: str, lines: Sequence[str], width: int = _LABEL_WIDTH) -> Iterator[str]:
    """A labelled entry, one line per item; nothing for no items."""
    for index, line in enumerate(lines):
        yield f"    {label if index == 0 else '':{width}} {line}"


def _tensor_rows(tensors: Sequence[TensorSpec]) -> list[str]:
    return _shortened(_aligned([(tensor.name, _type(tensor), _size(tensor)) for tensor in tensors]))


def _in_columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows]


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Cells in columns; the third column holds numbers."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    cells = (
        (f"{cell:>{width}}" if index == 2 else f"{cell:{width}}" for index, (cell, width) in enumerate(zip(row, widths)))
        for row in rows
    )
    return ["  ".join(row).rstrip() for row in cells]


def _shortened(rows: list[str]) -> list[str]:
    if len(rows) <= _MAX_TENSORS:
        return rows
    return [*rows[: _MAX_TENSORS - 1], f"... and {len(rows) - _MAX_TENSORS + 1} more (--json shows all)"]


def _wrapped(items: Iterable[str]) -> list[str]:
    """Items separated by commas, in lines of readable width."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 2 + _LABEL_WIDTH <= _WIDTH:
            lines[-1] += f", {item}"
        else:
            if lines:
                lines[-1] += ","
            lines.append(item)
    return lines
