"""What untrusted work may do in a sandbox. Imported by the zygote, called by name."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

from odp_taskbuilder import errors
from odp_taskbuilder.sandbox import kernel


def echo(**kwargs):
    return kwargs


def crash(how):
    if how == "abort":
        os.abort()
    if how == "segmentation fault":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(3)
    if how == "raise":
        raise RuntimeError("a reason")
    if how == "exit in Python":
        sys.exit("a reason")


def loop():
    while True:
        pass


def allocate(size):
    return len(bytearray(size))


def allocate_in_processes(count, size):
    for _ in range(count):
        if os.fork() == 0:
            content = os.urandom(1 << 20) * (size >> 20)
            signal.pause()
            return len(content)
    signal.pause()
    return None


def start_processes(count):
    for _ in range(count):
        if os.fork() == 0:
            signal.pause()
    signal.pause()


def wait_forever():
    signal.pause()


def hold_lock(path):
    """Locks a file in the scratch directory in a process that has left its session and its parent, and returns."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _lock(path)
            os.write(writer, b"+")
            signal.pause()
        os._exit(0)
    os.read(reader, 1)
    return "locked"


def lock_and_wait(path, ready):
    _lock(path)
    pathlib.Path(ready).touch()
    signal.pause()


def _lock(path):
    fcntl.flock(os.open(path, os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)


def raise_error(name):
    raise {
        "ConfigError": errors.ConfigError([errors.Problem("wrong", path="a.b", line=3, column=2)], source="task.pbtxt"),
        "ModelError": errors.ModelError("bad model", next_step="Try another."),
        "PrivacyBudgetError": errors.PrivacyBudgetError("too much"),
        "UnsupportedOpsError": errors.UnsupportedOpsError("no op", ops={"Foo": "FooOp"}, next_step="Update."),
        "terminal": errors.ModelError("\x1b[2Jhidden\x07"),
    }[name]


def answer(content, fills=0):
    """Writes to every descriptor that is open and might be heard by somebody, then ends."""
    data = content.encode() + b"x" * fills
    for fd in range(3, 64):
        try:
            os.write(fd, data)
        except OSError:
            continue
    os._exit(0)


def environment():
    return dict(os.environ)


def read(path):
    return pathlib.Path(path).read_text()


def write(path):
    pathlib.Path(path).write_text("a")


def change(path, how):
    {
        "remove": os.unlink,
        "truncate": lambda name: os.truncate(name, 0),
        "rename": lambda name: os.rename(name, f"{name}.moved"),
        "link": lambda name: os.link(name, "linked"),
        "mode": lambda name: os.chmod(name, 0),
        "mode of an open file": lambda name: os.fchmod(os.open(name, os.O_RDONLY), 0),
        "mode of an open path": lambda name: os.chmod(f"/proc/self/fd/{os.open(name, os.O_PATH)}", 0),
        "owner": lambda name: os.chown(name, os.getuid(), os.getgid()),
        "times": lambda name: os.utime(name, (1, 1)),
        "attribute": lambda name: os.setxattr(name, "user.odp_task", b"1"),
        "folder": lambda name: os.mkdir(f"{name}.folder"),
    }[how](path)


def leave(kind):
    if kind == "file":
        pathlib.Path("output").write_bytes(b"result")
    elif kind == "link":
        os.symlink("/etc/passwd", "output")
    elif kind == "pipe":
        os.mkfifo("output")
    elif kind == "large":
        pathlib.Path("output").write_bytes(bytes(5000))


def write_large(size):
    pathlib.Path("large").write_bytes(bytes(size))


def say(text):
    print(text, flush=True)
    os.write(2, text.encode())


def connect(port):
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


def send_datagram(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"a", ("127.0.0.1", port))


def connect_abstract(name):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{name}")


def make_socket(family, kind):
    socket.socket(family, kind).close()


def connect_unix(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def find_key(description):
    return kernel.find_session_key(description)


def call(number):
    """A system call by its number."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(number), 0, 0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def hold_memory(how, size):
    """Holds memory that counts for no process's mapped pages, for ever."""
    block = bytes(1 << 20)
    if how == "shared mapping":
        mapping = mmap.mmap(-1, size)
        for offset in range(0, size, 1 << 20):
            mapping[offset : offset + (1 << 20)] = block
        mapping.madvise(mmap.MADV_DONTNEED)
    elif how == "memfd":
        fd = os.memfd_create("held")
        for _ in range(size >> 20):
            os.write(fd, block)
    else:
        fd = os.open(f"{os.getcwd()}/held", os.O_RDWR | os.O_CREAT)
        if how == "unlinked file":
            os.unlink("held")
        for _ in range(size >> 20):
            os.write(fd, block)
    signal.pause()


def signal_process(pid):
    os.kill(pid, 0)


def working_directory():
    return [os.getcwd(), os.environ["HOME"], os.environ["TMPDIR"]]


def run_program():
    return subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True, check=True).stdout


def finish_at(moment, value):
    """Ends when a clock that all processes share says so."""
    time.sleep(max(0.0, moment - time.monotonic()))
    return value


def load_functional_model(path):
    import tensorflow as tf
    import tensorflow_federated as tff

    model = tff.learning.models.load_functional_model(path)
    with tf.Graph().as_default() as graph:
        weights = tf.nest.map_structure(tf.constant, model.initial_weights)
        output = model.predict_on_batch(weights, tf.zeros([2, 784]), training=False)
        with tf.compat.v1.Session(graph=graph) as session:
            return session.run(output).tolist()


def execute_computation():
    import tensorflow as tf
    import tensorflow_federated as tff

    @tff.tensorflow.computation
    def six_times_seven():
        return tf.constant(6) * 7

    return int(six_times_seven())
