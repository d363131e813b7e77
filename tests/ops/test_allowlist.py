"""The list of ops that phones can run is data."""

import pytest

from odp_taskbuilder import errors
from odp_taskbuilder.ops.allowlist import Allowlist


def test_builtin_list_has_23_ops_from_one_version_and_l2loss_from_the_next():
    versions = Allowlist.builtin().min_module_versions
    assert len(versions) == 24
    assert {op for op, version in versions.items() if version != 341812000} == {"L2Loss"}
    assert versions["L2Loss"] == 341912000
    assert versions["_TensorToHashBucketFast"] == 341812000


@pytest.mark.parametrize("text", ["min_module_version,op\n7,Foo\n80,_Bar\n", "7,Foo\n80,_Bar", "7, Foo\r\n\r\n80 ,_Bar\r\n"])
def test_a_list_of_ones_own_may_come_with_or_without_header_and_last_newline(tmp_path, text):
    path = tmp_path / "ops.csv"
    path.write_bytes(text.encode())
    allowlist = Allowlist.from_csv(path)
    assert allowlist.min_module_version("Foo") == 7
    assert allowlist.min_module_version("_Bar") == 80
    assert allowlist.min_module_version("FlexFoo") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"7,Foo\nMapDataset\n", ":2: expected a line like 341812000,MapDataset, found 'MapDataset'"),
        (b"7,Foo\n-1,Bar\n", ":2: expected a line like 341812000,MapDataset, found '-1,Bar'"),
        (b"9" * 5000 + b",Foo", ":1: expected a line like"),
        (b"7,Foo\n8,Foo\n", ":2: the op 'Foo' is listed twice"),
        (b"", " lists no op"),
        (b"\xff\xfe\x00", " is no allow list: it is not text"),
        (b"#" * ((1 << 20) + 1), " is no allow list: it is larger than"),
    ],
)
def test_a_faulty_list_is_refused_with_its_line(tmp_path, content, message):
    path = tmp_path / "ops.csv"
    path.write_bytes(content)
    with pytest.raises(errors.UsageError) as refusal:
        Allowlist.from_csv(path)
    assert f"{path}{message}" in str(refusal.value)


def test_a_missing_list_is_a_storage_error(tmp_path):
    with pytest.raises(errors.StorageError, match="No such file"):
        Allowlist.from_csv(tmp_path / "absent.csv")
