"""Which ops a client graph uses, and the module version that phones need to run it (spec: flex_ops.md, section 2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Optional

from odp_taskbuilder import errors
from odp_taskbuilder.base.phone_limits import DOUBTFUL_RUNTIME, MAX_RUNTIME
from odp_taskbuilder.ops import kernels, runtimes
from odp_taskbuilder.ops.allowlist import Allowlist
from odp_taskbuilder.ops.runtimes import Runtime, parse_runtime, runtime_text
from odp_taskbuilder.ops.tflite import Operator, OpKind, TfliteGraph, read_tflite


@dataclasses.dataclass(frozen=True)
class OpUse:
    """All operators of a client graph that execute one op.

    Attributes:
      op: TFLite's name of a builtin op, TensorFlow's name of a flex op.
      counts: index of a subgraph -> operators there.
      min_module_version: the first module version that runs it: 0 for a builtin op, None when no listed version does.
      kernel: class of the TensorFlow kernel of a flex op; empty when it is unknown or was not asked for.
      example: the first operator, whose attributes stand for all of them.
      version: of a builtin op, the highest among the operators.
      min_runtime: the first release of TensorFlow Lite that has a builtin op in this version, as (2, 6, 0); None where that is not known.
    """

    op: str
    kind: OpKind
    counts: Mapping[int, int]
    min_module_version: Optional[int]
    example: Operator = dataclasses.field(repr=False)
    kernel: str = ""
    version: int = 1
    min_runtime: Optional[Runtime] = None

    @property
    def count(self) -> int:
        return sum(self.counts.values())


@dataclasses.dataclass(frozen=True)
class ReplacedOp:
    """An op that a client graph would have, were it not for the ops that stand in its place (replacement/).

    Attributes:
      count: how many operators were replaced.
      by: what stands in their place, in words.
    """

    op: str
    count: int
    by: str

    def __str__(self) -> str:
        return f"{self.op}{f' x{self.count}' if self.count > 1 else ''}: {self.by}"


@dataclasses.dataclass(frozen=True)
class OpsReport:
    """The ops of one client graph.

    Attributes:
      subgraphs: their names; the first is the main graph.
      ops: ordered by kind, then by name.
      stated_runtime: the release of TensorFlow Lite that the graph's converter says it needs; None where it says nothing.
      replaced: the ops that a build replaced, where that is known: a flatbuffer does not say it.
      kept: unsupported op -> why it was not replaced, a clause that follows the op's name.
    """

    subgraphs: tuple[str, ...]
    ops: tuple[OpUse, ...]
    stated_runtime: Optional[Runtime] = None
    replaced: tuple[ReplacedOp, ...] = ()
    kept: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def unsupported(self, module_version: Optional[int] = None) -> tuple[OpUse, ...]:
        """The ops that phones lack: those of no listed version, and those newer than `module_version` where it is given."""
        return tuple(
            use
            for use in self.ops
            if use.min_module_version is None or (module_version is not None and use.min_module_version > module_version)
        )

    @property
    def min_module_version(self) -> Optional[int]:
        """The first module version that runs the whole graph; 0 without flex ops, None when no listed version does."""
        versions = [use.min_module_version for use in self.ops]
        return None if None in versions else max(versions, default=0)

    @property
    def min_runtime(self) -> Optional[Runtime]:
        """The first release of TensorFlow Lite that runs the whole graph; None where nothing is known of it."""
        known = [use.min_runtime for use in self.ops if use.min_runtime is not None]
        return max([*known, *([self.stated_runtime] if self.stated_runtime else [])], default=None)

    def beyond_runtime(self, limit: Runtime) -> tuple[OpUse, ...]:
        """The builtin ops that a runtime of that release is known to lack."""
        return tuple(use for use in self.ops if use.min_runtime is not None and use.min_runtime > limit)


def ops_report(tflite_graph: bytes, *, allowlist: Optional[Allowlist] = None) -> OpsReport:
    """Lists the ops of a client graph.

    Args:
      tflite_graph: a TFLite flatbuffer.
      allowlist: what phones can run; the built-in list unless given.

    Raises:
      ArtifactError: the flatbuffer is corrupt.
    """
    return ops_of(read_tflite(tflite_graph), allowlist=allowlist)


def ops_of(graph: TfliteGraph, *, allowlist: Optional[Allowlist] = None) -> OpsReport:
    """`ops_report` for a graph that was read already."""
    allowlist = allowlist or Allowlist.builtin()
    examples: dict[tuple[OpKind, str], Operator] = {}
    counts: dict[tuple[OpKind, str], dict[int, int]] = {}
    highest: dict[tuple[OpKind, str], int] = {}
    for index, subgraph in enumerate(graph.subgraphs):
        for operator in subgraph.operators:
            key = (operator.kind, operator.op)
            examples.setdefault(key, operator)
            by_subgraph = counts.setdefault(key, {})
            by_subgraph[index] = by_subgraph.get(index, 0) + 1
            highest[key] = max(highest.get(key, 1), operator.version)
    versions = {OpKind.BUILTIN: lambda op: 0, OpKind.FLEX: allowlist.min_module_version, OpKind.CUSTOM: lambda op: None}
    uses = [
        dataclasses.replace(
            OpUse(op, kind, counts[kind, op], versions[kind](op), example),
            version=highest[kind, op],
            min_runtime=runtimes.min_runtime(op, highest[kind, op]) if kind is OpKind.BUILTIN else None,
        )
        for (kind, op), example in examples.items()
    ]
    return OpsReport(
        subgraphs=tuple(subgraph.name for subgraph in graph.subgraphs),
        ops=tuple(sorted(uses, key=lambda use: (use.kind.value, use.op))),
        stated_runtime=graph.min_runtime,
    )


def with_kernels(report: OpsReport) -> OpsReport:
    """The report with the kernel class of every flex op; takes about half a second, in a child process."""
    flex = [use for use in report.ops if use.kind is OpKind.FLEX]
    names = dict(zip((use.op for use in flex), kernels.kernel_classes([use.example.node_def for use in flex])))
    uses = (dataclasses.replace(use, kernel=names[use.op]) if use.kind is OpKind.FLEX else use for use in report.ops)
    return dataclasses.replace(report, ops=tuple(uses))


def check_ops(report: OpsReport) -> str:
    """The module version that the client graph needs, as a task's `min_client_version`: "0" without flex ops.

    Raises:
      UnsupportedOpsError: no listed version runs it. The sentence, its map included, stands on one line: scripts look for it.
    """
    if report.min_module_version is not None:
        return str(report.min_module_version)
    ops = {use.op: use.kernel for use in with_kernels(report).unsupported()}
    reasons = "".join(f"{op} was not replaced: {report.kept[op]}. " for op in sorted(ops) if op in report.kept)
    raise errors.UnsupportedOpsError(
        f"Cannot build the ClientOnlyPlan: Please contact Google to register these ops: {dict(sorted(ops.items()))}",
        ops=dict(sorted(ops.items())),
        next_step=f"{reasons}`odp-task ops` says where each comes from and what avoids it; --skip_flex_ops_check builds all the same.",
    )


def check_runtime(report: OpsReport, allow_runtime: Optional[str] = MAX_RUNTIME) -> tuple[str, ...]:
    """Whether the TensorFlow Lite of phones is recent enough for a client graph (spec: phone.md, H5).

    Args:
      allow_runtime: the release that phones are taken to have; None asks nothing.

    Returns:
      What a person should know of it, a sentence or nothing.

    Raises:
      UnsupportedOpsError: the graph needs a later release.
    """
    needed, doubtful = report.min_runtime, parse_runtime(DOUBTFUL_RUNTIME)
    if allow_runtime is None or needed is None or needed <= doubtful:
        return ()
    allowed = parse_runtime(allow_runtime)
    late = report.beyond_runtime(doubtful if needed <= allowed else allowed)
    ops = {use.op: f"TensorFlow Lite {runtime_text(use.min_runtime)}" for use in late}
    because = f", because of {', '.join(f'{op} ({release})' for op, release in ops.items())}" if ops else ""
    sentence = f"The client plan needs TensorFlow Lite {runtime_text(needed)}{because}"
    if needed <= allowed:
        return (f"{sentence}. Phones have a fork of 2022-08, about {DOUBTFUL_RUNTIME}: not all may load it.",)
    raise errors.UnsupportedOpsError(
        f"{sentence}; phones have a fork of 2022-08, which loads nothing beyond {runtime_text(allowed)}.",
        ops=ops,
        next_step="`odp-task ops` shows what needs which release: avoid it in the model. If your phones have a later one, build with "
        f"--allow_runtime {runtime_text(needed)}.",
    )
