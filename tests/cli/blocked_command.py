"""Runs odp-task with one function of it replaced by another that waits: `blocked_command.py FIFO MODULE:FUNCTION ARGUMENT...`.

The replacement returns when somebody has opened the FIFO for writing and closed it again; the command then ends with a usage error.
"""

import importlib
import sys

from odp_taskbuilder import errors
from odp_taskbuilder.cli.main import main

fifo, place, *arguments = sys.argv[1:]
module, name = place.split(":")


def wait(*_, **__):
    with open(fifo, "rb") as file:
        file.read()
    raise errors.UsageError("Released.")


setattr(importlib.import_module(module), name, wait)
sys.argv = ["odp-task", *arguments]
main()
