"""The table of advice: what brings an op that phones lack, and what to write instead."""

import importlib.resources
import json
import pathlib
import subprocess
import sys

import pytest

from odp_taskbuilder.ops.advice import advice_for
from odp_taskbuilder.ops.allowlist import Allowlist

# One op of each line, but for L2Loss, which comes from the algorithm and not from a model.
_LINES = ("SparseSoftmaxCrossEntropyWithLogits", "TensorListReserve", "OptionalFromValue")


def _table():
    return json.loads(importlib.resources.files("odp_taskbuilder.ops").joinpath("advice.json").read_text())


def test_every_line_is_about_ops_that_some_phones_lack():
    ops = [op for line in _table() for op in line["ops"]]
    assert len(ops) == len(set(ops))
    assert {op for op in ops if Allowlist.builtin().min_module_version(op)} == {"L2Loss"}
    assert len(_table()) == len(_LINES) + 1
    assert all(advice_for(op) is not None for op in _LINES)
    assert advice_for("MapDataset") is None


def _try(*ops):
    script = pathlib.Path(__file__).with_name("try_advice.py")
    run = subprocess.run([sys.executable, str(script), *ops], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    for op, tried in json.loads(run.stdout.splitlines()[-1]).items():
        assert op in tried["warned"], f"{op}: the source brings {tried['warned']}"
        assert set(tried["warned"]) <= set(advice_for(op).ops), f"{op}: the source brings {tried['warned']}"
        assert not any(tried["advised"]), f"{op}: what is advised brings {tried['advised']}"


@pytest.mark.full
def test_all_advice_is_true():
    _try(*_LINES)
