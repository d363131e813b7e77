"""Messages generated from schemas/ by scripts/generate-protos.

Plan messages embed TensorFlow's own protos (`SaverDef`, `TensorSpecProto`, ...), whose modules live in TensorFlow's wheel. Importing
those the ordinary way runs TensorFlow's package initialisation, which takes about nine seconds. The modules themselves need
protobuf only, so this package loads them under a bare stand-in for the `tensorflow` package and takes the stand-in away
again: a later `import tensorflow` runs as usual and shares the message classes.
"""

import importlib
import importlib.util
import sys
import types

_TENSORFLOW_PROTOS = (
    "tensorflow.core.example.example_pb2",
    "tensorflow.core.framework.graph_pb2",
    "tensorflow.core.framework.tensor_pb2",
    "tensorflow.core.framework.types_pb2",
    "tensorflow.core.protobuf.config_pb2",
    "tensorflow.core.protobuf.saved_model_pb2",
    "tensorflow.core.protobuf.saver_pb2",
    "tensorflow.core.protobuf.struct_pb2",
    "tensorflow.core.protobuf.tensor_bundle_pb2",
    "tensorflow.core.util.event_pb2",
    "tensorflow.core.util.saved_tensor_slice_pb2",
)


def _load_tensorflow_protos() -> None:
    if "tensorflow" in sys.modules:
        return
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("TensorFlow is not installed; odp-task needs the tensorflow 2.14 wheel")
    stand_in = types.ModuleType("tensorflow")
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules["tensorflow"] = stand_in
    try:
        for name in _TENSORFLOW_PROTOS:
            importlib.import_module(name)
    finally:
        del sys.modules["tensorflow"]


_load_tensorflow_protos()
