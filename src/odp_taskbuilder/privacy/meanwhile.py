"""Accounting in another process, while this one does something else that takes seconds.

Both are Python that computes, which two threads of one process do in turn. The other process gets PrivacySpecs and returns a PrivacyBudget for each.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Callable, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.base import child_python
from odp_taskbuilder.base.processors import available_processors
from odp_taskbuilder.config.spec import PrivacySpec, TaskSpec
from odp_taskbuilder.privacy.budget import PrivacyBudget, accounted, budget_of, cannot_fail, privacy_budget

_PROGRAM = "from odp_taskbuilder.privacy.meanwhile import answer; answer(sys.stdin.buffer, sys.stdout.buffer)"
# What pickle raises for what is none, as its documentation lists it.
_NO_PICKLE = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, ValueError)


class BudgetsAhead:
    """Budgets of several configs, which other processes compute while this one builds: as many as there are processors, since together the
    budgets of a sweep take longer than its builds.

    They start when the first budget is asked for, and leave out those before: configs are built in order, and those that were built before need no
    budget. On one processor, and where no other process can be started, budgets are computed here.
    """

    def __init__(self, specs: Sequence[TaskSpec]):
        self._specs = list(dict.fromkeys(map(accounted, specs)))
        # Each with what it has yet to answer.
        self._children: list[tuple[subprocess.Popen, list[PrivacySpec]]] = []
        self._found: dict[PrivacySpec, Optional[PrivacyBudget]] = {}
        self._has_begun = False

    def budget_of(self, spec: TaskSpec) -> PrivacyBudget:
        """As `budget.budget_of`, of one of the configs or of another one."""
        asked = accounted(spec)
        if not self._has_begun:
            self._has_begun = True
            self._begin(self._specs[self._specs.index(asked) :] if asked in self._specs else self._specs)
        for child, awaited in self._children:
            while asked in awaited:
                self._found[awaited.pop(0)] = _received(child)
        return self._found.get(asked) or privacy_budget(asked)

    def close(self) -> None:
        """Ends the other processes."""
        for child, _ in self._children:
            _end(child)

    def _begin(self, specs: list[PrivacySpec]) -> None:
        processors = available_processors()
        for number in range(min(processors, len(specs)) if processors > 1 else 0):
            dealt = specs[number::processors]
            child = _started(dealt)
            if child is not None:
                self._children.append((child, dealt))


@contextlib.contextmanager
def budget_meanwhile(spec: TaskSpec, ahead: Optional[BudgetsAhead] = None) -> Iterator[Callable[[], PrivacyBudget]]:
    """Starts the accounting of `budget_of(spec)`; yields a function that waits for its result.

    What could be refused is accounted for at once: nobody waits for something else to learn that. So it is on one processor, and where no
    other process can be started.

    Args:
      ahead: of several configs, of which this is one.

    Raises:
      PrivacyBudgetError, ConfigError: as budget_of, when the block is entered.
    """
    child = None
    # Once TensorFlow is there, nothing is left that would take as long as the other process takes to start.
    if "tensorflow" not in sys.modules and available_processors() > 1 and cannot_fail(spec):
        if ahead is not None:
            yield lambda: ahead.budget_of(spec)
            return
        child = _started([accounted(spec)])
    if child is None:
        budget = budget_of(spec) if ahead is None else ahead.budget_of(spec)
        yield lambda: budget
        return
    try:
        yield lambda: _received(child) or budget_of(spec)
    finally:
        _end(child)


def _end(child: subprocess.Popen) -> None:
    child.kill()
    child.wait()
    child.stdout.close()
    with contextlib.suppress(OSError):
        child.stdin.close()


def _started(specs: Sequence[PrivacySpec]) -> Optional[subprocess.Popen]:
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
        pickle.dump(list(specs), child.stdin)
        child.stdin.flush()
    return child


def _received(child: subprocess.Popen) -> Optional[PrivacyBudget]:
    """What the other process answers next; None if it found no budget, or ended without an answer."""
    try:
        return pickle.load(child.stdout)
    except _NO_PICKLE:
        return None


def answer(asked: BinaryIO, answers: BinaryIO) -> None:
    """The other process: reads PrivacySpecs and writes a PrivacyBudget for each, None where there is none. Ends when `asked` does, as it does with
    the process that asks."""
    specs = pickle.load(asked)

    def end_with_parent() -> None:
        asked.read()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    for spec in specs:
        budget = None
        # Who asks finds the error again, and says it.
        with contextlib.suppress(errors.OdpTaskError):
            budget = privacy_budget(spec)
        pickle.dump(budget, answers)
        answers.flush()
    os._exit(0)
