"""Ops that phones lack, written with ops that they have (spec: rewrites.md).

    graph_def, kept = replace_ops(graph_def, {"MaxPoolGrad"})   # graph.py
    graph_def, counts = replace_distorted(graph_def)             # what the converter would get wrong
    EQUIVALENTS["MaxPoolGrad"].by                                # equivalent.py: what takes its place, in words

An equivalent is a function over the tensors of one node; the modules here hold them by subject.

Uses TensorFlow and no other room. Which ops phones lack, what a converter makes of a graph, and what becomes of it is for who calls.
"""

from odp_taskbuilder.replacement import (
    activations,
    convolutions,
    counting,
    crossentropy,
    dimensions,
    normalization,
    pooling,
    resizing,
)
from odp_taskbuilder.replacement.equivalent import EQUIVALENTS, Equivalent, NoEquivalentError
from odp_taskbuilder.replacement.graph import replace_distorted, replace_ops

__all__ = [
    "EQUIVALENTS",
    "Equivalent",
    "NoEquivalentError",
    "activations",
    "convolutions",
    "counting",
    "crossentropy",
    "dimensions",
    "normalization",
    "pooling",
    "replace_distorted",
    "replace_ops",
    "resizing",
]
