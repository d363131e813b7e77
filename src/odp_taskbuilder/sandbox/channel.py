"""Documents over a socket: eight bytes of length, then JSON.

JSON, and not pickle: reading a pickle runs what its writer wants.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, Optional

_LENGTH = struct.Struct("<Q")
_MAX_DIGITS = 30


def send(connection: socket.socket, document: Any) -> None:
    """Sends one document."""
    content = json.dumps(document).encode()
    connection.sendall(_LENGTH.pack(len(content)) + content)


def receive(connection: socket.socket) -> Optional[Any]:
    """Receives one document from a trusted sender; None when the connection was closed instead."""
    header = _receive_exactly(connection, _LENGTH.size)
    if header is None:
        return None
    content = _receive_exactly(connection, _LENGTH.unpack(header)[0])
    return None if content is None else json.loads(content)


def parse(content: bytes) -> Any:
    """Reads a document of an untrusted sender.

    Raises:
      ValueError: it is not JSON, is nested too deeply, or has numbers of absurd length.
    """
    try:
        return json.loads(content.decode(), parse_int=_parse_int)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _parse_int(digits: str) -> int:
    # The time to read a decimal number grows with the square of its length.
    if len(digits) > _MAX_DIGITS:
        raise ValueError("a number is too long")
    return int(digits)


def _receive_exactly(connection: socket.socket, size: int) -> Optional[bytes]:
    content = bytearray()
    while len(content) < size:
        chunk = connection.recv(min(size - len(content), 1 << 16))
        if not chunk:
            return None
        content += chunk
    return bytes(content)
