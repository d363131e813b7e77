"""Directories and buckets as stores: the same promises for both, the bucket on a fake that enforces preconditions and checksums."""

import gzip
import os
import pathlib
import tempfile
import threading

import pytest
from fakes.faults import FAULTS, TRANSIENT, FaultPlan
from fakes.gcs import FakeGcs

from odp_taskbuilder import errors, stores
from odp_taskbuilder.transport import deadline

HASTY = deadline.Network(deadline=20, connect_timeout=2, silence=0.15, retry_for=0.5, first_pause=0.001, longest_pause=0.004)
LIMITS = stores.TreeLimits()


# Where nothing is to fail, a slow machine may take its time.
PATIENT = deadline.Network(deadline=300, silence=100)


def _open(url, network=HASTY):
    return stores.open_store(url, network, deadline.Deadline(network.deadline))


class Place:
    """Somewhere to store: `url(name)` says where, `content(name)` what is there."""

    def __init__(self, base, content, put):
        self.base, self.content, self.put = base, content, put
        self.store = _open(f"{base}/x")

    def url(self, name):
        return f"{self.base}/{name}"


@pytest.fixture
def gcs(monkeypatch):
    fake = FakeGcs()
    with fake.serve() as fake.server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.server.url)
        yield fake


@pytest.fixture(params=["path", "file", "gs"])
def place(request, tmp_path, gcs):
    root = tmp_path / "store"
    if request.param == "gs":
        yield Place(
            "gs://bucket", lambda name: gcs.content(f"gs://bucket/{name}"), lambda name, data: gcs.put("bucket", name, data)
        )
        assert gcs.unconditional_uploads == []
        return

    def put(name, data):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)

    def content(name):
        return (root / name).read_bytes() if (root / name).exists() else None

    yield Place(f"file://{root}" if request.param == "file" else str(root), content, put)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(os.urandom(10_000))
    return path


def test_an_object_is_written_once(place, source):
    url = place.url("a/b/plan.pb")
    assert place.store.stat(url) is None
    assert place.store.write(url, source) is stores.Outcome.WRITTEN
    assert place.content("a/b/plan.pb") == source.read_bytes()
    assert place.store.stat(url).size == 10_000
    assert place.store.write(url, source) is stores.Outcome.IDENTICAL


def test_other_content_is_refused_and_with_overwrite_replaced(place, source):
    place.put("plan.pb", b"another plan")
    with pytest.raises(errors.StorageError, match=r"plan\.pb exists already, with other content") as failure:
        place.store.write(place.url("plan.pb"), source)
    assert "--overwrite" in failure.value.next_step
    assert place.content("plan.pb") == b"another plan"
    assert place.store.write(place.url("plan.pb"), source, overwrite=True) is stores.Outcome.REPLACED
    assert place.content("plan.pb") == source.read_bytes()


def test_content_of_the_same_size_is_other_content(place, source):
    place.put("plan.pb", bytes(10_000))
    with pytest.raises(errors.StorageError, match="other content"):
        place.store.write(place.url("plan.pb"), source)


def test_reading(place):
    place.put("config.pbtxt", b"mode: TRAINING_ONLY")
    assert place.store.read(place.url("config.pbtxt"), 19) == b"mode: TRAINING_ONLY"
    with pytest.raises(errors.StorageError, match="larger than the 18 bytes"):
        place.store.read(place.url("config.pbtxt"), 18)
    with pytest.raises(errors.StorageError, match=r"none\.pbtxt"):
        place.store.read(place.url("none.pbtxt"), 10)


def test_a_tree_without_its_siblings(place, tmp_path):
    place.put("m/saved_model.pb", b"model")
    place.put("m/variables/variables.index", b"index")
    place.put("m2/saved_model.pb", b"sibling")
    place.put("m_other", b"sibling")
    for slash in ("", "/"):
        target = tmp_path / f"copy{len(slash)}"
        place.store.download_tree(place.url(f"m{slash}"), target, LIMITS)
        files = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
        assert files == {"saved_model.pb": b"model", "variables/variables.index": b"index"}
    assert set(place.store.list(place.url("m"), LIMITS)) == {"saved_model.pb", "variables/variables.index"}


