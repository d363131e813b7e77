"""Names of TensorFlow's kernel classes, as the guide prints them: `L2LossOp<CPUDevice, float>` (spec: plan.md, section 12.5).

The registry lives in TensorFlow's C++ library. It is asked in a child process, which loads that library but none of
TensorFlow's Python (0.4 s instead of 9), and which may crash over a NodeDef from a stranger's plan without harm. The names are
for people to read only, so whatever goes wrong leaves them empty.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from types import ModuleType

from odp_taskbuilder.base import child_python

# It takes half a second; on an emulated machine that is busy, a minute was seen.
_TIMEOUT_SECONDS = 120
_CPU = "/device:CPU:0"


def kernel_classes(node_defs: Sequence[bytes]) -> list[str]:
    """The class name of the CPU kernel for each serialized NodeDef, empty where there is none or it cannot be told."""
    if not node_defs:
        return []
    try:
        child = subprocess.run(
            child_python.module(__name__),
            input=json.dumps([node_def.hex() for node_def in node_defs]).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            timeout=_TIMEOUT_SECONDS,
            check=True,
        )
        return json.loads(child.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return [""] * len(node_defs)


def _main() -> None:
    node_defs = [bytes.fromhex(text) for text in json.load(sys.stdin)]
    json.dump(_look_up(node_defs), sys.stdout)
    sys.stdout.flush()
    # TensorFlow's library was loaded without the Python that takes it down.
    os._exit(0)


def _look_up(node_defs: Sequence[bytes]) -> list[str]:
    import odp_taskbuilder.proto  # noqa: F401  makes protos of TensorFlow importable without TensorFlow

    # isort: split
    from tensorflow.core.framework import node_def_pb2, op_def_pb2

    kernel_registry = _extension("util", "_pywrap_kernel_registry")
    op_registry = _extension("framework", "_op_def_registry")
    names = []
    for serialized in node_defs:
        node = node_def_pb2.NodeDef.FromString(serialized)
        op_def = op_registry.get(node.op)
        if op_def is None:  # TensorFlow does not know the op: ExternalDataset, for example.
            names.append("")
            continue
        # Without every attribute and a device the registry finds nothing.
        for attr in op_def_pb2.OpDef.FromString(op_def).attr:
            if attr.HasField("default_value") and attr.name not in node.attr:
                node.attr[attr.name].CopyFrom(attr.default_value)
        node.device = _CPU
        names.append(kernel_registry.TryFindKernelClass(node.SerializeToString()).decode())
    return names


def _extension(folder: str, name: str) -> ModuleType:
    wheel = importlib.util.find_spec("tensorflow").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location(name, pathlib.Path(wheel) / "python" / folder / f"{name}.so")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    _main()
