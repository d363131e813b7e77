"""What worker processes do with users' code, and a whole tuning of digits with real trainings."""

import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.proxy.jobs import ListProxies, WriteCandidates
from odp_taskbuilder.proxy.sources import DirectorySpace, FunctionSpace, ReadyMadeSpace

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = ROOT / "configs" / "digits"
ODP_TASK = pathlib.Path(sys.executable).with_name("odp-task")


@pytest.fixture(scope="module")
def worker():
    """The module, which loads TensorFlow Federated."""
    from odp_taskbuilder.proxy import worker

    return worker


@pytest.fixture
def written(worker, tmp_path):
    """Writes a space's module and its candidates."""

    def written(code, number=10, **options):
        path = tmp_path / "space.py"
        path.write_text(textwrap.dedent(f"from odp_taskbuilder.proxy import Candidate, ProxyTaskConfig\nMODEL = {str(DIGITS / 'saved_model')!r}\n") + textwrap.dedent(code))
        job = WriteCandidates(FunctionSpace(f"{path}:candidates"), tmp_path / "candidates", number, 0, 0, **options)
        return worker.write_candidates(job)

    return written


def test_as_many_candidates_are_taken_as_are_asked_for_and_a_broken_model_breaks_its_candidate_only(written, tmp_path):
    entries = written(
        """
        def model(scale):
            raise ValueError("no width")

        def candidates(rng):
            number = 0
            while True:
                yield Candidate(f"c{number}", model if number == 1 else MODEL, "mode: TRAINING_ONLY")
                number += 1
        """,
        number=3,
    )
    assert [entry.name for entry in entries] == ["c0", "c1", "c2"]
    assert [entry.failure is None for entry in entries] == [True, False, True]
    assert entries[1].failure == f"making its model raised ValueError: no width ({tmp_path}/space.py:5)"
    assert (tmp_path / "candidates/c2/task_config.pbtxt").read_text() == "mode: TRAINING_ONLY"
    assert sorted(path.name for path in (tmp_path / "candidates").iterdir()) == ["c0", "c2"], "something was left"


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("def candidates(rng):\n    return 1 / 0", errors.ModelError, r"raised ZeroDivisionError: division by zero \(.*space.py:4\)"),
        ("def candidates(rng):\n    yield Candidate('a', MODEL, 'x: 1')\n    exit(3)", errors.ModelError, "raised SystemExit: 3"),
        ("raise KeyError('gone')", errors.ModelError, r"raised KeyError: 'gone' \(.*space.py:3\)"),
        ("def other(): pass", errors.UsageError, "has no function 'candidates'"),
        ("def candidates(rng):\n    yield 'a'", errors.UsageError, "yielded str, not odp_taskbuilder.proxy.Candidate"),
        ("def candidates(rng):\n    return 5", errors.ModelError, "raised TypeError: 'int' object is not iterable"),
        ("def candidates(rng):\n    yield Candidate('../a', MODEL, 'x: 1')", errors.UsageError, "cannot be the name of a candidate"),
        ("def candidates(rng):\n    yield Candidate('', MODEL, 'x: 1')", errors.UsageError, "cannot be the name of a candidate"),
        ("def candidates(rng):\n    yield Candidate('a', MODEL, 'x: 1')\n    yield Candidate('A', MODEL, 'x: 1')", errors.UsageError, "two candidates of the name 'A'"),
    ],
)
def test_spaces_that_cannot_be_used_are_told_with_their_line(written, code, error, words):
    with pytest.raises(error, match=words):
        written(code)


def test_a_generator_of_another_tool_runs_unchanged(worker, tmp_path):
    path = tmp_path / "their_space.py"
    path.write_text(
        "import collections\nTheirs = collections.namedtuple('ProxyTaskConfig', ['name', 'docker_args_map'])\n"
        "def generate():\n    return [Theirs('half', {'population_share': '0.5'})]\n"
        "def of_baseline(baseline):\n    return [Theirs('fewer', {'clients_per_round': baseline['clients_per_round'] // 2})]\n"
        "def wrong():\n    return ['half']\n"
    )
    assert worker.list_proxies(ListProxies(f"{path}:generate", {})) == [("half", {"population_share": "0.5"})]
    assert worker.list_proxies(ListProxies(f"{path}:of_baseline", {"clients_per_round": 8})) == [("fewer", {"clients_per_round": 4})]
    with pytest.raises(errors.UsageError, match="expected ProxyTaskConfig"):
        worker.list_proxies(ListProxies(f"{path}:wrong", {}))


