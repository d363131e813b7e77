"""A scan costs little, whatever the file holds: memory is measured, work is counted, and both are bounded."""

import resource
import shutil
import subprocess
import sys

import costly_models
import pytest
import refused_models

from odp_taskbuilder import errors, scan

_GIBIBYTE = 2**30
# Scans models in a process that may take a gibibyte, and prints for each the verdict, processor seconds and the most memory so far.
_PROGRAM = """
import resource, sys, time
from odp_taskbuilder import errors, scan
for path in sys.argv[1:]:
    begin = time.process_time()
    try:
        verdict = "safe" if scan.scan_model(path).is_safe else "refused"
    except errors.ModelError:
        verdict = "damaged"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(path.rpartition("/")[2], verdict, round(time.process_time() - begin, 1), peak, flush=True)
"""


@pytest.fixture
def model_of(tmp_path):
    """A function that writes a model of a kind and size, and returns its path."""

    def write(kind, size):
        path = tmp_path / f"{kind}-{size}" / kind
        if not path.exists():
            shutil.copytree(refused_models.EXAMPLE, path)
            (path / "saved_model.pb").chmod(0o644)
            (path / "saved_model.pb").write_bytes(costly_models.KINDS[kind](size))
        return path

    return write


def _verdict(path):
    try:
        return "safe" if scan.scan_model(path).is_safe else "refused"
    except errors.ModelError:
        return "damaged"


def _scan_with_a_gibibyte(paths):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (_GIBIBYTE, _GIBIBYTE))

    command = [sys.executable, "-c", _PROGRAM, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, preexec_fn=limit)
    assert done.returncode == 0, done.stderr[-2000:]
    return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}


# Those that take least time of all that fill a file, or all.
_QUICK = ("empty_nodes", "long_constants_of_bytes", "one_assertion_many_times", "long_names_that_are_wrong", "unknown_bytes")


@pytest.mark.parametrize("kinds", [_QUICK, pytest.param(tuple(costly_models.KINDS), marks=pytest.mark.full)])
def test_a_full_file_gets_a_verdict_within_a_gibibyte(model_of, kinds):
    paths = []
    for kind in kinds:
        paths.append(model_of(kind, costly_models.FULL))
        assert (paths[-1] / "saved_model.pb").stat().st_size <= costly_models.FULL
    verdicts = _scan_with_a_gibibyte(paths)
    for kind, (verdict, seconds, peak) in verdicts.items():
        print(f"{kind}: {verdict}, {seconds} s of processor time, {int(peak) / 2**20:.0f} MiB at most so far")
    assert set(verdicts) == set(kinds)
    assert {kind for kind, (verdict, _, _) in verdicts.items() if verdict == "safe"} == set()


def _work(path):
    """How many functions a scan calls, of Python and others: it grows as the time does, and does not depend on the machine."""
    count = 0

    def tick(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(tick)
    try:
        _verdict(path)
    finally:
        sys.setprofile(None)
    return count


# What is followed no further than a number of steps, and then refused: below that, work may grow faster.
_BOUNDED = ("many_callers_of_many_arguments", "many_outputs_of_many_branches", "packed_vectors")


@pytest.mark.parametrize("kind", [kind for kind in costly_models.KINDS if kind not in _BOUNDED])
def test_work_grows_with_the_file_and_no_faster(model_of, kind):
    size = costly_models.FULL // 512
    small, large = (_work(model_of(kind, size * factor)) for factor in (1, 4))
    assert large < 4.6 * small + 2_000


@pytest.mark.parametrize("kind", _BOUNDED)
def test_what_would_take_too_long_to_find_out_is_refused(model_of, kind):
    findings = scan.scan_model(model_of(kind, costly_models.FULL // 8)).findings
    assert any("steps to find out" in finding.reason for finding in findings), findings[:3]