def test_a_tree_that_is_not_there(place, tmp_path):
    with pytest.raises(errors.StorageError, match="none"):
        place.store.download_tree(place.url("none"), tmp_path / "copy", LIMITS)


@pytest.mark.parametrize(
    ("limits", "text"),
    [(stores.TreeLimits(max_files=4), "more than 4 files"), (stores.TreeLimits(max_bytes=49), "more than 49 bytes")],
)
def test_a_tree_beyond_its_limits(place, tmp_path, limits, text):
    for number in range(5):
        place.put(f"m/{number}", b"0123456789")
    with pytest.raises(errors.StorageError, match=text):
        place.store.download_tree(place.url("m"), tmp_path / "copy", limits)
    place.store.download_tree(place.url("m"), tmp_path / "copy", stores.TreeLimits(max_files=5, max_bytes=50))


def test_a_tree_of_thousands_of_objects(gcs, tmp_path):
    for number in range(4000):
        gcs.put("bucket", f"m/{number}", b"x")
    with pytest.raises(errors.StorageError, match="more than 1000 files"):
        _open("gs://bucket/m", PATIENT).download_tree("gs://bucket/m", tmp_path / "copy", LIMITS)
    assert not any("alt=media" in entry.path for entry in gcs.plan.log)


def test_a_listing_of_many_pages(gcs, tmp_path):
    gcs.page_size = 7
    for number in range(50):
        gcs.put("bucket", f"m/{number:02}", str(number).encode())
    _open("gs://bucket/m").download_tree("gs://bucket/m", tmp_path / "copy", LIMITS)
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [f"{number:02}" for number in range(50)]


def test_a_whole_bucket_is_a_tree(gcs, tmp_path):
    gcs.put("bucket", "saved_model.pb", b"model")
    gcs.put("bucket", "variables/", b"")  # What consoles write to show a folder.
    gcs.put("bucket", "variables/variables.index", b"index")
    _open("gs://bucket").download_tree("gs://bucket", tmp_path / "copy", LIMITS)
    assert (tmp_path / "copy" / "variables" / "variables.index").read_bytes() == b"index"


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "a/../../outside",
        "/outside",
        "a//b",
        "./a",
        "a/.",
        "..",
        "..\\outside",
        "C:outside",
        "a\\b",
        "nul\0",
        "new\nline",
        "a/b/",
        "%2e%2e/outside",
    ],
)
def test_object_names_that_are_no_files_below_a_directory(gcs, tmp_path, name):
    gcs.put("bucket", "m/saved_model.pb", b"model")
    gcs.put("bucket", f"m/{name}", b"planted")
    with pytest.raises(errors.StorageError):
        _open("gs://bucket/m").download_tree("gs://bucket/m", tmp_path / "inner" / "copy", LIMITS)
    planted = [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"planted"]
    assert planted == []


def test_an_object_and_a_directory_of_the_same_name(gcs, tmp_path):
    gcs.put("bucket", "m/a", b"file")
    gcs.put("bucket", "m/a/b", b"file below")
    with pytest.raises(errors.StorageError, match="same name"):
        _open("gs://bucket/m").download_tree("gs://bucket/m", tmp_path / "copy", LIMITS)


@pytest.mark.parametrize("when", ["same object", "earlier object", "new object", "deleted object"])
def test_a_tree_that_changes_while_it_is_read_is_not_mixed(gcs, tmp_path, when):
    for name in ("a", "b", "c"):
        gcs.put("bucket", f"m/{name}", b"old")
    changed = []

    def change(bucket, name):
        if name == "m/b" and not changed:
            changed.append(name)
            if when == "deleted object":
                del gcs.objects["bucket", "m/c"]
            else:
                gcs.put("bucket", {"same object": "m/b", "earlier object": "m/a", "new object": "m/d"}[when], b"new")

    gcs.before_download = change
    with pytest.raises(errors.StorageError, match="changed while it was read"):
        _open("gs://bucket/m").download_tree("gs://bucket/m", tmp_path / "copy", LIMITS)
    assert changed


