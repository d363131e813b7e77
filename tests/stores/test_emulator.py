"""The ordinary paths with Google's own client against the storage emulator of the package index."""

import os
import socket

import pytest
from gcp_storage_emulator.server import create_server

from odp_taskbuilder import stores
from odp_taskbuilder.transport import deadline

NETWORK = deadline.Network(deadline=60)


@pytest.fixture(scope="module")
def bucket():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="emulated")
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        yield "gs://emulated"
    server.stop()


@pytest.mark.parametrize("num_bytes", [0, 1, 5000, (8 << 20) + 1, 20 << 20])
def test_write_stat_read_and_write_again(bucket, tmp_path, num_bytes):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(num_bytes))
    store = stores.open_store(bucket, NETWORK, deadline.Deadline(60))
    url = f"{bucket}/size/{num_bytes}"
    assert store.stat(url) is None
    assert store.write(url, source) is stores.Outcome.WRITTEN
    assert store.stat(url).size == num_bytes
    assert store.read(url, num_bytes) == source.read_bytes()
    assert store.write(url, source) is stores.Outcome.IDENTICAL
    source.write_bytes(b"other")
    assert store.write(url, source, overwrite=True) is stores.Outcome.REPLACED
    assert store.read(url, 100) == b"other"


def test_a_model(bucket, tmp_path):
    store = stores.open_store(bucket, NETWORK, deadline.Deadline(60))
    files = {
        "saved_model.pb": b"model",
        "variables/variables.index": b"index",
        "variables/variables.data-00000-of-00001": b"data",
    }
    for name, data in files.items():
        (tmp_path / "file").write_bytes(data)
        store.write(f"{bucket}/models/m/{name}", tmp_path / "file")
        store.write(f"{bucket}/models/m_other/{name}", tmp_path / "file")
    tree = tmp_path / "copy"
    store.download_tree(f"{bucket}/models/m", tree, stores.TreeLimits())
    assert {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()} == files
