"""Answers the polling of phones, on loopback: for tests."""

from __future__ import annotations

import http.server
import json
import pathlib
import urllib.parse
from collections.abc import Callable

from odp_taskbuilder import errors
from odp_taskbuilder.android.checks import check_files


class DownloadServer(http.server.ThreadingHTTPServer):
    """Serves one download to whoever asks, whatever the path. The file is read and checked anew for every request."""

    daemon_threads = True

    def __init__(self, path: pathlib.Path, port: int, log: Callable[[str], None]):
        """Args:
          port: on 127.0.0.1; 0 takes one that is free, which `server_port` tells.
          log: told each request and what a phone makes of the answer.

        Raises:
          StorageError: the file cannot be read, or the port is taken.
          UsageError: the file breaks a rule.
        """
        self.path = path
        self.log = log
        require_sound(path)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise errors.StorageError(f"Cannot listen on port {port}: {error.strerror}.") from error


def require_sound(path: pathlib.Path) -> bytes:
    """The content of a download that phones accept.

    Raises:
      StorageError: it cannot be read.
      UsageError: it breaks rules; names all of them.
    """
    problems = check_files([path])
    if problems:
        raise errors.UsageError("\n".join(map(str, problems)))
    return path.read_bytes()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: DownloadServer
    # A client that says nothing is let go.
    timeout = 30

    def do_GET(self) -> None:  # noqa: N802 - http.server calls it by this name
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        known = query.get("syncToken", [""])[0]
        try:
            content = require_sound(self.server.path)
        except (errors.OdpTaskError, OSError) as error:
            self.server.log(f"{self.path[:200]}: 500, the file is not sound: {error}")
            self.send_error(500, "The download is not sound")
            return
        token = json.loads(content)["syncToken"]
        is_new = not (known.isascii() and known.isdecimal()) or int(known[:20]) < token
        self.server.log(
            f"{self.path[:200]}: syncToken {token}, {'new to' if is_new else 'not greater than the last one of, and dropped by,'} the phone"
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """What happens is told by `log`."""
