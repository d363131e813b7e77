"""Run by test_mutated_artifacts.py: inspects and verifies artifacts in which one file was damaged, again and again.

Memory is limited by the system, and a run that does not end is interrupted. Any exception but this package's own errors ends
the process with a traceback. Prints what became of the files as JSON.
"""

import collections
import json
import pathlib
import random
import resource
import signal
import sys

from odp_taskbuilder import errors
from odp_taskbuilder.inspection import document, text
from odp_taskbuilder.inspection.inspect import inspect
from odp_taskbuilder.inspection.verify import verify

_MEMORY_BYTES = 1 << 30
_SECONDS_PER_FILE = 10
# What length fields, offsets and counts look like at their worst.
_EXTREMES = [
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\xff\xff\xff\xff\x0f",
    b"\xff" * 9 + b"\x01",
    b"\x00" * 8,
]


def _damage(data, generator):
    data = bytearray(data)
    for _ in range(generator.choice((1, 1, 1, 2, 5))):
        position = generator.randrange(len(data)) if data else 0
        kind = generator.randrange(7)
        if kind == 0:
            data[position : position + 1] = bytes([generator.randrange(256)])
        elif kind == 1:
            extreme = generator.choice(_EXTREMES)
            data[position : position + len(extreme)] = extreme
        elif kind == 2:
            del data[position:]
        elif kind == 3:
            del data[position : position + generator.randrange(1, 64)]
        elif kind == 4:
            data[position:position] = data[position : position + generator.randrange(1, 4096)] * generator.randrange(1, 4)
        elif kind == 5:
            other = generator.randrange(len(data) + 1)
            data[position : position + 64] = data[other : other + 64]
        else:
            # The first bytes hold tables' roots and messages' first fields.
            head = min(position, 200)
            data[head : head + 1] = bytes([generator.randrange(256)])
    return bytes(data)


def main(folder, count, seed):
    folder = pathlib.Path(folder)
    originals = {path: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".pb", ".ckp", ".json")}
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    outcomes = collections.Counter()
    for index in range(int(count)):
        generator = random.Random(f"{seed} {index}")
        path = generator.choice(list(originals))
        damaged = _damage(originals[path], generator)
        path.write_bytes(damaged)
        signal.alarm(_SECONDS_PER_FILE)
        try:
            inspection = inspect([folder])
            json.dumps(document.inspection_document(inspection))
            text.inspection_text(inspection)
            outcomes["inspected"] += 1
        except errors.OdpTaskError:
            outcomes["refused"] += 1
        try:
            named = {finding.file for finding in verify(folder).findings}
        except errors.OdpTaskError:
            named = {path.name}
        signal.alarm(0)
        assert path.name in named or damaged == originals[path], f"{index}: verify did not name {path.name}"
        path.write_bytes(originals[path])
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(*sys.argv[1:])
