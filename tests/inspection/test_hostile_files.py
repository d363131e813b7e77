"""Files that were made to exhaust whoever opens them are refused in a process with little memory and little time."""

import json
import pathlib
import resource
import struct
import subprocess
import sys

import handmade_artifacts as handmade

from odp_taskbuilder.proto import plan_pb2

_MEMORY_BYTES = 600 << 20
# Processor time for all the files together, start of the interpreter and imports included.
_SECONDS = 30
# Per file, by the clock; a busy machine needs more than the second that it takes.
_ALARM_SECONDS = 20
_SCRIPT = """
import json, signal, sys
from odp_taskbuilder import errors
from odp_taskbuilder.inspection import text
from odp_taskbuilder.inspection.inspect import inspect
said = {}
for path in sys.argv[2:]:
    signal.alarm(int(sys.argv[1]))
    try:
        text.inspection_text(inspect([path]))
        said[path] = None
    except errors.ArtifactError as error:
        said[path] = error.message
print(json.dumps(said))
"""


def _varint(number):
    result = bytearray()
    while number >= 0x80:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*result, number])


def _field(number, content):
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _plan(field, content):
    """A Plan whose field holds something else."""
    plan = handmade.make_plan()
    plan.ClearField(plan.DESCRIPTOR.fields_by_number[field].name)
    return plan.SerializeToString() + _field(field, content)


def _client_phase(spec):
    return _field(4, _field(1, _field(4, spec)))


def _nested_aggregations(depth):
    content = b""
    for _ in range(depth):
        content = _field(6, content)
    return _field(4, _field(2, content))


def _node_bomb(name):
    """A node of 40 kB, whose 20,000 empty shapes become a megabyte."""
    return _field(1, _field(1, name) + _field(5, _field(1, b"a") + _field(2, _field(1, _field(7, b"") * 20_000))))


_FILES = {
    "a length of 4 GiB": b"\x22\xff\xff\xff\xff\x0f" + bytes(100),
    "a length of 2^64": b"\x22" + b"\xff" * 9 + b"\x01",
    "a million empty phases": b"\x22\x00" * 1_000_000 + _field(12, b""),
    "20 million empty phases": b"\x22\x00" * 20_000_000,
    "two million empty specs in 4 MB": handmade.make_plan().SerializeToString() + _client_phase(b"\x12\x00" * 2_000_000),
    "a description of 50 MB": _plan(4, _field(1, _field(4, _field(1, b"x" * (50 << 20))))),
    "five thousand levels of messages": _plan(4, _nested_aggregations(5_000)),
    "a million empty nodes": _plan(7, _field(2, b"\x0a\x00" * 1_000_000)),
    "nodes that unfold to many times their size": _plan(7, _field(2, b"".join(_node_bomb(b"%d" % k) for k in range(800)))),
    "a large constant": _plan(7, _field(2, _field(1, _field(1, b"c") + _field(2, b"Const") + _field(5, bytes(100 << 20))))),
    "a flatbuffer of wild offsets": _plan(12, b"\xf0\xff\xff\xffTFL3" + b"\xff" * 1000),
    "an empty flatbuffer": _plan(12, b""),
    "a flatbuffer of zeros": _plan(12, b"\x08\x00\x00\x00TFL3" + bytes(1 << 20)),
    "no flatbuffer": _plan(12, b"not a flatbuffer"),
    "64 MB of noise": bytes(range(256)) * (1 << 18),
    "64 MB of zeros": bytes(64 << 20),
    "a table with handles of 2^60": (b"\x00\x00" + _varint(1 << 60) * 2).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db"),
    "a table of 64 MB of zeros": bytes(64 << 20) + bytes(40) + bytes.fromhex("57fb808b247547db"),
}


# Large, but nothing is wrong with them.
_READABLE = ("a large constant", "nodes that unfold to many times their size")


def _limits():
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))


def _inspect(*paths):
    """Path -> the message with which the file was refused, None if it was not."""
    command = [sys.executable, "-c", _SCRIPT, str(_ALARM_SECONDS), *map(str, paths)]
    run = subprocess.run(command, capture_output=True, text=True, preexec_fn=_limits)
    assert run.returncode == 0, run.stderr
    return {pathlib.Path(path): message for path, message in json.loads(run.stdout).items()}


def test_hostile_files_are_refused(tmp_path):
    paths = {what: tmp_path / what.replace(" ", "_") for what in _FILES}
    for what, path in paths.items():
        path.write_bytes(_FILES[what])
    said = _inspect(*paths.values())
    for what, path in paths.items():
        assert (said[path] is None) == (what in _READABLE), f"{what}: {said[path]}"
        assert said[path] is None or str(path) in said[path]


def test_a_flatbuffer_that_names_one_subgraph_a_million_times(tmp_path):
    data = bytearray(handmade.make_tflite())
    root = struct.unpack_from("<I", data)[0]
    vtable = root - struct.unpack_from("<i", data, root)[0]
    field = root + struct.unpack_from("<H", data, vtable + 4 + 2 * 2)[0]
    vector = field + struct.unpack_from("<I", data, field)[0]
    subgraph = vector + 4 + struct.unpack_from("<I", data, vector + 4)[0]
    count = 1_000_000
    start = len(data) + (-len(data)) % 4
    data = data.ljust(start, b"\0") + struct.pack("<I", count)
    # Offsets are unsigned and count from their own place, so the subgraph's table is put behind them.
    table = start + 4 + 4 * count
    data += b"".join(struct.pack("<I", table - place) for place in range(start + 4, table, 4))
    data += data[subgraph : subgraph + 64]
    struct.pack_into("<i", data, table, table - (subgraph - struct.unpack_from("<i", data, subgraph)[0]))
    struct.pack_into("<I", data, field, start - field)
    path = tmp_path / "plan.pb"
    path.write_bytes(_plan(12, bytes(data)))
    assert "is corrupt" in _inspect(path)[path]


def test_names_cannot_drive_the_terminal(tmp_path):
    plan = handmade.make_plan()
    plan.phase[0].server_phase.metrics[0].stat_name = "server/\x1b[2Jloss\u202e\x9b"
    pathlib.Path(tmp_path / "plan.pb").write_bytes(plan.SerializeToString())
    script = "from odp_taskbuilder.cli.main import main; main()"
    run = subprocess.run([sys.executable, "-c", script, "inspect", str(tmp_path / "plan.pb")], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "server/\\x1b[2Jloss\\u202e\\x9b" in run.stdout
    assert plan_pb2.Plan.FromString((tmp_path / "plan.pb").read_bytes()) == plan
