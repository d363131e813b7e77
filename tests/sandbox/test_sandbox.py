"""Work in a sandbox does what it is asked for and nothing else, and its caller survives whatever it does."""

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from odp_taskbuilder import errors, sandbox
from odp_taskbuilder.sandbox import failures, kernel

_TESTS = pathlib.Path(__file__).resolve().parents[1]

_LIMITS = sandbox.SandboxLimits(
    wall_seconds=60, cpu_seconds=30, memory_bytes=512 * 2**20, processes=64, file_bytes=2**16, open_files=64, result_bytes=2**16
)


@pytest.fixture(scope="module")
def zygote():
    with sandbox.Zygote(preload=["misbehaviour"]) as zygote:
        yield zygote


@pytest.fixture(scope="module")
def in_force():
    return {protection.name: protection.in_force for protection in sandbox.available()}


@pytest.fixture
def call(zygote, tmp_path):
    """Calls a function of misbehaviour.py in a sandbox whose scratch directory is new."""

    def call(name, /, limits=_LIMITS, readable=(), **args):
        scratch = tmp_path / f"scratch-{time.monotonic_ns()}"
        scratch.mkdir()
        call.scratch = scratch
        return zygote.run(f"misbehaviour:{name}", args, scratch=scratch, readable=readable, limits=limits)

    return call


def _limits(**changes):
    return sandbox.SandboxLimits(**{**vars(_LIMITS), **changes})


def _require(in_force, name):
    if not in_force[name]:
        pytest.skip(f"not in force on this machine: {name}")


def test_a_result_comes_back(call):
    assert call("echo", number=1, text="é", items=[None, True, 0.5]) == {"number": 1, "text": "é", "items": [None, True, 0.5]}


def test_a_single_call_needs_no_zygote(tmp_path):
    assert sandbox.run("os:getcwd", {}, scratch=tmp_path) == str(tmp_path)


def test_concurrent_calls_get_their_own_results(zygote, tmp_path):
    results = {}

    def one(i):
        scratch = tmp_path / str(i)
        scratch.mkdir()
        args = {"moment": time.monotonic() + 0.5 - i * 0.05, "value": i}
        results[i] = zygote.run("misbehaviour:finish_at", args, scratch=scratch, limits=_LIMITS)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: i for i in range(8)}


@pytest.mark.parametrize("name", ["ConfigError", "ModelError", "PrivacyBudgetError", "UnsupportedOpsError"])
def test_errors_keep_their_class_and_content(call, name):
    with pytest.raises(errors.OdpTaskError) as caught:
        call("raise_error", name=name)
    error = caught.value
    assert type(error).__name__ == name
    if name == "ConfigError":
        assert error.problems == (errors.Problem("wrong", path="a.b", line=3, column=2),)
        assert error.source == "task.pbtxt"
    if name == "ModelError":
        assert (error.message, error.next_step) == ("bad model", "Try another.")
    if name == "UnsupportedOpsError":
        assert error.ops == {"Foo": "FooOp"}


def test_every_error_class_survives_the_way(call):
    """A class that errors.py gains must be listed, or it would arrive as another."""
    for error in errors.OdpTaskError.__subclasses__() + errors.ModelError.__subclasses__():
        if error.__module__ != errors.__name__:  # Of a room above the sandbox, which no sandbox raises.
            continue
        made = (
            error([])
            if error is errors.ConfigError
            else error("a", ops={})
            if error is errors.UnsupportedOpsError
            else error("a")
        )
        assert type(failures.from_document(failures.to_document(made))) is error


def test_error_texts_cannot_write_to_the_terminal(call):
    with pytest.raises(errors.ModelError) as caught:
        call("raise_error", name="terminal")
    assert str(caught.value) == "?[2Jhidden?"


@pytest.mark.parametrize(
    "how, message",
    [
        ("abort", "SIGABRT"),
        ("segmentation fault", "SIGSEGV"),
        ("exit", "code 3"),
        ("raise", "RuntimeError: a reason"),
        ("exit in Python", "SystemExit: a reason"),
    ],
)
def test_a_crash_is_an_error(call, how, message):
    with pytest.raises(errors.ModelError, match=message):
        call("crash", how=how)


