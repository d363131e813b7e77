"""Stages of work that take long enough to be told of."""

from __future__ import annotations

import contextlib
from typing import Callable

# Names the stage that runs within the block.
Stage = Callable[[str], contextlib.AbstractContextManager]


def unannounced(name: str) -> contextlib.AbstractContextManager:
    """A Stage that tells nobody."""
    return contextlib.nullcontext()
