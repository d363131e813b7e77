"""Persistent child processes, forked from one that has TensorFlow loaded already.

    with ChildProcesses("worker", make_handler, count=4, scratch=scratch) as children:
        results = children.run(jobs)

The standard library's forkserver imports TensorFlow once; every child is then there in a fraction of a second and shares its
memory. The parent runs no TensorFlow op, and needs not even import it. A child ends when it is told to, when it is killed,
and when its parent is gone, however that came about; nothing is left to the interpreter's finalization, which TensorFlow
Lite does not always survive.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import heapq
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import pathlib
import shutil
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NoReturn, Optional

from odp_taskbuilder import errors, sandbox
from odp_taskbuilder.base import child_python
from odp_taskbuilder.simulation import answers

# Imported before the first child is forked.
_PRELOADED = ["odp_taskbuilder.simulation.worker"]
# On macOS a process that uses its system's frameworks must not fork: children start anew there, which takes TensorFlow's ten seconds each.
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
# Workers that die on the same job, before the job is given up.
MAX_DEATHS = 3
_MAX_LAST_WORDS = 1 << 16
# They end the command, which ends its children; a terminal sends them to all of its processes.
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[Any], Any]
# What makes a ChildProcesses, or stands in for it.
StartProcesses = Callable[..., Any]


class ChildProcesses:
    """A fixed number of children that each make one handler and call it on the jobs that they are sent.

    A child that dies is replaced, and its job is done again. Making the handler is part of a child's first job.

    Attributes:
      weaknesses: what the kernel refused to confined children, once one has answered.
    """

    def __init__(
        self,
        name: str,
        make_handler: Callable[[int], Handler],
        count: int,
        scratch: pathlib.Path,
        *,
        preload: Sequence[str] = (),
        give_up: Optional[Callable[[Any, str], Any]] = None,
        readable: Optional[Sequence[str]] = None,
    ):
        """Starts the children.

        Args:
          name: of their logs.
          make_handler: called in each child with its position; must be importable there, like every job and result.
          scratch: directory for what the children write to stdout and stderr. They remove it when the parent was killed.
          readable: files and directories. If given, children are confined (sandbox/): besides installed code they read these only, and
            write into the scratch directory only; their answers are documents, of which nothing is run here.
          preload: more modules to import before the first child is forked; no use once there are children.
          give_up: makes the result of a job that killed its children, from the job and the reason; by default `run` raises.
        """
        self._give_up = give_up
        self._context = multiprocessing.get_context(START_METHOD)
        if START_METHOD == "forkserver":
            self._context.set_forkserver_preload([*_PRELOADED, *preload])
        self._make_handler = make_handler
        self._name = name
        self._scratch = scratch
        self._readable = None if readable is None else tuple(readable)
        self.weaknesses: list[str] = []
        self._children: list[_Child] = []
        if START_METHOD == "forkserver":
            with _signals_held_back(), child_python.elsewhere():
                multiprocessing.forkserver.ensure_running()
        try:
            for position in range(count):
                self._children.append(self._start(position))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ChildProcesses:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def process_ids(self) -> list[int]:
        return [child.process.pid for child in self._children]

    def run(
        self,
        jobs: Sequence[Any],
        *,
        children: Optional[Sequence[int]] = None,
        on_result: Callable[[Any], None] = lambda result: None,
    ) -> list[Any]:
        """Does jobs, as many at a time as there are children.

        Args:
          children: position of the child that does each job; by default whichever is free.
          on_result: called with each result as it comes.

        Returns:
          Their results in the order of the jobs.

        Raises:
          what a handler raises; that of the first job whose handler does. The children are not usable then.
          OdpTaskError: a job killed three children.
        """
        # Heaps: the first jobs come first, also when they are done again.
        anyone = list(range(len(jobs))) if children is None else []
        waiting = [anyone] * len(self._children) if children is None else [[] for _ in self._children]
        for index, position in enumerate(children or ()):
            waiting[position].append(index)
        deaths: collections.Counter[int] = collections.Counter()
        results: dict[int, Any] = {}
        busy: dict[int, int] = {}  # Position of the child to index of its job.
        failures: dict[int, Any] = {}
        # Nobody needs the jobs behind one that failed; one before it may fail, too.
        needed = range(len(jobs))
        while not results.keys() >= set(needed):
            for position, child in enumerate(self._children):
                if waiting[position] and waiting[position][0] in needed and position not in busy:
                    busy[position] = heapq.heappop(waiting[position])
                    child.send(jobs[busy[position]])
            connections: dict[Any, int] = {self._children[position].connection: position for position in busy}
            for ready in multiprocessing.connection.wait(list(connections)):
                position = connections[ready]
                index = busy[position]
                try:
                    outcome, value = self._children[position].receive()
                except (EOFError, OSError, answers.NoAnswer):
                    del busy[position]
                    deaths[index] += 1
                    if self._give_up is None or deaths[index] < MAX_DEATHS:
                        self._replace(position, jobs[index], deaths[index])
                        heapq.heappush(waiting[position], index)
                        continue
                    reason = self._death(position, jobs[index], deaths[index])
                    self._replace(position, jobs[index], deaths=0)
                    outcome, value = "returned", self._give_up(jobs[index], reason)
                if outcome == answers.CONFINED:
                    # Said before the first job is begun.
                    self.weaknesses = list(value)
                    continue
                busy.pop(position, None)
                if outcome == "raised":
                    failures[index] = value
                    needed = range(min(failures))
                else:
                    results[index] = value
                    on_result(value)
        if failures:
            raise failures[min(failures)]
        return [results[index] for index in range(len(jobs))]

    def close(self) -> None:
        """Ends the children at once."""
        with _signals_held_back():
            for child in self._children:
                child.end()

    def _start(self, position: int) -> _Child:
        connection, childs_end = self._context.Pipe()
        log = self._scratch / f"{self._name}_{position}.log"
        args = (childs_end, self._make_handler, position, str(log), self._readable)
        context: Any = self._context  # typeshed's base class has no Process
        process = context.Process(target=_serve, args=args, daemon=True)
        with child_python.elsewhere():
            process.start()
        # The child's end must be open in the child only: its closing is how its death shows.
        childs_end.close()
        return _Child(process, connection, log, is_confined=self._readable is not None)

    def _replace(self, position: int, job: Any, deaths: int) -> None:
        self._children[position].end()
        if deaths >= MAX_DEATHS:
            raise errors.OdpTaskError(self._death(position, job, deaths))
        self._children[position] = self._start(position)

    def _death(self, position: int, job: Any, deaths: int) -> str:
        dead = self._children[position]
        dead.end()
        reason = _exit_reason(dead.process.exitcode)
        return f"A worker process died {deaths} times ({reason}) on {job!r}. Its last words: {dead.last_words()}"


class ThisProcess:
    """One child that is this process, for callers that are a worker process themselves, of what they have built: what a job raises is
    raised, and nothing is confined.

    Attributes:
      weaknesses: none that would be news.
    """

    def __init__(
        self,
        name: str,
        make_handler: Callable[[int], Handler],
        count: int,
        scratch: pathlib.Path,
        *,
        preload: Sequence[str] = (),
        readable: Optional[Sequence[str]] = None,
    ):
        """As ChildProcesses, of which there is one whatever `count` says."""
        self._make_handler = make_handler
        self._handler: Optional[Handler] = None
        self.weaknesses: list[str] = []

    def run(self, jobs: Sequence[Any], *, children: Optional[Sequence[int]] = None) -> list[Any]:
        """Does jobs in their order."""
        self._handler = self._handler or self._make_handler(0)
        return [self._handler(job) for job in jobs]

    def close(self) -> None:
        """Forgets the handler."""
        self._handler = None


class _Child:
    def __init__(self, process: Any, connection: multiprocessing.connection.Connection, log: pathlib.Path, *, is_confined: bool):
        self.process = process
        self.connection = connection
        self._log = log
        self._is_confined = is_confined

    def send(self, job: Any) -> None:
        # A child that is dead by now shows so when its answer is awaited.
        with contextlib.suppress(OSError):
            self.connection.send(job)

    def receive(self) -> tuple[str, Any]:
        """What kind of answer it is, and the answer.

        Raises:
          EOFError, OSError: the child is dead.
          answers.NoAnswer: a confined child sent something else.
        """
        return answers.read(self.connection) if self._is_confined else self.connection.recv()

    def end(self) -> None:
        if self.connection.closed:
            return
        # With what the child has started itself, as TFF's runtime and Ray do. It may not have its group yet.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection.close()

    def last_words(self) -> str:
        with contextlib.suppress(OSError):
            # A confined child may have put something else in its place.
            descriptor = os.open(self._log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb") as log:
                status = os.fstat(descriptor)
                if stat.S_ISREG(status.st_mode):
                    log.seek(max(0, status.st_size - _MAX_LAST_WORDS))
                    lines = log.read(_MAX_LAST_WORDS).decode(errors="replace").strip().splitlines()
                    if lines:
                        return lines[-1]
        return "none"


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Signals that end the command have their effect after the block; processes started in it never get them."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def stop_forkserver() -> None:
    """Ends the process that children are forked from; the next child starts a new one.

    The library has no public way: it leaves that process to notice that its parent is gone, which it does after the parent's
    end and, with TensorFlow to take down, seconds later.
    """
    forkserver: Any = multiprocessing.forkserver._forkserver
    with _signals_held_back():
        if forkserver._forkserver_pid is not None:
            os.kill(forkserver._forkserver_pid, signal.SIGKILL)
            forkserver._stop()


def _exit_reason(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _serve(
    connection: multiprocessing.connection.Connection,
    make_handler: Callable[[int], Handler],
    position: int,
    log: str,
    readable: Optional[Sequence[str]],
) -> None:
    """The life of a child."""
    # A process group of its own: what the child starts can be ended with it.
    os.setsid()
    forkserver_pid = os.getppid()
    tempfile.tempdir = scratch = os.path.dirname(log)
    try:
        _redirect_output(log)
    except FileNotFoundError:
        # The parent ended while it started this child, and has cleaned up.
        _end(scratch, forkserver_pid)
    # Several processes share the cores: one thread each.
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    send: Callable[[tuple[str, Any]], None] = connection.send
    if readable is not None:
        _close_all_but([connection.fileno(), multiprocessing.parent_process().sentinel])
        # Before there is a second thread.
        missing = sandbox.close_off_this_process([scratch], readable)
        send = functools.partial(answers.write, connection)
        with contextlib.suppress(OSError):
            send((answers.CONFINED, missing))
    threading.Thread(target=_end_with_parent, args=(scratch, forkserver_pid), daemon=True).start()
    handler = None
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            _end(scratch, forkserver_pid)
        try:
            handler = handler or make_handler(position)
            answer = ("returned", handler(job))
        except errors.OdpTaskError as error:
            answer = ("raised", error)
        except OSError as error:
            answer = ("raised", errors.StorageError(f"A worker process cannot read or write its files: {error}."))
        except Exception as error:  # noqa: BLE001 - raised again in the parent; a cause may not survive the way there.
            answer = ("raised", RuntimeError(f"{type(error).__name__}: {error}"))
        try:
            send(answer)
        except OSError:
            _end(scratch, forkserver_pid)


def _close_all_but(descriptors: Sequence[int]) -> None:
    """Closes what a child has inherited besides its standard streams: the pipes of the forkserver and of the resource tracker."""
    multiprocessing.resource_tracker._resource_tracker._fd = None  # type: ignore[attr-defined]  # or it writes into what gets the number
    begin = 3
    for descriptor in sorted(descriptors):
        os.closerange(begin, descriptor)
        begin = descriptor + 1
    os.closerange(begin, os.sysconf("SC_OPEN_MAX"))


def _end_with_parent(scratch: str, forkserver_pid: int) -> None:
    multiprocessing.parent_process().join()
    _end(scratch, forkserver_pid)


def _end(scratch: str, forkserver: int) -> NoReturn:
    """Ends this child with everything that it started, and cleans up after a parent that was killed."""
    parent = multiprocessing.parent_process()
    # The connection to a dying parent may break before the sign of its death is there.
    parent.join(timeout=1)
    if not parent.is_alive():
        _end_what_was_started()  # Before it can write into the directory again.
        shutil.rmtree(scratch, ignore_errors=True)
        if os.getppid() == forkserver:
            # It would end by itself, after taking TensorFlow down for some seconds.
            # A confined child may not; then that process notices by itself.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(forkserver, signal.SIGKILL)
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("SIGKILL ends this process")


def _end_what_was_started() -> None:
    """Ends the other processes of this child's group."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            _, _, group, *_ = (process / "stat").read_text().rpartition(")")[2].split()
            if int(group) == os.getpgrp() and process.name != str(os.getpid()):
                os.kill(int(process.name), signal.SIGKILL)


def _redirect_output(log: str) -> None:
    """TensorFlow Lite greets on stderr; what matters of it is shown when the child dies."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