@pytest.mark.parametrize(
    "name, args, limits, message",
    [
        ("wait_forever", {}, {"wall_seconds": 0.5}, "longer than 0.5 seconds"),
        ("loop", {}, {"cpu_seconds": 1}, "more than 1 seconds of processor time"),
        ("allocate", {"size": 2**30}, {}, "more memory than it may use"),
        ("allocate_in_processes", {"count": 8, "size": 100 * 2**20}, {}, "more than 536870912 bytes of memory"),
        # After the kernel has ended one of the two, the other two processes stay below the bound, and wait.
        ("allocate_in_processes", {"count": 2, "size": 300 * 2**20}, {}, "more than 536870912 bytes of memory"),
        (
            "start_processes",
            {"count": 100},
            {"memory_bytes": 8 * 2**30},
            "more than 64 processes|Resource temporarily unavailable",
        ),
        ("write_large", {"size": 2**17}, {}, "File too large"),
        ("echo", {"text": "x" * 2**17}, {}, "returned more than 65536 bytes"),
    ],
)
def test_a_limit_ends_the_work(call, name, args, limits, message):
    with pytest.raises(errors.ModelError, match=message):
        call(name, limits=_limits(**limits), **args)


@pytest.mark.parametrize(
    "content, fills",
    [
        ("", 0),
        ("not JSON", 0),
        ('{"value": 1', 0),
        ('{"neither": 1}', 0),
        ("[]", 0),
        ("null", 0),
        ('{"error": {"class": "SystemExit", "message": "", "next_step": null}}', 0),
        ('{"error": {"class": "ModelError", "message": 1, "next_step": null}}', 0),
        ('{"error": {"class": "ConfigError", "problems": 1, "source": null}}', 0),
        ('{"value": ' + "[" * 30_000, 0),
        ('{"value": 1' + "0" * 30_000 + "}", 0),
        ("", 200_000),
    ],
)
def test_a_malformed_answer_is_an_error(call, content, fills):
    with pytest.raises(errors.ModelError, match="something else than a result|returned more than"):
        call("answer", content=content, fills=fills)


