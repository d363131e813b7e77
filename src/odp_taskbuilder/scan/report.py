"""What a scan is limited by, and what it finds."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

from odp_taskbuilder.scan import ops as scan_ops

# Names in a model are its author's choice; they reach a terminal, or a log, in this length at most and without control characters.
_MAX_SHOWN_NAME = 120


@dataclasses.dataclass(frozen=True)
class ScanLimits:
    """What a model may ask for. The defaults leave room for models far larger than a phone can train.

    Attributes:
      graph_bytes: size of saved_model.pb, or of any other file besides the variables. Models hold their weights elsewhere and take
        kilobytes here.
      fingerprint_bytes: size of fingerprint.pb, which holds five numbers.
      fields: fields in such a file, those of nested messages included. A node takes about twenty.
      packed_bytes: size of the lists of numbers in such a file. Large constants are stored as bytes, which do not count here.
      name_bytes: size of one name or other text in such a file.
      index_bytes: size of variables.index, of its content once decompressed, and of the object graph in the variables.
      variables_bytes: size of all variables together. The task server reads each artifact into one array of less than 2 GiB.
      files: entries in the model's directory, subdirectories included.
      variables: tensors in the variables.
      functions: functions in the library.
      nodes: nodes of all functions and the main graph.
      attributes: attributes of all these nodes.
      inlined_nodes: nodes after every call is replaced by the body of its function, which is what TensorFlow does.
      call_depth: functions that call each other, one below the other.
      objects: objects that TensorFlow makes in Python while loading.
      objects_bytes: size of their description.
      attribute_bytes: size of one string attribute.
      list_length: entries in one list attribute, nested structure or object's children.
      tensor_elements: elements of a tensor that a constant states or that a constant shape asks for (2**28 float32: 1 GiB).
      made_elements: elements of all tensors together that constant shapes ask for.
      constant_bytes: size of all constants together once they are expanded, in the graph and, apart from that, in the object graph.
      attribute: absolute value of an integer attribute; of those that say how many inputs or outputs there are, `list_length`.
      steps: tensors, callers and values that are looked at to find out how large tensors are. Models take some thousand.
      findings: reasons that are listed; the verdict does not change with more.
    """

    graph_bytes: int = 64 * 2**20
    fingerprint_bytes: int = 4 * 2**10
    fields: int = 2_000_000
    packed_bytes: int = 16 * 2**20
    name_bytes: int = 64 * 2**10
    index_bytes: int = 4 * 2**20
    variables_bytes: int = 16 * 2**30
    files: int = 1_000
    variables: int = 100_000
    functions: int = 10_000
    nodes: int = 50_000
    attributes: int = 250_000
    inlined_nodes: int = 2_000_000
    call_depth: int = 64
    objects: int = 50_000
    objects_bytes: int = 4 * 2**20
    attribute_bytes: int = 2**20
    list_length: int = 100_000
    tensor_elements: int = 2**28
    made_elements: int = 2**30
    constant_bytes: int = 2**30
    attribute: int = 2**24
    steps: int = 1_000_000
    findings: int = 10_000


@dataclasses.dataclass(frozen=True)
class Finding:
    """One reason to refuse a model.

    Attributes:
      function: name of the function, or the part of the file, that holds it ("main graph", "object graph", "variables", ...).
      node: name of the node or object in there; empty when the whole of it is meant.
      op: the operation of the node; empty where the finding is not about a node.
      reason: what is wrong with it.
    """

    function: str
    node: str
    op: str
    reason: str

    def __str__(self) -> str:
        place = printable(self.function)
        if self.op:
            return f"{printable(self.op)} in {place}, node {printable(self.node)}: {self.reason}"
        return f"{place}{', ' + printable(self.node) if self.node else ''}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class ScanReport:
    """What is in a model, and what speaks against loading it.

    Attributes:
      path: the model's directory.
      findings: reasons to refuse it, in the order of the file; all of them, up to `ScanLimits.findings`.
      op_counts: number of nodes per operation, over the main graph and all functions.
      reachable_functions: the functions of the library that something in the file can have TensorFlow run; all but those that save
        and restore the variables, which nothing but the saver names.
      num_functions: functions in the library.
      variables_bytes: size of the variables' data files.
    """

    path: pathlib.Path
    findings: tuple[Finding, ...]
    op_counts: Mapping[str, int]
    reachable_functions: frozenset[str]
    num_functions: int
    variables_bytes: int

    @property
    def is_safe(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def ops_by_group(self) -> dict[str, dict[str, int]]:
        """Number of nodes per operation, by the reason that operations are allowed for; those that never are come last."""
        allowed = scan_ops.allowed_ops()
        groups: dict[str, dict[str, int]] = {group.name: {} for group in allowed.values()}
        refused: dict[str, int] = {}
        for op, count in sorted(self.op_counts.items()):
            (groups[allowed[op].name] if op in allowed else refused)[printable(op)] = count
        return {name: ops for name, ops in {**groups, "refused": refused}.items() if ops}


def printable(name: str) -> str:
    """A name out of a model, fit to be shown."""
    shown = "".join(c if c.isprintable() else "?" for c in name[:_MAX_SHOWN_NAME])
    return shown if len(name) <= _MAX_SHOWN_NAME else f"{shown}..."
