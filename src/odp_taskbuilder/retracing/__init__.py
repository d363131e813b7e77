"""The forward functions of a loaded model, run once more op by op in the graph being traced, without what phones cannot differentiate.

Recurrent layers and conditionals have gradients that need ops which phones lack (TensorLists, Optionals). Here calls are inlined, loops of
known length become scans with a gradient of their own, and lists become ordinary tensors, before TFF differentiates anything
(spec: rewrites.md, section 3). A model without loops, conditionals and assertions comes back as it is.

Uses model/. Replacing single ops of a composed client graph is plan/'s.
"""

from odp_taskbuilder.retracing.retrace import retrace_model
from odp_taskbuilder.retracing.tracer import RetracedLoop

__all__ = ["RetracedLoop", "retrace_model"]
