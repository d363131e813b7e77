"""Run by test_build.py: builds the example again and again, each time killed (SIGKILL) at another random moment.

Every second moment lies anywhere in the build, the others while its artifacts are being written. After each the output must hold a complete former
build or none, and nothing that the build started may be running. Prints how often the output had been replaced, and how often not.

Usage: killed_builds.py OUTPUT COUNT
"""

import contextlib
import multiprocessing
import os
import pathlib
import random
import signal
import sys
import time

from odp_taskbuilder import build as pipeline
from odp_taskbuilder.artifacts import manifest

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "configs" / "digits"
WRITING = "writing artifacts"


def build(output, stages):
    """One build, in a session of its own, that tells when each stage begins."""
    os.setsid()

    @contextlib.contextmanager
    def stage(name):
        stages.send(name)
        yield

    pipeline.build(EXAMPLE / "saved_model", EXAMPLE / "train.pbtxt", output, stage=stage)
    stages.send("done")
    # TensorFlow's own way down is not what is looked at here.
    os._exit(0)


def start(context, output):
    stages, far_end = context.Pipe(duplex=False)
    child = context.Process(target=build, args=(output, far_end))
    child.start()
    far_end.close()
    return child, stages


def await_stage(stages, name):
    while stages.recv() != name:
        pass
    return time.monotonic()


def identity(directory):
    """What tells two complete builds apart; None where there is no directory. Fails where one is incomplete."""
    if not directory.exists():
        return None
    listed = manifest.read_manifest(directory).files
    assert set(os.listdir(directory)) == {*listed, "manifest.json"}, os.listdir(directory)
    for name, digest in listed.items():
        assert manifest.digest_file(directory / name) == digest, name
    return os.stat(directory).st_ino


def session_members(session):
    """Processes of a session that still run."""
    members = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                members.append(int(entry.name))
    return members


def main(output, count):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tensorflow_federated", "odp_taskbuilder.learning.training", "odp_taskbuilder.plan.builder"])
    population = pathlib.Path(output) / "digits"
    # Two undisturbed ones tell how long a build and its last stage take; the first one also starts the fork server.
    for _ in range(2):
        child, stages = start(context, output)
        began = await_stage(stages, "privacy accounting")
        writing = await_stage(stages, WRITING)
        done = await_stage(stages, "done")
        child.join()
    expected = identity(population)
    assert expected is not None
    generator = random.Random(5)
    outcomes = {"replaced": 0, "kept": 0}
    for number in range(count):
        child, stages = start(context, output)
        if number == 0:
            # However fast this machine is by now, one dies before it writes.
            await_stage(stages, "building the training plan")
            delay = 0.0
        elif number % 2:
            await_stage(stages, WRITING)
            delay = generator.uniform(0, 1.2 * (done - writing))
        else:
            await_stage(stages, "privacy accounting")
            delay = generator.uniform(0, done - began)
        # The moment is the point here: there is nothing to wait for.
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):  # It may be done.
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        found = identity(population)
        outcomes["kept" if found == expected else "replaced"] += 1
        expected = found
        assert session_members(child.pid) == [], "a child outlived the build"
    # What the killed ones left behind is cleared away by the next build.
    child, stages = start(context, output)
    await_stage(stages, "done")
    child.join()
    assert os.listdir(output) == ["digits"], os.listdir(output)
    print(outcomes["replaced"], outcomes["kept"])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
