"""Several builds by one command, and builds that were made before."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from odp_taskbuilder import build_cache, errors, many_builds
from odp_taskbuilder.artifacts import manifest
from odp_taskbuilder.cli import main as cli
from odp_taskbuilder.config import ResolveOptions, load_config, resolve
from odp_taskbuilder.config.build_options import BuildOptions
from odp_taskbuilder.config.sweep import parse_sweep, swept
from odp_taskbuilder.privacy import budget_of
from odp_taskbuilder.proto import task_builder_pb2

EXAMPLE = pathlib.Path(__file__).resolve().parents[1] / "configs" / "digits"
CONFIG = """
mode: TRAINING_ONLY
population_name: "{name}"
policies {{ model_release_policy {{ num_max_training_rounds: 10 }} }}
federated_learning {{ learning_process {{ runtime_config {{ report_goal: {report_goal} }} }} }}
differential_privacy {{ clip_norm: 0.1 noise_multiplier: 1.0 }}
"""


@pytest.fixture
def configs(tmp_path):
    """Two configs that build, and one between them that does not."""
    for name, report_goal in (("a", 100), ("b", -1), ("c", 100)):
        (tmp_path / f"{name}.pbtxt").write_text(CONFIG.format(name=name, report_goal=report_goal))
    return tmp_path


def content(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_build_that_fails_stops_no_other_and_equal_graphs_are_made_once(configs, tmp_path):
    stages = []

    class Stage:
        def __init__(self, name):
            stages.append(name)

        def __enter__(self):
            return self

        def __exit__(self, *exc_info):
            return None

    outcomes = list(
        many_builds.build_many(EXAMPLE / "saved_model", [str(configs / "*.pbtxt")], tmp_path / "out", use_cache=True, stage=Stage)
    )
    assert [pathlib.Path(outcome.source).name for outcome in outcomes] == ["a.pbtxt", "b.pbtxt", "c.pbtxt"]
    assert isinstance(outcomes[1].error, errors.ConfigError) and not (tmp_path / "out" / "b").exists()
    first, last = content(tmp_path / "out" / "a"), content(tmp_path / "out" / "c")
    # Nothing of a plan depends on the population's name.
    assert first["plan.pb"] == last["plan.pb"] and first["task.pbtxt"] != last["task.pbtxt"]
    # By itself it gives the same bytes.
    (alone,) = many_builds.build_many(EXAMPLE / "saved_model", [configs / "c.pbtxt"], tmp_path / "alone")
    assert content(alone.result.directory) == last

    # From the cache, in a process of its own: without TensorFlow, and to the byte.
    again = [
        "build", "--saved_model", str(EXAMPLE / "saved_model"), "--task_config", str(configs / "c.pbtxt"), "--json",
        "--output", str(tmp_path / "again"),
    ]  # fmt: skip
    program = "import sys; from odp_taskbuilder.cli import main\ntry: main.main()\nfinally: assert 'tensorflow' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program, *again], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["from_cache"] is True
    assert content(tmp_path / "again" / "c") == last
    assert json.loads(done.stdout)["privacy"]["epsilon"] == outcomes[2].result.budget.epsilon

    # A damaged entry is found out, told of once, and gone.
    cache = build_cache.BuildCache()
    loaded = load_config(configs / "c.pbtxt")
    key = cache.key(EXAMPLE / "saved_model", loaded, resolve(loaded, ResolveOptions()), BuildOptions())
    assert cache.take(key, tmp_path / "taken", overwrite=False) is not None and content(tmp_path / "taken") == last
    (entry,) = pathlib.Path(cache_home()).rglob(key)
    for damage in (lambda: flip(entry / "plan.pb"), lambda: flip(entry / "entry.json"), lambda: (entry / "task.pbtxt").unlink()):
        kept = tmp_path / "kept"
        shutil.copytree(entry, kept)
        damage()
        assert cache.take(key, tmp_path / "damaged", overwrite=False) is None
        assert not entry.exists() and not (tmp_path / "damaged").exists()
        assert "damaged" in cache.notices.pop() and not cache.notices
        shutil.move(kept, entry)


@pytest.mark.parametrize(
    "kind",
    [
        "FIXED_GAUSSIAN",
        "ADAPTIVE_GAUSSIAN",
        *(pytest.param(kind, marks=pytest.mark.full) for kind in ("TREE_AGGREGATION", "ADAPTIVE_TREE", "FIXED_GAUSSIAN use_daf")),
    ],
)
def test_every_output_of_a_sweep_is_to_the_byte_what_a_build_by_itself_makes(kind, tmp_path):
    kind, *use_daf = kind.split()
    config = CONFIG.format(name="a", report_goal=100).replace("TRAINING_ONLY", "TRAINING_AND_EVAL")
    evaluation = "evaluation { source_training_task_id: 1 evaluation_traffic: 0.1 report_goal: 10 }"
    config = config.replace("federated_learning {", f"federated_learning {{ {evaluation}")
    config = config.replace("differential_privacy {", f"differential_privacy {{ type: {kind}") + ("use_daf: true" if use_daf else "")
    (tmp_path / "a.pbtxt").write_text(config)
    options = BuildOptions(resolve=ResolveOptions(skip_dp_check=True))
    found = {"plan.pb": set(), "eval_plan.pb": set(), "initial_state.server.ckp": set()}

    def built(output, sweeps):
        outcomes = many_builds.build_many(EXAMPLE / "saved_model", [tmp_path / "a.pbtxt"], output, options, sweeps=sweeps)
        return [(outcome.settings, outcome.result) for outcome in outcomes]

    for settings, result in built(tmp_path / "out", ["batch_size=8,16", "noise_multiplier=0.9,1"]):
        (_, alone), = built(tmp_path / "alone", [f"{name}={value}" for name, value in settings])  # fmt: skip
        if kind.endswith("GAUSSIAN"):
            assert content(result.directory) == content(alone.directory)
        else:  # Trees begin with seeds of their own.
            for name in ("plan.pb", "eval_plan.pb"):
                assert content(result.directory)[name] == content(alone.directory)[name]
        assert result.budget == alone.budget
        for name, contents in found.items():
            contents.add(content(result.directory)[name])
    # Noise is a part of the state that training begins with, the size of batches of both plans.
    assert [len(contents) for contents in found.values()] == [2, 2, 2 if kind.endswith("GAUSSIAN") else 4]


def cache_home():
    return os.environ["XDG_CACHE_HOME"]


def flip(path):
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


def test_every_option_every_weight_and_every_version_is_part_of_the_key(configs, tmp_path, monkeypatch):
    loaded = load_config(configs / "a.pbtxt")
    model = tmp_path / "model"
    shutil.copytree(EXAMPLE / "saved_model", model)

    def key(options=BuildOptions(), config=loaded):
        build_cache._versions.cache_clear()
        build_cache._package_digest.cache_clear()
        return build_cache.BuildCache().key(model, config, resolve(config, options.resolve), options)

    keys = [key()]
    assert key() == keys[0]
    for field in dataclasses.fields(BuildOptions):
        if field.name != "resolve":
            keys.append(key(dataclasses.replace(BuildOptions(), **{field.name: changed(field.default)})))
    for field in dataclasses.fields(ResolveOptions):
        if field.name != "require_artifact_urls":
            value = "changed" if field.name in ("population_name", "storage_path") else changed(field.default)
            keys.append(key(BuildOptions(resolve=dataclasses.replace(ResolveOptions(), **{field.name: value}))))
    keys.append(key(config=load_config(configs / "c.pbtxt")))
    flip(model / "variables" / "variables.data-00000-of-00001")
    keys.append(key())
    monkeypatch.setattr(build_cache.importlib.metadata, "version", lambda name: "0")
    keys.append(key())
    assert len(set(keys)) == len(keys)
    # Its noise has seeds of its own.
    tree = (configs / "a.pbtxt").read_text().replace("differential_privacy {", "differential_privacy { type: TREE_AGGREGATION")
    (configs / "tree.pbtxt").write_text(tree)
    assert key(BuildOptions(resolve=ResolveOptions(skip_dp_check=True)), load_config(configs / "tree.pbtxt")) is None


def changed(value):
    if isinstance(value, bool):
        return not value
    if dataclasses.is_dataclass(value):
        field = next(field for field in dataclasses.fields(value) if getattr(value, field.name) is not None)
        return dataclasses.replace(value, **{field.name: changed(getattr(value, field.name))})
    return "1.2.3" if isinstance(value, str) else value + 1


def test_the_cache_stays_within_its_size_and_keeps_what_was_used_last(tmp_path, monkeypatch):
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "plan.pb").write_bytes(b"p" * 1000)
    made = manifest.make_manifest(tmp_path / "artifacts", form="MapReduce", inputs={})
    (tmp_path / "artifacts" / "manifest.json").write_text(made.to_json())
    facts = build_cache.BuiltFacts((), resolve_budget(), *empty_protos())
    monkeypatch.setattr(build_cache, "MAX_BYTES", 9000)
    cache = build_cache.BuildCache()
    builds = pathlib.Path(cache_home(), "odp-task", "builds")
    for number in range(8):
        cache.keep(str(number), tmp_path / "artifacts", facts)
        set_age(builds / str(number), 100 - number)
        set_age(builds / "0", 0)
    kept = {path.name for path in builds.iterdir()}
    assert {"0", "7"} <= kept and "1" not in kept
    assert sum(file.stat().st_size for file in builds.rglob("*") if file.is_file()) <= 9000
    # What is not what was built is not kept.
    (tmp_path / "artifacts" / "plan.pb").write_bytes(b"q" * 1000)
    cache.keep("touched", tmp_path / "artifacts", facts)
    assert not (builds / "touched").exists()


# Takes entries of a cache that others make room in at the same time, and makes those that are not there. Arguments: directory, seed, whether
# it damages entries meanwhile. Prints its notices, and how often it took and kept one.
CACHE_USER = """
import json, pathlib, random, shutil, sys
from odp_taskbuilder import build_cache
from odp_taskbuilder.config import ResolveOptions, load_config, resolve
from odp_taskbuilder.privacy import budget_of
from odp_taskbuilder.proto import task_builder_pb2
home, rng, damages = pathlib.Path(sys.argv[1]), random.Random(int(sys.argv[2])), sys.argv[3] == "damages"
budget = budget_of(resolve(load_config(sys.argv[4]), ResolveOptions(skip_dp_aggregator=True)))
facts = build_cache.BuiltFacts((), budget, task_builder_pb2.TaskReport(), task_builder_pb2.TaskGroup())
build_cache.MAX_BYTES = 700_000
cache, builds, counts = build_cache.BuildCache(), build_cache._entries(), [0, 0]
taken = home / f"taken_{sys.argv[2]}"
print("ready", flush=True)
sys.stdin.readline()
for _ in range(80):
    key = rng.choice("abcd")
    if cache.take(key, taken, overwrite=False) is None:
        cache.keep(key, home / key, facts)
        counts[1] += 1
    else:
        for path in taken.iterdir():
            assert path.read_bytes() == (home / key / path.name).read_bytes(), path
        shutil.rmtree(taken)
        counts[0] += 1
    if damages:
        try:
            with open(builds / rng.choice("abcd") / "plan.pb", "r+b") as file:
                file.seek(1000)
                file.write(b"damaged")
        except OSError:
            pass
    assert not taken.exists()
