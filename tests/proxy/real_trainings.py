"""Tunings of the digits with real builds and real rounds."""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = ROOT / "configs" / "digits"
ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")
SPACE = ["--model_function", f"{DIGITS / 'model.py'}:make_model", "--task_config", DIGITS / "fleet.pbtxt"]
DATA = ["--data", "clients/train", "--evaluation_data", "clients/test", "--latency", "none"]


class Place:
    """A directory in which commands run."""

    def __init__(self, directory):
        self.directory = directory

    def start(self, *arguments, **options):
        return subprocess.Popen([ODP_TASK, *map(str, arguments)], cwd=self.directory, text=True, start_new_session=True, **options)

    def run(self, *arguments, code=0):
        """What the command prints: its errors where it is to fail."""
        with self.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            output, messages = process.communicate(timeout=3000)
        assert process.returncode == code, messages
        return output if code == 0 else messages

    def proxy(self, command, *arguments):
        return json.loads(self.run("proxy", command, *arguments, "--json"))

    def partition(self, clients):
        """Deals the digits over so many clients."""
        self.run("data", "partition", "digits", "--output", "clients", "--clients", clients, "--strategy", "dirichlet", "--alpha", 10, "--test_fraction", 0.2)
