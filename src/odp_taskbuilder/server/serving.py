"""Running the task builder service until a signal ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

from odp_taskbuilder import errors, sandbox
from odp_taskbuilder.base import redaction
from odp_taskbuilder.base.keyword_only import keyword_only
from odp_taskbuilder.push import auth
from odp_taskbuilder.server import admission, app, build_service, http_server, observability, work_directory

_TURN_SECONDS = 0.5
# For the answers of builds that were ended.
_LAST_ANSWERS_SECONDS = 3.0


@keyword_only
@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """How to serve.

    Attributes:
      host, port: where to listen; port 0 takes a free one, which the log names.
      workers, queue: builds at work, and builds that may wait for them.
      max_request_bytes, request_seconds: bounds on requests.
      grace_seconds: how long running builds, their uploads included, may go on after a signal.
      token_file: tokens, one in a line, of which every request must carry one; required where other machines can connect.
      work_dir: see work_directory.opened.
      accept_weaker_sandbox: serve even if the sandbox of builds prevents less on this machine than it should.
    """

    host: str = "127.0.0.1"
    port: int = 5000
    workers: int = 1
    queue: int = 8
    max_request_bytes: int = 16 << 20
    request_seconds: int = 60
    grace_seconds: float = 5.0
    token_file: Optional[pathlib.Path] = None
    work_dir: Optional[pathlib.Path] = None
    accept_weaker_sandbox: bool = False


def serve(options: ServeOptions, service_options: build_service.ServiceOptions) -> None:
    """Serves until an exception, such as the one that a signal raises, ends it in the main thread; never returns by itself.

    Then requests are turned away, running builds get a few seconds, and those that are not done by then are ended and
    answered as failed. Further signals change nothing.

    Raises:
      errors.UsageError: others could connect, and there is no token; or the sandbox is weaker than it should be.
      errors.StorageError: the address is taken, a file cannot be read, or the work directory cannot be used.
    """
    tokens = _read_tokens(options.token_file) if options.token_file is not None else ()
    if not tokens and not auth.is_loopback(f"http://{_bracketed(options.host)}"):
        raise errors.UsageError(
            f"{options.host} can be reached from other machines, and nobody would have to show a token.",
            next_step="Give one with --token_file, or listen on 127.0.0.1.",
        )
    observability.log_to_stderr()
    places = admission.Admission(options.workers, options.queue)
    metrics = observability.Metrics(places)
    with _deafness() as be_deaf, work_directory.opened(options.work_dir, service_options.login) as work_dir:
        service = build_service.BuildService(service_options, places, work_dir)
        server = _http_server(options, app.create_app(service, metrics, tokens), tokens)
        # Behind the cheap checks; it takes seconds.
        missing = _missing_protections(accept_weaker=options.accept_weaker_sandbox)
        service.start()
        with server.running():
            observability.log("listening", host=options.host, port=server.port, workers=options.workers, queue=options.queue)
            observability.log("sandbox", level=logging.WARNING if missing else logging.INFO, missing=missing)
            try:
                # In turns: a signal that arrives just before a wait begins is noticed only when the wait is over.
                while True:
                    time.sleep(_TURN_SECONDS)
            finally:
                be_deaf()
                places.close()
                observability.log("stopping", running=places.num_running)
                places.wait_until_idle(options.grace_seconds)
                service.close()
                places.wait_until_idle(_LAST_ANSWERS_SECONDS)


def _missing_protections(*, accept_weaker: bool) -> list[str]:
    """What the sandbox of builds should prevent and does not on this machine, found out by trying, which takes about two seconds.

    Raises:
      errors.UsageError: there is something, and that was not accepted.
    """
    try:
        missing = [str(protection) for protection in sandbox.available() if not protection.in_force]
    except errors.ModelError as error:
        missing = [str(error)]
    if missing and not accept_weaker:
        raise errors.UsageError(
            "The sandbox in which models of others would be built is weaker on this machine than it should be:\n"
            + "\n".join(f"  {protection}" for protection in missing),
            next_step="Mend that (docs/models_of_unknown_origin.md says how), or accept it with --accept_weaker_sandbox.",
        )
    return missing


def _http_server(options: ServeOptions, application: Callable[..., Any], tokens: Sequence[str]) -> http_server.HttpServer:
    try:
        return http_server.HttpServer(
            application,
            options.host,
            options.port,
            max_builds=options.workers + options.queue,
            tokens=tokens,
            max_request_bytes=options.max_request_bytes,
            request_seconds=options.request_seconds,
        )
    except OSError as error:
        raise errors.StorageError(
            f"Cannot listen on {options.host} port {options.port}: {error.strerror or error}.",
            next_step="Choose another --port.",
        ) from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _read_tokens(path: pathlib.Path) -> tuple[str, ...]:
    try:
        tokens = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise errors.StorageError(f"Cannot read the tokens in {path}: {error}.") from error
    if not tokens:
        raise errors.UsageError(f"There is no token in {path}.")
    for token in tokens:
        redaction.protect(token)
    return tokens


@contextlib.contextmanager
def _deafness() -> Iterator[Callable[[], None]]:
    """Yields a function after which the signals that end a command do nothing, until the block has ended."""
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def be_deaf() -> None:
        for signum in handlers:
            # Not SIG_IGN, which processes that are started from here on would inherit.
            signal.signal(signum, lambda *_: None)

    try:
        yield be_deaf
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
