"""A Python program that used TensorFlow Federated ends quietly, and nothing of it goes on."""

import os
import pathlib
import subprocess
import sys

from tff_runtime import require_tff_runtime

_PROGRAM = """
import pathlib
from odp_taskbuilder.model import load
import tensorflow as tf
import tensorflow_federated as tff

assert tff.tensorflow.computation(lambda: tf.constant(3))() == 3
children = [pid for pid in pathlib.Path("/proc/self/task").glob("*/children")]
print(*sorted({pid for file in children for pid in file.read_text().split()}))
"""


def test_a_program_that_ran_a_computation_ends_without_a_word_and_takes_its_service_along():
    require_tff_runtime()
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _PROGRAM], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    services = done.stdout.split()
    assert services
    # The numbers may be another's by now; a service of TFF's they are not.
    assert not any("worker_binary" in _command(pid) for pid in services)


def _command(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
