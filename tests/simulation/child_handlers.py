"""What test children do. `python child_handlers.py SCRATCH` is a parent that waits to be killed."""

import os
import pathlib
import signal
import subprocess
import sys
import time

from odp_taskbuilder import errors
from odp_taskbuilder.simulation import processes


class Handler:
    """Answers (position, job), or does what the job says."""

    def __init__(self, position):
        self._position = position

    def __call__(self, job):
        if isinstance(job, tuple) and job[0] == "die once":
            marker = pathlib.Path(job[1])
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if isinstance(job, tuple) and job[0].startswith("fail"):
            kind, marker, message = job
            while kind == "fail late" and not os.path.exists(marker):
                time.sleep(0.02)
            pathlib.Path(marker).touch()
            raise errors.StorageError(message)
        if job == "die":
            print("out of luck", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if job == "raise":
            raise errors.StorageError("nothing there", next_step="look elsewhere")
        if job == "stumble":
            raise ZeroDivisionError("by zero")
        if job == "full disk":
            raise OSError(28, "No space left on device")
        if job == "start a program":
            return subprocess.Popen(["sleep", "1000"]).pid
        return (self._position, job)


def main(scratch: pathlib.Path) -> None:
    # The handlers need no TensorFlow.
    processes._PRELOADED.clear()
    with processes.ChildProcesses("test", Handler, 2, scratch) as children:
        program = children.run(["start a program"])[0]
        print(*children.process_ids, program, os.getpid(), flush=True)
        signal.pause()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