def test_what_is_compressed_in_the_store_is_unpacked(gcs, tmp_path, source):
    gcs.put("bucket", "m/metrics", gzip.compress(b'{"loss": 1}'), "gzip")
    store = _open("gs://bucket/m")
    assert store.read("gs://bucket/m/metrics", 11) == b'{"loss": 1}'
    store.download_tree("gs://bucket/m", tmp_path / "copy", LIMITS)
    assert (tmp_path / "copy" / "metrics").read_bytes() == b'{"loss": 1}'
    gcs.put("bucket", "plan.pb", gzip.compress(source.read_bytes()), "gzip")
    assert store.write("gs://bucket/plan.pb", source) is stores.Outcome.IDENTICAL


def test_no_room_to_unpack_in_is_an_error_of_the_store(gcs, tmp_path, source, monkeypatch):
    gcs.put("bucket", "m/plan.pb", gzip.compress(source.read_bytes()), "gzip")
    store = _open("gs://bucket/m")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(errors.StorageError, match="Cannot compare with gs://bucket/m/plan.pb: .*No such file or directory"):
        store.write("gs://bucket/m/plan.pb", source)
    with pytest.raises(errors.StorageError, match="Cannot read gs://bucket/m/plan.pb: .*No such file or directory"):
        store.read("gs://bucket/m/plan.pb", 1_000_000)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(errors.StorageError, match="Cannot copy gs://bucket/m: .*Not a directory"):
        store.download_tree("gs://bucket/m", tmp_path / "file" / "copy", LIMITS)


def test_what_unpacks_to_much_more_than_it_is(gcs, tmp_path, source):
    gcs.put("bucket", "m/bomb", gzip.compress(bytes(50 << 20)), "gzip")
    store = _open("gs://bucket/m")
    with pytest.raises(errors.StorageError, match="unpacks to more than 1000000 bytes"):
        store.read("gs://bucket/m/bomb", 1_000_000)
    with pytest.raises(errors.StorageError, match="unpacks to more than 1000000 bytes"):
        store.download_tree("gs://bucket/m", tmp_path / "copy", stores.TreeLimits(max_bytes=1_000_000))
    with pytest.raises(errors.StorageError, match="other content"):
        store.write("gs://bucket/m/bomb", source)


def test_what_says_that_it_is_compressed_and_is_not(gcs):
    gcs.put("bucket", "metrics", b"{}", "gzip")
    with pytest.raises(errors.StorageError, match="says that it is gzip, and is not"):
        _open("gs://bucket/x").read("gs://bucket/metrics", 100)


