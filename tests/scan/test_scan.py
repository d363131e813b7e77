"""A model is refused for what it holds before anything loads it, and a model that people train is not."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

import pytest

from odp_taskbuilder import errors, scan
from odp_taskbuilder.scan import ops as scan_ops
from odp_taskbuilder.scan.report import ScanLimits

_GRAPH = "saved_model.pb"
_INDEX = "variables/variables.index"

# What the scan must name of hostile models: operation and function, or part of the file. "" where the name is TensorFlow's choice.
_NAMED = {
    "read_file": ("ReadFile", "stand_in"),
    "read_file_in_a_branch": ("ReadFile", "cond_true"),
    "read_file_in_a_loop": ("ReadFile", "while_body"),
    "read_file_in_a_case": ("ReadFile", "branch1"),
    "unused_function": ("ReadFile", "lambda"),
    "gradient_reads_file": ("ReadFile", "internal_grad_fn"),
    "resource_initializer": ("WriteFile", "_initialize"),
    "restore_function": ("WriteFile", "restore_fn"),
    "main_op_writes": ("WriteFile", "main graph"),
    "checkpoint_function_writes": ("RestoreV2", "traced_restore"),
    "print_to_file": ("PrintV2", "stand_in"),
    "py_function": ("EagerPyFunc", "stand_in"),
    "cache_dataset": ("CacheDatasetV2", "stand_in"),
    "snapshot_dataset": ("SnapshotDatasetV2", ""),
    "immutable_const": ("ImmutableConst", "stand_in"),
    "abort": ("Abort", "stand_in"),
    "endless_loop": ("StatelessWhile", "stand_in"),
    "terabyte_fill": ("Fill", "stand_in"),
    "recursion": ("", "flat_loss"),
    "duplicate_functions": ("", ""),
    "asset_outside": ("", "assets"),
    "text_format_only": ("", "saved_model.pbtxt"),
    "two_meta_graphs": ("", _GRAPH),
    "registered_saver": ("", "object graph"),
}


@pytest.fixture
def dense(corpus, tmp_path):
    """A copy of a small benign model, to spoil."""
    source = next(path for path in corpus.benign if path.name == "dense")
    return pathlib.Path(shutil.copytree(source, tmp_path / "model"))


def test_the_published_model_is_safe(golden):
    report = scan.require_safe(golden / "keras_dense" / "model")
    assert report.op_counts["MatMul"] == 8
    assert report.ops_by_group()["matrix algebra"] == {"MatMul": 8}
    assert "refused" not in report.ops_by_group()


def test_models_that_people_train_are_safe(corpus):
    assert len(corpus.benign) >= 8
    assert {path.name: scan.scan_model(path).findings for path in corpus.benign} == {path.name: () for path in corpus.benign}


_ROOT = pathlib.Path(__file__).resolve().parents[2]
_ZOO = _ROOT.parent / "shared" / "zoo" / "zoo.py"


def test_shipped_and_published_models_are_safe(golden):
    models = {file.parent for folder in (_ROOT / "configs", golden) for file in folder.rglob(_GRAPH)}
    assert {_ROOT / "configs/digits/saved_model", golden / "keras_dense/model"} <= models
    assert {path: scan.scan_model(path).findings for path in models} == dict.fromkeys(models, ())


@pytest.mark.full
@pytest.mark.skipif(not _ZOO.exists(), reason="no zoo of models here")
def test_models_of_the_field_are_safe(tmp_path):
    subprocess.run([sys.executable, "-W", "ignore", pathlib.Path(__file__).parent / "zoo_models.py", _ZOO, tmp_path], check=True)
    models = {path.name for path in tmp_path.iterdir()}
    assert len(models) >= 46
    assert {name: scan.scan_model(tmp_path / name).findings for name in models} == dict.fromkeys(models, ())


def test_every_hostile_model_is_refused_and_nothing_is_touched(corpus):
    before = corpus.snapshot()
    accepted, said = [], {}
    for path in corpus.hostile:
        try:
            scan.require_safe(path)
            accepted.append(path.name)
        except errors.ModelError as error:
            assert error.exit_code == 4
            said[path.name] = str(error)
    assert len(said) >= 60
    assert accepted == []
    assert corpus.snapshot() == before
    assert not [name for name, text in said.items() if "canary-7c1f" in text]


@pytest.mark.parametrize("name", _NAMED)
def test_a_refusal_names_function_and_operation(corpus, name):
    path = next(path for path in corpus.hostile if path.name == name)
    op, function = _NAMED[name]
    findings = scan.scan_model(path).findings
    assert any(finding.op == op and function in finding.function for finding in findings), findings


def test_a_refusal_names_every_occurrence(corpus):
    path = next(path for path in corpus.hostile if path.name == "read_file")
    with pytest.raises(errors.UntrustedModelError) as caught:
        scan.require_safe(path)
    # Once in the forward pass for training and once in that for inference.
    assert str(caught.value).count("ReadFile in ") == 2


def test_the_harm_of_the_corpus_is_real(corpus):
    assert corpus.proof == {
        "read_file": ["stole"],
        "read_file_in_a_branch": ["stole"],
        "matching_files": ["stole"],
        "text_line_dataset": ["stole"],
        "write_file": ["wrote"],
        "print_to_file": ["wrote"],
        "save_v2": ["wrote"],
        "debug_identity_over_network": ["connected"],
        "resource_initializer": ["wrote"],
        "restore_function": ["wrote"],
    }


def test_allowed_operations_exist_and_have_reasons(corpus):
    allowed = scan_ops.allowed_ops()
    assert sorted(set(allowed) - set(corpus.registered_ops)) == []
    assert all(group.reason for group in allowed.values())


def test_stateful_operations_are_allowed_for_stated_reasons_only(corpus):
    stateful = {group.name for op, group in scan_ops.allowed_ops().items() if corpus.registered_ops[op]["stateful"]}
    assert stateful == {
        "calls and control flow",
        "weights",
        "declared variables",
        "checkpoint functions",
        "random numbers from a given seed",
        "random numbers from the process",
        "assertions",
    }


def test_no_operation_that_is_allowed_everywhere_takes_a_path(corpus):
    suspicious = (
        "file",
        "path",
        "prefix",
        "dir",
        "address",
        "url",
        "container",
        "shared_name",
        "token",
        "region",
        "descriptor",
    )
    taken = {
        op: [name for name in corpus.registered_ops[op]["strings"] if any(word in name for word in suspicious)]
        for op, group in scan_ops.allowed_ops().items()
        if group.where is scan_ops.Place.FUNCTION
    }
    assert {op: names for op, names in taken.items() if names} == {}


@pytest.mark.parametrize(
    "spoil, message",
    [
        (shutil.rmtree, "There is no model"),
        (lambda model: (model / _GRAPH).unlink(), "saved_model.pb is missing"),
        (lambda model: (model / _INDEX).unlink(), "variables.index is missing"),
        (lambda model: (model / _GRAPH).write_bytes(b""), "holds no model"),
        (lambda model: (model / _GRAPH).write_bytes((model / _GRAPH).read_bytes()[:-7]), "truncated or damaged"),
        (lambda model: (model / _INDEX).write_bytes(b"x" * 200), "truncated or damaged"),
        (lambda model: (model / "variables/variables.data-00000-of-00001").unlink(), "cannot be read"),
        (lambda model: (model / "link").symlink_to("/etc"), "link is a symbolic link"),
        (lambda model: os.mkfifo(model / "pipe"), "pipe is a pipe"),
        (lambda model: [(model / f"file{i}").touch() for i in range(1001)], "more than 1000 files"),
    ],
)
def test_a_directory_that_is_no_model_is_said_to_be_none(dense, spoil, message):
    spoil(dense)
    with pytest.raises(errors.ModelError, match=message):
        scan.scan_model(dense)


def test_a_saved_model_of_something_else_is_said_to_be_none(dense):
    content = (dense / _GRAPH).read_bytes()
    (dense / _GRAPH).write_bytes(content.replace(b"predict_on_batch_inference", b"predict_on_batch_abcdefghi"))
    with pytest.raises(errors.ModelError, match="not a FunctionalModel"):
        scan.scan_model(dense)


@pytest.mark.parametrize(
    "limit, message",
    [
        ("fingerprint_bytes", "at most 1 are accepted"),
        ("functions", "more than 1 functions"),
        ("nodes", "more than 1 nodes"),
        ("inlined_nodes", "more than 1 nodes once its calls are inlined"),
        ("call_depth", "more than 1 deep"),
        ("attributes", "more than 1 attributes"),
        ("objects", "more than 1 objects"),
        ("objects_bytes", "bytes; at most 1"),
        ("attribute_bytes", "bytes"),
        ("tensor_elements", "at most 1 are accepted"),
        ("constant_bytes", "constants take"),
        ("variables_bytes", "at most 1 are accepted"),
    ],
)
def test_a_model_that_passes_a_limit_is_refused(dense, limit, message):
    assert scan.scan_model(dense).is_safe
    findings = scan.scan_model(dense, ScanLimits(**{limit: 1})).findings
    assert any(message in finding.reason for finding in findings), findings


def test_names_in_a_model_cannot_write_to_the_terminal(dense):
    content = (dense / _GRAPH).read_bytes()
    (dense / _GRAPH).write_bytes(content.replace(b"MatMul", b"\x1b[2JX\n"))
    with pytest.raises(errors.UntrustedModelError) as caught:
        scan.require_safe(dense)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.full)])
def test_flipped_bits_get_a_verdict(dense, count):
    files = [_GRAPH, _INDEX, "variables/variables.data-00000-of-00001"]
    originals = {name: (dense / name).read_bytes() for name in files}
    verdicts = set()
    for seed in range(count):
        generator = random.Random(seed)
        name = generator.choice([_GRAPH, _GRAPH, *files])
        content = bytearray(originals[name])
        for _ in range(generator.choice([1, 1, 2, 8])):
            bit = generator.randrange(len(content) * 8)
            content[bit // 8] ^= 1 << (bit % 8)
        (dense / name).write_bytes(content)
        try:
            scan.require_safe(dense)
            verdicts.add("safe")
        except errors.ModelError as error:
            verdicts.add(type(error).__name__)
        (dense / name).write_bytes(originals[name])
    assert verdicts == {"safe", "ModelError", "UntrustedModelError"}


def _odp_task(*args):
    program = "import sys; from odp_taskbuilder.cli import main; sys.argv[0] = 'odp-task'\n"
    program += "code = main.run(sys.argv[1:])\nprint('tensorflow' in sys.modules, file=sys.stderr)\nsys.exit(code)"
    return subprocess.run([sys.executable, "-c", program, *args], capture_output=True, text=True, timeout=60)


def test_the_command_shows_operations_and_verdict_without_tensorflow(dense):
    done = _odp_task("scan", str(dense))
    assert done.returncode == 0
    assert "matrix algebra: MatMul 8" in done.stdout
    assert "nothing speaks against loading this model" in done.stdout
    assert done.stderr.strip() == "False"


def test_the_command_ends_with_4_for_a_hostile_model(corpus):
    path = next(path for path in corpus.hostile if path.name == "write_file")
    done = _odp_task("scan", str(path), "--json")
    assert done.returncode == 4
    document = json.loads(done.stdout)
    assert document["safe"] is False
    assert {finding["op"] for finding in document["findings"]} == {"WriteFile"}
    assert document["ops"]["refused"] == {"WriteFile": 2}