def test_the_ready_made_space_begins_with_the_task_as_it_stands_and_varies_it():
    space = ReadyMadeSpace(str(DIGITS / "fleet.pbtxt"), model_function=f"{DIGITS / 'model.py'}:make_model")
    candidates = list(space.candidates(np.random.default_rng(0)))
    assert candidates[0].name == "w1_lr0.1_slr1_clip0.5_goal2000_batch8"
    assert len(candidates) == len({candidate.name for candidate in candidates}) == 3 * 3 * 2 * 3 * 2
    for candidate in candidates[:5]:
        values = {key: float(value) for key, value in re.findall(r"([a-z]+)([\d.]+)", candidate.name)}
        assert f"client_learning_rate: {values['lr']:g}\n" in candidate.task_config
        assert f"clip_norm: {values['clip']:g}\n" in candidate.task_config and f"batch_size: {values['batch']:g}\n" in candidate.task_config
    again = [candidate.name for candidate in space.candidates(np.random.default_rng(0))]
    assert again == [candidate.name for candidate in candidates]
    assert again != [candidate.name for candidate in space.candidates(np.random.default_rng(1))]


def test_a_directory_is_a_space(worker, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "space" / name / "saved_model").mkdir(parents=True)
        (tmp_path / "space" / name / "task_config.pbtxt").write_text("mode: TRAINING_ONLY")
    job = WriteCandidates(DirectorySpace(str(tmp_path / "space")), tmp_path / "out", 5, 0, 0)
    assert [(entry.name, entry.failure) for entry in worker.write_candidates(job)] == [("a", None), ("b", None)]
    scaled = WriteCandidates(DirectorySpace(str(tmp_path / "space")), tmp_path / "scaled", 5, 0, 0, 0.5, ("b",))
    (entry,) = worker.write_candidates(scaled)
    assert entry.name == "b" and "scale_0.5/saved_model" in entry.failure


def test_the_latency_command_prints_a_number_last(worker, tmp_path):
    files = {name: tmp_path / name for name in ("client_only_plan", "checkpoint", "examples")}
    files["checkpoint"].write_text("x" * 7)
    assert worker._commanded("sh -c 'echo hello; wc -c < {checkpoint}'", files) == 7.0
    for command, words in (("sh -c 'echo lost >&2; exit 3'", "exit code 3 and the words 'lost'"), ("echo nothing", "no number"), ("no_such_tool", "cannot be run")):
        with pytest.raises(errors.UsageError, match=words):
            worker._commanded(command, files)


@pytest.mark.full
def test_a_whole_tuning_of_digits_from_candidates_to_a_ranking(tmp_path):
    """Five candidates, few rounds of two clients: real builds, real rounds, and the four commands in turn."""
    pytest.importorskip("sklearn")
    environment = {**os.environ, "PATH": f"{ODP_TASK.parent}:{os.environ['PATH']}"}

    def odp_task(*args, code=0):
        done = subprocess.run([ODP_TASK, *map(str, args)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1500, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout

    odp_task("data", "partition", "digits", "--output", "clients", "--clients", 10, "--test_fraction", 0.2)
    common = ["--dir", "tuning", "--latency", "none", "--clients_per_round", 4, "--full_rounds", 6, "--evaluation_every", 2]
    space = ["--model_function", f"{DIGITS / 'model.py'}:make_model", "--task_config", DIGITS / "fleet.pbtxt"]
    data = ["--data", "clients/train", "--evaluation_data", "clients/test"]
    selected = json.loads(odp_task("proxy", "select", *common, *space, *data, "--start", 5, "--final", 5, "--json"))
    assert len(selected["references"]) == 5 and selected["full_trainings"] == 5
    assert json.loads(odp_task("proxy", "select", *common, "--start", 5, "--final", 5, "--json")) == selected
    found = json.loads(
        odp_task("proxy", "search", *common, "--vary", "clients_per_round=3", "--hold", 1, "--max_p", 1, "--desired_accuracy_correlation", -1, "--json")
    )
    assert found["best"] == "clients_per_round=3"
    done = subprocess.run(["sh", "tuning/search/best_proxy_task.sh", "--number", "5", "--full_rounds", "6", "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    ranking = json.loads(done.stdout)
    assert len(ranking["scores"]) == 5 and list(ranking["scores"].values()) == sorted(ranking["scores"].values(), reverse=True)
    assert (tmp_path / "tuning/candidates" / next(iter(ranking["scores"])) / "task_config.pbtxt").exists()
