"""What brings an op that phones lack, and what to write instead.

The table is data: advice.json. It is about ops that a build leaves as they are; what it replaces needs no advice. Every line of it was tried: the source converts to the ops, what is advised to ops that phones have
(tests/ops/test_advice.py).
"""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Optional

from odp_taskbuilder.base import package_data


@dataclasses.dataclass(frozen=True)
class Advice:
    """One line of the table.

    Attributes:
      ops: TensorFlow names of the ops that it is about.
      source: what brings them.
      instead: what avoids them.
      metrics: metrics of a task config that bring them.
    """

    ops: tuple[str, ...]
    source: str
    instead: str
    metrics: tuple[str, ...] = ()


def advice_for(op: str) -> Optional[Advice]:
    """The advice about a TensorFlow op; None where the table has none."""
    return _table().get(op)


@functools.cache
def _table() -> dict[str, Advice]:
    text = package_data.read_text(__package__, "advice.json", encoding="ascii")
    lines = [
        Advice(tuple(line["ops"]), line["source"], line["instead"], tuple(line.get("metrics", ()))) for line in json.loads(text)
    ]
    return {op: line for line in lines for op in line.ops}
