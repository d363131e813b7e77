"""manifest.json: what was built, from what, with what."""

import json

import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import manifest
from odp_taskbuilder.config.show import ResolvedValue
from odp_taskbuilder.config.spec import Origin


def test_digests_are_those_of_the_standards(tmp_path):
    (tmp_path / "check").write_bytes(b"123456789")
    digest = manifest.digest_file(tmp_path / "check")
    # FIPS 180-4 and the check value of CRC-32C (0xE3069283), as Cloud Storage writes it.
    assert digest.sha256 == "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
    assert digest.crc32c == "4waSgw=="
    assert digest.size == 9


def test_inputs_are_named_without_the_path_of_the_machine(tmp_path):
    (tmp_path / "saved" / "variables").mkdir(parents=True)
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"1")
    (tmp_path / "saved" / "variables" / "variables.index").write_bytes(b"2")
    assert list(manifest.digest_directory(tmp_path / "saved", "model")) == [
        "model/saved_model.pb",
        "model/variables/variables.index",
    ]


def test_a_manifest_survives_being_written_and_read(tmp_path):
    (tmp_path / "plan.pb").write_bytes(b"plan")
    config = [
        ResolvedValue("mode", "EVAL_ONLY", Origin.CONFIG),
        ResolvedValue("learning_rate", 0.1, Origin.DEFAULT),
        ResolvedValue("label_name", None, Origin.OPTION),
    ]
    made = manifest.make_manifest(tmp_path, form="DistributeAggregate", inputs={"task_config": "ab"}, config=config)
    assert made.config == tuple(config)
    (tmp_path / "manifest.json").write_text(made.to_json())
    assert manifest.read_manifest(tmp_path) == made
    assert made.versions["tensorflow"].startswith("2.14.")
    assert set(made.versions) == {"odp-task", "tensorflow", "tensorflow-federated", "dp-accounting"}


_DIGEST = {"sha256": "", "crc32c": "", "size": 1}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[" * 100000,
        b"[]",
        b'{"producer": "other", "files": {}}',
        json.dumps({"producer": "odp-task", "files": {"../x": _DIGEST}, "inputs": {}, "versions": {}}).encode(),
        json.dumps({"producer": "odp-task", "files": {"/etc/passwd": _DIGEST}, "inputs": {}, "versions": {}}).encode(),
        json.dumps({"producer": "odp-task", "files": {"plan.pb": 5}, "inputs": {}, "versions": {}}).encode(),
        json.dumps({"producer": "odp-task", "files": {}, "inputs": {}, "versions": {}, "config": {"mode": 1}}).encode(),
        json.dumps(
            {"producer": "odp-task", "files": {}, "inputs": {}, "versions": {}, "config": {"mode": {"value": 1, "origin": "moon"}}}
        ).encode(),
        json.dumps(
            {"producer": "odp-task", "files": {}, "inputs": {}, "versions": {}, "config": {"mode": {"value": [], "origin": "config"}}}
        ).encode(),
        json.dumps({"producer": "odp-task", "files": [], "inputs": {}, "versions": {}}).encode(),
        b'{"producer": "odp-task", "pad": "' + b" " * (4 << 20) + b'"}',
    ],
)
def test_a_foreign_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(errors.ArtifactError, match="is no manifest"):
        manifest.read_manifest(tmp_path)


def test_a_missing_manifest_is_a_storage_error(tmp_path):
    with pytest.raises(errors.StorageError, match="No such file"):
        manifest.read_manifest(tmp_path)
