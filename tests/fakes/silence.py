"""Servers that take a connection and never come to an end: one says nothing, the other a byte now and then."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def endless_server(trickle: bytes = b"") -> Iterator[str]:
    """Yields the URL of a server that sends `trickle` byte by byte, twenty a second, then its last byte for ever; or nothing at all."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        position = 0
        with contextlib.suppress(OSError), connection:
            while not over.wait(0.05):
                if trickle:
                    connection.sendall(trickle[min(position, len(trickle) - 1) :][:1])
                    position += 1

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        # Closing alone would leave accept() waiting.
        listener.shutdown(socket.SHUT_RDWR)
