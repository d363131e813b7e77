"""What tests read of a run and of its processes, and clients that they write."""

import contextlib
import pathlib

import numpy as np

from odp_taskbuilder.artifacts.checkpoint_reader import open_checkpoint
from odp_taskbuilder.data import examples, tfrecord


def files(root: pathlib.Path):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def weights(directory, number):
    with open_checkpoint(directory / f"digits/1/{number}/s/0/checkpoint") as opened:
        names = [tensor.name for tensor in opened.tensors if tensor.name.startswith("server/global_model_weights/")]
        assert len(names) == 4
        return np.concatenate([opened.read(name).ravel() for name in sorted(names)])


def write_client(path, *features):
    tfrecord.write_records(path, [examples.encode(values) for values in features])


def ray_workers(group):
    """The actors of Ray, in which clients run, among the processes of a group."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and b"_RayWorker" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def descendants(pid):
    """The processes below one, whichever processes they lead."""
    parents = {}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def command_line(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def resident_kilobytes(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