def test_of_two_writers_one_wins_and_the_other_hears_of_it(gcs, tmp_path):
    """Both have seen that nothing is there before either of them uploads."""
    sources = [tmp_path / "a", tmp_path / "b"]
    for path in sources:
        path.write_bytes(path.name.encode() * 1000)
    both_looked = threading.Barrier(2)
    reply = gcs.reply

    def slow_reply(method, path, headers, body):
        answer = reply(method, path, headers, body)
        if method == "GET" and answer.status == 404:
            both_looked.wait(10)
        return answer

    gcs.server.reply = slow_reply
    results = {}

    def write(path):
        try:
            results[path.name] = _open("gs://bucket/x").write("gs://bucket/plan.pb", path)
        except errors.StorageError as error:
            results[path.name] = error

    threads = [threading.Thread(target=write, args=(path,)) for path in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = next(name for name, result in results.items() if result is stores.Outcome.WRITTEN)
    loser = next(result for name, result in results.items() if name != winner)
    assert isinstance(loser, errors.StorageError)
    assert gcs.content("gs://bucket/plan.pb") == winner.encode() * 1000


@pytest.mark.parametrize("persistent", [False, True], ids=["once", "persistent"])
@pytest.mark.parametrize("fault", FAULTS)
def test_reading_under_faults_gives_the_right_bytes_or_an_error(gcs, tmp_path, fault, persistent, request):
    content = {name: os.urandom(20_000) for name in ("a", "b/c")}
    for name, data in content.items():
        gcs.put("bucket", f"m/{name}", data)
    for index in range(4) if request.config.getoption("--full") else [FAULTS.index(fault) % 4]:  # List, get, get, list.
        plan = gcs.plan = gcs.server.plan = FaultPlan(fault, index, persistent)
        target = tmp_path / f"copy{index}"
        try:
            _open("gs://bucket/m").download_tree("gs://bucket/m", target, LIMITS)
        except errors.StorageError as error:
            assert persistent or fault not in TRANSIENT, error
            assert "gs://bucket/m" in str(error)
        else:
            assert {name: (target / name).read_bytes() for name in content} == content
        # Nothing that a request carries can be damaged here.
        assert plan.num_fired
        plan.over.set()


def test_progress_of_an_upload_in_chunks(gcs, tmp_path):
    large = tmp_path / "large"
    large.write_bytes(os.urandom((20 << 20) + 1))
    seen = []
    _open("gs://bucket/x", PATIENT).write("gs://bucket/large", large, on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == (20 << 20) + 1
    assert len([entry for entry in gcs.plan.log if entry.method == "PUT"]) == 3
    assert gcs.content("gs://bucket/large") == large.read_bytes()


@pytest.mark.parametrize("kind", ["symlink", "link to a directory", "pipe", "device"])
def test_a_local_tree_holds_regular_files_only(tmp_path, kind):
    root = tmp_path / "m"
    root.mkdir()
    (root / "saved_model.pb").write_bytes(b"model")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_bytes(b"secret")
    if kind == "symlink":
        (root / "x").symlink_to(tmp_path / "secret" / "file")
    elif kind == "link to a directory":
        (root / "x").symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(root / "x")
    else:
        (root / "x").symlink_to("/dev/zero")
    with pytest.raises(errors.StorageError, match="is a symbolic link|not a regular file"):
        _open(str(root)).download_tree(str(root), tmp_path / "copy", LIMITS)
    assert not any(path.read_bytes() == b"secret" for path in tmp_path.glob("copy/**/*") if path.is_file())


def test_a_local_write_that_fails_leaves_the_old_file(tmp_path, source):
    target = tmp_path / "out" / "plan.pb"
    target.parent.mkdir()
    target.write_bytes(b"old")
    source.unlink()
    source.mkdir()
    with pytest.raises(errors.StorageError):
        _open(str(target)).write(str(target), source, overwrite=True)
    assert [path.name for path in target.parent.iterdir()] == ["plan.pb"]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/x",
        "gs:/bucket/x",
        "gs://",
        "gs://B/x",
        "gs://a/x",
        "gs://bucket/a\nb",
        "gs://bucket/" + "x" * 1025,
        "file://host/x",
        "file:x://",
        "",
        "http://bucket/x",
    ],
)
def test_what_is_no_url(url):
    if url in ("gs:/bucket/x",):  # A local path, if an odd one.
        assert _open(url).stat(url) is None
        return
    with pytest.raises(errors.StorageError, match="Not a usable URL") as failure:
        _open(url)
    assert "gs://bucket/object" in failure.value.next_step


def test_no_credentials(monkeypatch, tmp_path):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(errors.StorageError, match="no credentials for Cloud Storage") as failure:
        _open("gs://bucket/x")
    assert "gcloud auth application-default login" in failure.value.next_step


def test_local_stores_do_not_load_googles_client(tmp_path):
    import subprocess
    import sys

    script = f"import sys; from odp_taskbuilder import stores; from odp_taskbuilder.transport.deadline import *; stores.open_store({str(tmp_path)!r}, Network(), Deadline(1)); sys.exit('google.cloud.storage' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=600).returncode == 0
    assert pathlib.Path(tmp_path).exists()