print(json.dumps([cache.notices, counts]))
"""


@pytest.mark.parametrize("damages", ["damages", "reads"])
def test_several_processes_use_one_cache_at_once(damages, tmp_path):
    for key in "abcd":
        artifacts = tmp_path / key
        artifacts.mkdir()
        # Three of four fit.
        (artifacts / "plan.pb").write_bytes(key.encode() * 200_000)
        (artifacts / "manifest.json").write_text(manifest.make_manifest(artifacts, form="MapReduce", inputs={}).to_json())
    commands = [
        [sys.executable, "-c", CACHE_USER, tmp_path, str(seed), damages if seed == 0 else "reads", EXAMPLE / "try_out.pbtxt"]
        for seed in range(4)
    ]
    users = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for command in commands]
    for user in users:
        assert user.stdout.readline() == "ready\n", user.stderr.read()
    notices, counts = [], []
    for user in users:
        user.stdin.write("go\n")
        user.stdin.flush()
    for user in users:
        out, err = user.communicate(timeout=300)
        assert user.returncode == 0, err
        said, counted = json.loads(out)
        notices += said
        counts.append(counted)
    # All of them took what others had made, room was made for others, and what went meanwhile is not called damaged.
    assert all(took and kept for took, kept in counts)
    assert bool(notices) == (damages == "damages")
    assert all("was changed" in notice and "is made anew" in notice for notice in notices)
    builds = pathlib.Path(cache_home(), "odp-task", "builds")
    assert {path.name for path in builds.iterdir()} <= set("abcd")
    assert sum(file.stat().st_size for file in builds.rglob("*") if file.is_file()) <= 700_000


def set_age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def resolve_budget():
    return budget_of(resolve(load_config(EXAMPLE / "try_out.pbtxt"), ResolveOptions(skip_dp_aggregator=True)))


def empty_protos():
    return task_builder_pb2.TaskReport(), task_builder_pb2.TaskGroup()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sweep", "noise_multipler=1,2"], "Did you mean 'noise_multiplier'?"),
        (["--sweep", "report_goal=1"], "federated_learning.evaluation.report_goal"),
        (["--sweep", "noise_multiplier=1,1"], "would both be written to"),
        (["--sweep", "noise_multiplier="], "not of the form"),
        (["--sweep", "noise_multiplier=1,x"], "'x' is no value of"),
        (["--sweep", "clip_norm=1", "--sweep", "clip_norm=2"], "twice"),
        (["--task_config", "a.pbtxt"], "would both be written to"),
    ],
)
def test_sweeps_that_cannot_be_built_end_with_3_before_any_build(arguments, said, configs, monkeypatch, capsys):
    monkeypatch.chdir(configs)
    assert cli.run(["build", "--saved_model", "there is none", "--task_config", "a.pbtxt", *arguments]) == 3
    assert said in capsys.readouterr().err
    assert not (configs / "odp_artifacts").exists()


def test_fail_fast_tries_no_other_and_every_outcome_is_listed(configs):
    outcomes = list(
        many_builds.build_many(configs / "no model", [configs / "b.pbtxt", configs / "c.pbtxt"], configs / "out", fail_fast=True)
    )
    assert isinstance(outcomes[0].error, errors.ConfigError)
    assert isinstance(outcomes[1].error, many_builds.NotTriedError)
    outcomes = list(many_builds.build_many(configs / "no model", [configs / "b.pbtxt", configs / "c.pbtxt"], configs / "out"))
    assert isinstance(outcomes[1].error, errors.ModelError)


def test_a_sweep_sets_zeros_and_makes_every_combination():
    config = load_config(EXAMPLE / "train.pbtxt")
    made = swept(config, [parse_sweep("batch_size=0,8"), parse_sweep("use_daf=true"), parse_sweep("population_name=x y")])
    assert [dict(one.settings) for one in made] == [
        {"batch_size": "0", "use_daf": "true", "population_name": "x y"},
        {"batch_size": "8", "use_daf": "true", "population_name": "x y"},
    ]
    assert [one.config.config.policies.dataset_policy.batch_size for one in made] == [0, 8]
    assert all(one.config.config.use_daf and one.config.config.population_name == "x y" for one in made)
    assert config.config.population_name == "digits"
