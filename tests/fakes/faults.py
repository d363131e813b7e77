"""What goes wrong, at which request: a plan that several fake servers share, and a log that proves what happened.

The vocabulary follows googleapis/storage-testbench: answers with a status, broken connections, truncated and damaged answers, stalls, and
requests that are carried out although their answer is lost.
"""

from __future__ import annotations

import dataclasses
import http.server
import json
import socket
import struct
import threading
from typing import Callable, Optional

STATUSES = (401, 403, 408, 412, 429, 500, 502, 503, 504)
BREAKS = ("reset", "truncated", "corrupted_answer", "corrupted_request", "stall", "done_answer_lost")
FAULTS = tuple(str(status) for status in STATUSES) + BREAKS
# Faults that a patient client survives when they strike once.
TRANSIENT = tuple(fault for fault in FAULTS if fault not in ("401", "403", "412"))


@dataclasses.dataclass
class Entry:
    """One request that arrived."""

    index: int
    method: str
    path: str
    headers: dict
    fault: Optional[str] = None
    status: Optional[int] = None


class FaultPlan:
    """Strikes at request `index`, counted over all servers that share the plan: once, or from there on.

    Attributes:
      then: another fault, which strikes at every request after that one.
      log: every request, in the order in which they arrived.
    """

    def __init__(self, fault: Optional[str] = None, index: int = -1, persistent: bool = False, then: Optional[str] = None):
        self.fault, self.index, self.persistent, self.then = fault, index, persistent or then is not None, then
        self.log: list[Entry] = []
        self._lock = threading.Lock()
        # Stalled requests wait for this, so that no test waits for them.
        self.over = threading.Event()

    def admit(self, method: str, path: str, headers: dict) -> Entry:
        with self._lock:
            entry = Entry(len(self.log), method, path, headers)
            if entry.index == self.index:
                entry.fault = self.fault
            elif self.persistent and entry.index > self.index >= 0:
                entry.fault = self.then or self.fault
            self.log.append(entry)
            return entry

    @property
    def num_fired(self) -> int:
        return sum(entry.fault is not None for entry in self.log)


@dataclasses.dataclass
class Reply:
    status: int
    body: bytes = b""
    headers: dict = dataclasses.field(default_factory=dict)
    content_type: str = "application/json"


def json_reply(status: int, document: object, headers: Optional[dict] = None) -> Reply:
    return Reply(status, json.dumps(document).encode(), headers or {})


class FaultyHandler(http.server.BaseHTTPRequestHandler):
    """Reads a request whole, lets the fault strike, and otherwise sends what `server.reply` says."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    # Head and body in one packet: sent apart, each answer would wait for the client's delayed acknowledgement.
    wbufsize = -1

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        entry = self.server.plan.admit(self.command, self.path, dict(self.headers))
        fault = entry.fault
        if fault == "reset":
            self._break_connection()
        elif fault == "stall":
            self.server.plan.over.wait(self.timeout)
            self._break_connection()
        elif fault in map(str, STATUSES):
            entry.status = int(fault)
            self._send(json_reply(int(fault), {"error": {"code": int(fault), "message": f"injected {fault}"}}))
        else:
            # Only uploads carry checksums; for everything else damage on the way is TLS's to prevent.
            if fault == "corrupted_request" and self.path.startswith("/upload/"):
                middle = len(body) // 2
                body = body[:middle] + bytes([body[middle] ^ 0x20]) + body[middle + 1 :]
            reply = self.server.reply(self.command, self.path, dict(self.headers), body)
            entry.status = reply.status
            if fault == "done_answer_lost":
                self._break_connection()
            elif fault == "truncated":
                self._send(reply, keep=len(reply.body) // 2)
            elif fault == "corrupted_answer":
                reply.body = bytes(byte ^ 0x15 for byte in reply.body)
                self._send(reply)
            else:
                self._send(reply)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def _send(self, reply: Reply, keep: Optional[int] = None) -> None:
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body if keep is None else reply.body[:keep])
        if keep is not None:
            self.close_connection = True

    def _break_connection(self) -> None:
        # Without lingering, closing sends a reset.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


class FaultyServer(http.server.ThreadingHTTPServer):
    """A loopback HTTP server; `with FaultyServer(reply) as server: ... server.url`."""

    daemon_threads = True

    def __init__(self, plan: FaultPlan, reply: Callable[[str, str, dict, bytes], Reply], port: int = 0):
        super().__init__(("127.0.0.1", port), FaultyHandler)
        self.plan = plan
        self.reply = reply
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # Clients of these servers hang up at any time.

    def __enter__(self) -> FaultyServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.plan.over.set()
        self.shutdown()
        self.server_close()
