"""What a model of unknown origin may hold, told from its files alone, before anything loads it.

    report = scan.scan_model("model")
    report.is_safe, report.findings

    scan.require_safe("model")   # raises errors.UntrustedModelError

A SavedModel is a program. TensorFlow runs parts of it while loading, and folds what it can compute into the graphs that it builds: the
content of a file that a model reads ends up in the plan, and the operation that read it is gone. So the model is looked at first,
with nothing but protobuf: every function of its library, used or not, its main graph, the objects that the loader makes, and the index
of its variables. What is not on the list of pure operations (allowed_ops.json) is refused.

A model is scanned and loaded from the same directory: whoever can write to it in between escapes the scan. Copy a model that comes
from somebody else to a place of your own first. What the scan cannot see is how long a loop runs and how large a computed shape is;
the sandbox bounds those.

Uses proto/ and errors.py. Loading a model that passed is model/'s; running one safely is sandbox/'s.
"""

from __future__ import annotations

import itertools
import os
import pathlib
from typing import Union

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.
from odp_taskbuilder import errors
from odp_taskbuilder.scan import files, graph, objects, variables
from odp_taskbuilder.scan.report import Finding, ScanLimits, ScanReport

from tensorflow.core.protobuf import saved_model_pb2  # isort: skip

__all__ = ["Finding", "ScanLimits", "ScanReport", "require_safe", "scan_model"]

# How many findings an error names; the report has them all.
_MAX_SHOWN_FINDINGS = 40


def scan_model(path: Union[str, os.PathLike], limits: ScanLimits = ScanLimits()) -> ScanReport:
    """Scans the SavedModel in a directory. Takes a tenth of a second for a usual model, and memory for saved_model.pb.

    Raises:
      errors.ModelError: the directory is missing or unreadable, a file in it is damaged or no regular file, or the SavedModel is
        not that of a FunctionalModel.
    """
    path = pathlib.Path(path)
    findings = files.scan_directory(path, limits)
    if not (path / files.GRAPH_FILE).exists():
        # The findings say what TensorFlow would load instead.
        return ScanReport(path, tuple(findings), {}, frozenset(), 0, 0)
    content = files.read_file(path, files.GRAPH_FILE, limits.graph_bytes)
    problem = files.excess(path, files.GRAPH_FILE, content, saved_model_pb2.SavedModel, limits)
    if problem is not None:
        # Not even protobuf is to take it apart.
        findings.append(Finding(files.GRAPH_FILE, "", "", problem))
        return ScanReport(path, tuple(findings), {}, frozenset(), 0, 0)
    saved_model = files.parse(path, files.GRAPH_FILE, content, saved_model_pb2.SavedModel)
    if not saved_model.meta_graphs:
        raise errors.ModelError(f"{path}: {files.GRAPH_FILE} holds no model.")
    if len(saved_model.meta_graphs) > 1:
        findings.append(Finding(files.GRAPH_FILE, "", "", f"{len(saved_model.meta_graphs)} meta graphs; a model has one"))
    # Of several the first; the others do not change the verdict any more.
    meta_graph = saved_model.meta_graphs[0]
    graph_scan = graph.scan_graph(meta_graph, content, limits)
    findings += graph_scan.findings
    findings += itertools.islice(objects.scan_objects(meta_graph, limits), limits.findings)
    variables_findings, variables_bytes = variables.scan_variables(path, limits)
    findings += variables_findings
    if not findings and not objects.is_functional_model(meta_graph.object_graph_def):
        raise errors.ModelError(
            f"The SavedModel in {path} is not a FunctionalModel: its root lacks {' or '.join(objects.REQUIRED_MEMBERS)}.",
            next_step=files.how_to_save(path),
        )
    return ScanReport(
        path,
        tuple(findings[: limits.findings]),
        graph_scan.op_counts,
        graph_scan.reachable_functions,
        len(meta_graph.graph_def.library.function),
        variables_bytes,
    )


def require_safe(path: Union[str, os.PathLike], limits: ScanLimits = ScanLimits()) -> ScanReport:
    """Scans a model and returns the report if there is nothing to object to.

    Raises:
      errors.UntrustedModelError: there is; names every function, node and operation.
      errors.ModelError: as `scan_model`.
    """
    report = scan_model(path, limits)
    if report.is_safe:
        return report
    lines = [f"  {finding}" for finding in report.findings[:_MAX_SHOWN_FINDINGS]]
    if len(report.findings) > len(lines):
        lines.append(f"  ... and {len(report.findings) - len(lines)} more; `odp-task scan --json` lists them all")
    raise errors.UntrustedModelError(
        f"The model in {path} holds what no model needs, and was not loaded:\n" + "\n".join(lines),
        next_step="Save the model without these parts. If you trust its author with this machine, --trust_model loads it as it is.",
    )
