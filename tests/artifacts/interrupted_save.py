"""Run by test_directory.py: saves artifacts again and again, each time struck down one step later.

A step is an audit event of the interpreter: an open, mkdir, rename, removal, lock or library call. The first save is struck
at its first step, the next one at its second, ... until one comes through. After each, the destination must hold the complete
old content, the complete new content, or (where there was none) nothing. Prints the number of saves that were struck.
"""

import contextlib
import errno
import os
import pathlib
import signal
import sys

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import artifact_set, directory, manifest

_STEPS = ("open", "os.", "shutil.", "fcntl.", "ctypes.", "tempfile.")


def _artifacts(content):
    def write_checkpoint(path):
        with open(path, "wb") as file:
            for _ in range(3):
                file.write(content * 1000)

    task = artifact_set.TaskArtifacts(content, content * 2, write_checkpoint, "task")
    return artifact_set.ArtifactSet(task, None, "report")


def _save(destination, content):
    directory.save(_artifacts(content), destination, form="MapReduce", inputs={})


def _strike_at(step, how):
    """Returns a function that says how many steps were done so far."""
    count = 0

    def hook(event, arguments):
        nonlocal count
        if not event.startswith(_STEPS):
            return
        count += 1
        if count != step:
            return
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "interrupt":
            raise KeyboardInterrupt
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sys.addaudithook(hook)
    return lambda: count


def _content(destination):
    """The content of a complete directory, None where there is none."""
    if not destination.exists():
        return None
    listed = manifest.read_manifest(destination).files
    assert set(os.listdir(destination)) == {*listed, "manifest.json"}
    for name, digest in listed.items():
        assert manifest.digest_file(destination / name) == digest, name
    return (destination / "plan.pb").read_bytes()


def main(folder, how, initial):
    destination = pathlib.Path(folder) / "parent" / "population"
    if initial == "former":
        _save(destination, b"former")
    expected = _content(destination)
    step, struck = 0, True
    while struck:
        step += 1
        new = b"content %d" % step
        child = os.fork()
        if child == 0:
            steps_done = _strike_at(step, how)
            with contextlib.suppress(KeyboardInterrupt, errors.StorageError):
                _save(destination, new)
            os._exit(0 if steps_done() < step else 1)
        _, status = os.waitpid(child, 0)
        struck = status != 0
        found = _content(destination)
        assert found in (expected, new), (step, found)
        expected = found
    assert expected == new
    _save(destination, b"undisturbed")
    assert os.listdir(destination.parent) == ["population"], "private directories were left behind"
    print(step - 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