def test_secrets_in_the_environment_stay_outside(tmp_path, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/secret-1")
    monkeypatch.setenv("ODP_API_KEY", "secret-2")
    monkeypatch.setenv("SOME_TOKEN", "secret-3")
    with sandbox.Zygote(preload=["misbehaviour"]) as zygote:
        seen = zygote.run("misbehaviour:environment", {}, scratch=tmp_path, limits=_LIMITS)
    assert "secret-" not in str(seen)


def test_tensorflow_runs_there_without_onednn_whatever_the_caller_prefers(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    with sandbox.Zygote(preload=["misbehaviour"]) as zygote:
        seen = zygote.run("misbehaviour:environment", {}, scratch=tmp_path, limits=_LIMITS)
    assert seen["TF_ENABLE_ONEDNN_OPTS"] == "0"


def test_what_is_imported_beforehand_finds_the_callers_directory_for_temporary_files(tmp_path, monkeypatch):
    # On a read-only root file system it may be the only one.
    (tmp_path / "temporary").mkdir()
    (tmp_path / "leaves_a_file.py").write_text("import pathlib, tempfile\npathlib.Path(tempfile.gettempdir(), 'left').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with sandbox.Zygote(preload=["leaves_a_file"]):
        assert (tmp_path / "temporary" / "left").exists()


def test_the_callers_environment_cannot_be_read_through_proc(call, in_force):
    _require(in_force, "looking at and signalling of other processes")
    for name in ("environ", "cmdline", "maps"):
        with pytest.raises(errors.ModelError, match="PermissionError|FileNotFoundError"):
            call("read", path=f"/proc/{os.getpid()}/{name}")


def test_files_outside_cannot_be_read(call, tmp_path, in_force):
    _require(in_force, "reading of files other than code and what is given")
    secret = tmp_path / "secret"
    secret.write_text("a")
    with pytest.raises(errors.ModelError, match="PermissionError"):
        call("read", path=str(secret))


def test_files_that_are_given_can_be_read_but_not_changed(call, tmp_path, in_force):
    _require(in_force, "writing outside of the scratch directory")
    given = tmp_path / "given"
    given.write_text("content")
    assert call("read", readable=[given], path=str(given)) == "content"
    with pytest.raises(errors.ModelError, match="PermissionError|Read-only file system"):
        call("write", readable=[given], path=str(given))
    assert given.read_text() == "content"


@pytest.mark.parametrize("how", ["remove", "truncate", "rename", "link", "folder"])
def test_files_outside_cannot_be_changed(call, tmp_path, in_force, how):
    _require(in_force, "writing outside of the scratch directory")
    file = tmp_path / "file"
    file.write_text("content")
    with pytest.raises(errors.ModelError, match="PermissionError|OSError"):
        call("change", path=str(file), how=how)
    assert file.read_text() == "content"
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("scratch")) == ["file"]


def test_links_in_the_scratch_directory_lead_nowhere(call, tmp_path, in_force):
    _require(in_force, "reading of files other than code and what is given")
    (tmp_path / "secret").write_text("a")
    with pytest.raises(errors.ModelError, match="PermissionError"):
        call("read", path="../secret")


def test_the_scratch_directory_is_home(call):
    assert call("working_directory") == [str(call.scratch)] * 3


def test_a_scratch_directory_serves_once(zygote, tmp_path):
    zygote.run("misbehaviour:echo", {}, scratch=tmp_path, limits=_LIMITS)
    with pytest.raises(errors.StorageError, match="was used before"):
        zygote.run("misbehaviour:echo", {}, scratch=tmp_path, limits=_LIMITS)
    with pytest.raises(errors.StorageError, match="cannot be used"):
        zygote.run("misbehaviour:echo", {}, scratch=tmp_path / "absent", limits=_LIMITS)


def test_what_the_work_prints_is_kept_apart(call, capfd):
    call("say", text="hello")
    assert capfd.readouterr() == ("", "")
    assert (call.scratch / "log.txt").read_text() == "hello\nhello"


def test_an_output_file_is_read(call):
    call("leave", kind="file")
    with sandbox.open_output(call.scratch, "output", 100) as file:
        assert file.read() == b"result"


@pytest.mark.parametrize(
    "kind, message", [("link", "no file"), ("pipe", "something else"), ("large", "something else"), ("none", "no file")]
)
def test_an_output_that_is_no_file_is_an_error(call, kind, message):
    call("leave", kind=kind)
    with pytest.raises(errors.ModelError, match=message):
        sandbox.open_output(call.scratch, "output", 100)


@pytest.mark.parametrize("name", ["connect", "send_datagram"])
def test_the_network_cannot_be_reached(call, in_force, name):
    _require(in_force, "use of the network")
    kind = socket.SOCK_STREAM if name == "connect" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as listener:
        listener.bind(("127.0.0.1", 0))
        if name == "connect":
            listener.listen()
        with contextlib.suppress(errors.ModelError):
            call(name, port=listener.getsockname()[1])
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept() if name == "connect" else listener.recv(1)


def test_abstract_sockets_outside_cannot_be_reached(call, in_force):
    _require(in_force, "use of the network")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0odp-task-test-{os.getpid()}")
        listener.listen()
        with pytest.raises(errors.ModelError, match="ConnectionRefusedError|PermissionError|Function not implemented"):
            call("connect_abstract", name=f"odp-task-test-{os.getpid()}")


def test_processes_outside_cannot_be_signalled(call, in_force):
    _require(in_force, "looking at and signalling of other processes")
    with pytest.raises(errors.ModelError, match="ProcessLookupError|PermissionError"):
        call("signal_process", pid=os.getpid())


def test_installed_programs_run_inside(call):
    assert call("run_program") == "42\n"


def test_nothing_outlives_the_call(call, in_force):
    _require(in_force, "looking at and signalling of other processes")
    assert call("hold_lock", path="lock") == "locked"
    with open(call.scratch / "lock", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_zygote_outlives_the_thread_that_made_it(tmp_path):
    """The kernel takes a parent's death to be that of the thread which started the child."""
    made = []
    thread = threading.Thread(target=lambda: made.append(sandbox.Zygote(preload=["misbehaviour"])))
    thread.start()
    thread.join()
    with made[0] as zygote:
        assert zygote.run("misbehaviour:echo", {"a": 1}, scratch=tmp_path, limits=_LIMITS) == {"a": 1}


def test_nothing_outlives_the_zygote(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    ready = scratch / "ready"
    failed = []
    with sandbox.Zygote(preload=["misbehaviour"]) as zygote:

        def run():
            try:
                zygote.run("misbehaviour:lock_and_wait", {"path": "lock", "ready": "ready"}, scratch=scratch, limits=_LIMITS)
            except errors.OdpTaskError as error:
                failed.append(str(error))

        thread = threading.Thread(target=run)
        thread.start()
        _wait_for(ready)
    thread.join()
    _lock_within_a_minute(scratch / "lock")
    assert failed == ["The supervisor of a sandbox ended without a report."]
    with pytest.raises(errors.OdpTaskError, match="has ended"):
        zygote.run("misbehaviour:echo", {}, scratch=tmp_path, limits=_LIMITS)


def test_nothing_outlives_a_caller_that_is_killed(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    program = (
        "import sys; from odp_taskbuilder import sandbox\n"
        "zygote = sandbox.Zygote(preload=['misbehaviour'])\n"
        "zygote.run('misbehaviour:lock_and_wait', {'path': 'lock', 'ready': 'ready'}, scratch=sys.argv[1])"
    )
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parent)}
    caller = subprocess.Popen([sys.executable, "-c", program, str(scratch)], env=environment)
    _wait_for(scratch / "ready")
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    _lock_within_a_minute(scratch / "lock")


def test_an_import_that_fails_is_said(tmp_path):
    with pytest.raises(errors.OdpTaskError, match="No module named 'no_such_module'"):
        sandbox.Zygote(preload=["no_such_module"])


@pytest.mark.parametrize(
    "how", ["mode", "mode of an open file", "mode of an open path", "owner", "times", "attribute"]
)
@pytest.mark.parametrize("place", ["given", "not given"])
def test_metadata_of_files_outside_cannot_be_changed(call, tmp_path, in_force, how, place):
    _require(in_force, "changing of mode, owner, times and attributes of files outside")
    file = tmp_path / "file"
    file.write_text("content")
    before = file.stat()
    with pytest.raises(errors.ModelError, match="PermissionError|Read-only file system"):
        call("change", path=str(file), how=how, readable=[file] if place == "given" else [])
    after = file.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
    assert os.listxattr(file) == []


# VSOCK, NETLINK, PACKET, raw IP, ALG, Bluetooth, UNIX.
@pytest.mark.parametrize("family, kind", [(40, 1), (16, 3), (17, 3), (2, 3), (38, 5), (31, 3), (1, 1), (1, 2)])
def test_other_sockets_cannot_be_made(call, in_force, family, kind):
    _require(in_force, "sockets of other families (UNIX, VSOCK, NETLINK, PACKET)")
    with pytest.raises(errors.ModelError, match="OSError|PermissionError"):
        call("make_socket", family=family, kind=kind)


def test_sockets_in_the_file_system_cannot_be_reached(call, tmp_path, in_force):
    _require(in_force, "sockets of other families (UNIX, VSOCK, NETLINK, PACKET)")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(errors.ModelError, match="Function not implemented"):
            call("connect_unix", path=str(tmp_path / "s"), readable=[tmp_path / "s"])


def test_keys_of_the_session_stay_outside(tmp_path):
    description = f"odp-task-test-{os.getpid()}"
    try:
        key = kernel.add_session_key(description, b"secret")
    except OSError as error:
        pytest.skip(f"no keyrings here: {error}")
    try:
        assert kernel.find_session_key(description) == key
        # With the kernel's own means, and where nothing but a keyring of its own keeps the child away.
        for name, preload in (("a", ["misbehaviour"]), ("b", ["misbehaviour", "refusing_kernel"])):
            scratch = tmp_path / name
            scratch.mkdir()
            with sandbox.Zygote(preload=preload) as zygote, pytest.raises(errors.ModelError, match="OSError|PermissionError"):
                zygote.run("misbehaviour:find_key", {"description": description}, scratch=scratch, limits=_LIMITS)
    finally:
        kernel.remove_session_key(key)


@pytest.mark.parametrize("how", ["memfd", "shared mapping"])
def test_memory_that_nobody_has_mapped_cannot_be_had(call, in_force, how):
    _require(in_force, "memory in memfds and memory file systems beyond the limit")
    with pytest.raises(errors.ModelError, match="PermissionError|Function not implemented|bytes of memory"):
        call("hold_memory", how=how, size=600 << 20, limits=_limits(file_bytes=2**30, wall_seconds=50))


@pytest.mark.parametrize("how", ["file", "unlinked file"])
def test_files_in_memory_count_as_memory(zygote, how):
    memory = pathlib.Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 2**30:
        pytest.skip("no file system in memory here")
    with tempfile.TemporaryDirectory(dir=memory) as scratch, pytest.raises(errors.ModelError, match="bytes of memory"):
        limits = _limits(file_bytes=2**30, wall_seconds=50)
        zygote.run("misbehaviour:hold_memory", {"how": how, "size": 600 << 20}, scratch=scratch, limits=limits)


# By their numbers: ptrace, mount, keyctl, unshare, setns, process_vm_readv, bpf, userfaultfd, io_uring_setup, clone3, memfd_secret; on x86-64
# also kill and getuid in the x32 convention, where bit 30 is set.
_FORBIDDEN_CALLS = {
    "x86_64": (101, 165, 250, 272, 308, 310, 321, 323, 425, 435, 447, 0x40000000 + 62, 0x40000000 + 102),
    "aarch64": (117, 40, 219, 97, 268, 270, 280, 282, 425, 435, 447),
}


@pytest.mark.parametrize("number", _FORBIDDEN_CALLS.get(platform.machine(), ()))
def test_calls_that_no_model_needs_fail(call, in_force, number):
    _require(in_force, "sockets of other families (UNIX, VSOCK, NETLINK, PACKET)")
    with pytest.raises(errors.ModelError, match="Operation not permitted|Function not implemented"):
        call("call", number=number)


_ALL = (
    "sharing of network, processes and mounts with others",
    "use of the network",
    "sending of datagrams (UDP)",
    "sockets of other families (UNIX, VSOCK, NETLINK, PACKET)",
    "reading of files other than code and what is given",
    "writing outside of the scratch directory",
    "changing of mode, owner, times and attributes of files outside",
    "use of the session keyring of whoever started it",
    "looking at and signalling of other processes",
    "use of privileges",
    "memory beyond the limit",
    "memory in memfds and memory file systems beyond the limit",
    "processor time beyond the limit",
    "processes and threads beyond the limit",
    "files beyond the limit",
)


def test_each_protection_says_whether_it_is_in_force():
    protections = sandbox.available()
    assert tuple(protection.name for protection in protections) == _ALL
    by_name = {protection.name: protection for protection in protections}
    # These need nothing from the kernel that any Linux lacks.
    for name in ("memory beyond the limit", "processor time beyond the limit", "processes and threads beyond the limit"):
        assert by_name[name].in_force
    for protection in protections:
        assert str(protection).startswith("prevented: " if protection.in_force else "NOT PREVENTED: ")


@pytest.mark.parametrize(
    "without, missing",
    [
        ("namespaces", {0}),
        ("namespaces,library", {0, 2, 3, 6}),
        ("namespaces,landlock", {0, 4, 5, 8}),
        ("namespaces,landlock,library", {0, 1, 2, 3, 4, 5, 6, 8}),
        ("library", {3}),
    ],
)
def test_a_weaker_kernel_is_said_by_name(in_force, without, missing):
    """Found out by trying, in a process whose system calls a filter refuses as such a kernel does."""
    for name in _ALL:
        _require(in_force, name)
    program = "import json; from odp_taskbuilder import sandbox; print(json.dumps([list(p) for p in sandbox.available()]))"
    said = subprocess.run(
        [sys.executable, str(_TESTS / "weaker_kernel.py"), without, sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    protections = json.loads(said)
    assert {position for position, (_, is_in_force, _) in enumerate(protections) if not is_in_force} == missing
    means = " ".join(means for _, _, means in protections)
    assert ("namespace, which this kernel refuses" in means) == ("namespaces" in without)
    assert ("Landlock, which this kernel lacks" in means) == ("landlock" in without)
    assert ("libseccomp or pyseccomp is missing" in means) == ("library" in without)


def test_a_kernel_that_refuses_leaves_the_other_protections(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("content")
    scratches = [tmp_path / name for name in "abcde"]
    for scratch in scratches:
        scratch.mkdir()
    with sandbox.Zygote(preload=["misbehaviour", "refusing_kernel"]) as zygote:
        assert zygote.run("misbehaviour:read", {"path": str(secret)}, scratch=scratches[0], limits=_LIMITS) == "content"
        with pytest.raises(errors.ModelError, match="longer than 0.5 seconds"):
            zygote.run("misbehaviour:wait_forever", {}, scratch=scratches[1], limits=_limits(wall_seconds=0.5))
        with pytest.raises(errors.ModelError, match="more memory than it may use"):
            zygote.run("misbehaviour:allocate", {"size": 2**30}, scratch=scratches[2], limits=_LIMITS)
        with pytest.raises(errors.ModelError, match="bytes of memory"):
            args = {"how": "memfd", "size": 600 << 20}
            zygote.run("misbehaviour:hold_memory", args, scratch=scratches[4], limits=_limits(file_bytes=2**30))
        assert zygote.run("misbehaviour:hold_lock", {"path": "lock"}, scratch=scratches[3], limits=_LIMITS) == "locked"
    _lock_within_a_minute(scratches[3] / "lock")


def _wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _lock_within_a_minute(path):
    """Waits until nobody holds the lock any more."""

    def give_up(signum, frame):
        raise AssertionError("a process of the sandbox still holds its lock")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
