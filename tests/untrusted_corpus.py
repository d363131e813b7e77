"""The benign and the hostile models that several tests need, built once per session in a process of its own.

`python untrusted_corpus.py OUT PORT` is that process: it alone imports TensorFlow. A test module takes the corpus through the fixture of
its conftest.py.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

SECRET = "canary-7c1f"
# Attacks that are tried without protection: a corpus that does no harm would prove nothing. The others crash, hang or take longer.
PROVEN = (
    "read_file",
    "read_file_in_a_branch",
    "matching_files",
    "text_line_dataset",
    "write_file",
    "print_to_file",
    "save_v2",
    "debug_identity_over_network",
    "resource_initializer",
    "restore_function",
)


@dataclasses.dataclass
class Corpus:
    """Where the models are, and what became of what they are after.

    Attributes:
      benign, hostile: the models' directories.
      canaries: the directory with what must be neither read nor changed.
      proof: for each attack of PROVEN what it achieved without protection ("stole", "wrote", "connected").
      registered_ops: for each operation that TensorFlow knows whether it is stateful, and the names of its strings.
    """

    benign: list[pathlib.Path]
    hostile: list[pathlib.Path]
    canaries: pathlib.Path
    proof: dict[str, list[str]]
    registered_ops: dict[str, dict]
    _connections: list

    def connections(self) -> int:
        """How often anybody has connected to the listener."""
        return len(self._connections)

    def snapshot(self) -> dict[str, bytes]:
        """Names and contents in the canaries' directory."""
        return {str(file.relative_to(self.canaries)): file.read_bytes() for file in self.canaries.rglob("*") if file.is_file()}

    def states(self) -> dict[str, tuple]:
        """Mode, owner, time of the last change (of content or state) and attributes of what is in the canaries' directory."""
        found = {}
        for file in sorted(self.canaries.rglob("*")):
            status = file.stat()
            found[str(file)] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_ctime_ns, os.listxattr(file))
        return found


@functools.lru_cache(maxsize=1)
def build(out: pathlib.Path) -> Corpus:
    """Builds the corpus below `out`. Takes about a minute on two cores."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list = []
    threading.Thread(target=_accept, args=(listener, connections), daemon=True).start()
    for name in ("benign", "hostile", "canaries"):
        (out / name).mkdir(parents=True)
    command = [sys.executable, "-W", "ignore", __file__, str(out), str(listener.getsockname()[1])]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    proof = json.loads((out / "proof.json").read_text())
    if connections:
        proof["debug_identity_over_network"].append("connected")
    connections.clear()
    return Corpus(
        sorted((out / "benign").iterdir()),
        sorted((out / "hostile").iterdir()),
        out / "canaries",
        proof,
        json.loads((out / "ops.json").read_text()),
        connections,
    )


def _accept(listener: socket.socket, connections: list) -> None:
    while True:
        connection, address = listener.accept()
        connections.append(address)
        connection.close()


def _main(out: pathlib.Path, port: int) -> None:
    import benign_models
    import hostile_models

    targets = hostile_models.Targets(out / "canaries", port)
    benign_models.write_all(out / "benign")
    hostile_models.write_all(out / "hostile", targets)
    proof = {name: hostile_models.achieved(out / "hostile" / name, targets) for name in PROVEN}
    (out / "proof.json").write_text(json.dumps(proof))
    (out / "ops.json").write_text(json.dumps(_registered_ops()))
    sys.stdout.flush()
    # TFF leaves a process and complaints behind when the interpreter ends in order.
    os._exit(0)


def _registered_ops() -> dict[str, dict]:
    from tensorflow.core.framework import op_def_pb2, types_pb2
    from tensorflow.python.client import pywrap_tf_session

    ops = op_def_pb2.OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    return {
        op.name: {
            "stateful": op.is_stateful,
            "strings": [arg.name for arg in op.input_arg if arg.type == types_pb2.DT_STRING]
            + [attr.name for attr in op.attr if attr.type == "string"],
        }
        for op in ops.op
    }


if __name__ == "__main__":
    _main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
