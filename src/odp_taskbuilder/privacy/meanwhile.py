"""Accounting in another process, while this one does something else that takes seconds.

Both are Python that computes, which two threads of one process do in turn. The other process gets a TaskSpec and returns a PrivacyBudget.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO, Callable, Optional

from odp_taskbuilder.base import child_python
from odp_taskbuilder.base.processors import available_processors
from odp_taskbuilder.config.spec import TaskSpec
from odp_taskbuilder.privacy.budget import PrivacyBudget, budget_of, cannot_fail

_PROGRAM = "from odp_taskbuilder.privacy.meanwhile import answer; answer(sys.stdin.buffer, sys.stdout.buffer)"
# What pickle raises for what is none, as its documentation lists it.
_NO_PICKLE = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, ValueError)


@contextlib.contextmanager
def budget_meanwhile(spec: TaskSpec) -> Iterator[Callable[[], PrivacyBudget]]:
    """Starts the accounting of `budget_of(spec)`; yields a function that waits for its result.

    What could be refused is accounted for at once: nobody waits for something else to learn that. So it is on one processor, and where no
    other process can be started.

    Raises:
      PrivacyBudgetError, ConfigError: as budget_of, when the block is entered.
    """
    child = None
    # Once TensorFlow is there, nothing is left that would take as long as the other process takes to start.
    if "tensorflow" not in sys.modules and available_processors() > 1 and cannot_fail(spec):
        child = _started(spec)
    if child is None:
        budget = budget_of(spec)
        yield lambda: budget
        return
    try:
        yield lambda: _received(child) or budget_of(spec)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        with contextlib.suppress(OSError):
            child.stdin.close()


def _started(spec: TaskSpec) -> Optional[subprocess.Popen]:
    """The other process; None if it does not start."""
    try:
        child = subprocess.Popen(
            child_python.program(_PROGRAM),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # An interruption by the terminal reaches it too; this process tells of it.
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None
    with contextlib.suppress(OSError):
        pickle.dump(spec, child.stdin)
        child.stdin.flush()
    return child


def _received(child: subprocess.Popen) -> Optional[PrivacyBudget]:
    """What the other process answers; None if it ended without an answer."""
    try:
        return pickle.load(child.stdout)
    except _NO_PICKLE:
        return None


def answer(asked: BinaryIO, answers: BinaryIO) -> None:
    """The other process: reads a TaskSpec and writes its PrivacyBudget. Ends when `asked` does, as it does with the process that asks."""
    spec = pickle.load(asked)

    def end_with_parent() -> None:
        asked.read()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    pickle.dump(budget_of(spec), answers)
    answers.flush()
    os._exit(0)
