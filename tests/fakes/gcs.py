"""Cloud Storage's JSON API on loopback, as far as artifacts and models need it.

Unlike the emulator of the package index it enforces generation preconditions and checksums, keeps generations apart, and lets
faults strike (faults.py).
"""

from __future__ import annotations

import base64
import dataclasses
import email.parser
import gzip
import itertools
import json
import re
import threading
import urllib.parse
from typing import Optional

import google_crc32c

from fakes.faults import FaultPlan, FaultyServer, Reply, json_reply

_OBJECT = re.compile(r"^(/download|/upload)?/storage/v1/b/([^/]+)/o(?:/(.+))?$")


def crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


@dataclasses.dataclass
class StoredObject:
    data: bytes
    generation: int
    content_encoding: Optional[str] = None


class FakeGcs:
    """Buckets in memory.

    Attributes:
      objects: (bucket, name) -> StoredObject.
      unconditional_uploads: names of objects that somebody uploaded without a precondition.
      before_download: called with (bucket, name) before an object is sent, to let something happen between list and get.
    """

    def __init__(self, plan: Optional[FaultPlan] = None, buckets: tuple = ("bucket",), page_size: int = 1000):
        self.plan = plan or FaultPlan()
        self.buckets = set(buckets)
        self.page_size = page_size
        self.objects: dict[tuple[str, str], StoredObject] = {}
        self.unconditional_uploads: list[str] = []
        self.before_download = lambda bucket, name: None
        self._generations = itertools.count(1700000000000001)
        self._uploads: dict[str, dict] = {}
        self._upload_ids = itertools.count(1)
        self._lock = threading.RLock()

    def serve(self) -> FaultyServer:
        return FaultyServer(self.plan, self.reply)

    def put(self, bucket: str, name: str, data: bytes, content_encoding: Optional[str] = None) -> StoredObject:
        stored = StoredObject(data, next(self._generations), content_encoding)
        self.objects[bucket, name] = stored
        return stored

    def gzip_in_place(self) -> None:
        """What the task server's scheduler does some time after an upload."""
        for (bucket, name), stored in list(self.objects.items()):
            if stored.content_encoding is None:
                self.put(bucket, name, gzip.compress(stored.data), "gzip")

    def content(self, url: str) -> Optional[bytes]:
        """The decompressed content at a gs:// URL; None if there is no object."""
        bucket, _, name = url[len("gs://") :].partition("/")
        stored = self.objects.get((bucket, name))
        if stored is None:
            return None
        return gzip.decompress(stored.data) if stored.content_encoding == "gzip" else stored.data

    def reply(self, method: str, path: str, headers: dict, body: bytes) -> Reply:
        url = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(url.query))
        match = _OBJECT.match(url.path)
        if not match:
            return _error(404, f"no such path {url.path}")
        kind, bucket, name = match[1], match[2], urllib.parse.unquote(match[3] or "")
        if bucket not in self.buckets:
            return _error(404, f"no bucket {bucket}")
        with self._lock:
            if kind == "/upload":
                return self._upload(method, bucket, query, headers, body)
            if method == "GET" and not name:
                return self._list(bucket, query)
            if method == "GET" and (kind == "/download" or query.get("alt") == "media"):
                self.before_download(bucket, name)
                return self._media(bucket, name, query, headers)
            if method == "GET":
                return self._metadata(bucket, name, query)
            if method == "DELETE":
                return self._delete(bucket, name, query)
        return _error(405, method)

    def _find(self, bucket: str, name: str, query: dict) -> Optional[StoredObject]:
        stored = self.objects.get((bucket, name))
        if stored is not None and query.get("generation") not in (None, str(stored.generation)):
            return None
        return stored

    def _metadata(self, bucket: str, name: str, query: dict) -> Reply:
        stored = self._find(bucket, name, query)
        return _error(404, f"no object {name}") if stored is None else json_reply(200, _resource(bucket, name, stored))

    def _media(self, bucket: str, name: str, query: dict, headers: dict) -> Reply:
        stored = self._find(bucket, name, query)
        if stored is None:
            return _error(404, f"no object {name}")
        reply_headers = {
            "X-Goog-Hash": f"crc32c={crc32c(stored.data)}",
            "X-Goog-Generation": str(stored.generation),
            "X-Goog-Stored-Content-Length": str(len(stored.data)),
            "X-Goog-Stored-Content-Encoding": stored.content_encoding or "identity",
        }
        if stored.content_encoding:
            reply_headers["Content-Encoding"] = stored.content_encoding
        start = re.match(r"bytes=(\d+)-", headers.get("Range", headers.get("range", "")))
        if start:
            first, total = int(start[1]), len(stored.data)
            reply_headers["Content-Range"] = f"bytes {first}-{total - 1}/{total}"
            return Reply(206, stored.data[first:], reply_headers, "application/octet-stream")
        return Reply(200, stored.data, reply_headers, "application/octet-stream")

    def _list(self, bucket: str, query: dict) -> Reply:
        names = sorted(n for b, n in self.objects if b == bucket and n.startswith(query.get("prefix", "")))
        first = int(query.get("pageToken", 0))
        last = first + min(self.page_size, int(query.get("maxResults", self.page_size)))
        document = {
            "kind": "storage#objects",
            "items": [_resource(bucket, n, self.objects[bucket, n]) for n in names[first:last]],
        }
        if last < len(names):
            document["nextPageToken"] = str(last)
        return json_reply(200, document)

    def _delete(self, bucket: str, name: str, query: dict) -> Reply:
        stored = self._find(bucket, name, query)
        if stored is None:
            return _error(404, f"no object {name}")
        if not self._allowed(bucket, name, query):
            return _error(412, "precondition failed")
        del self.objects[bucket, name]
        return Reply(204)

    def _upload(self, method: str, bucket: str, query: dict, headers: dict, body: bytes) -> Reply:
        if query.get("uploadType") == "multipart":
            metadata, data = _parts(headers["content-type" if "content-type" in headers else "Content-Type"], body)
            return self._store(bucket, metadata, data, query)
        if method == "POST":
            metadata = json.loads(body)
            if not self._allowed(bucket, metadata["name"], query):
                return _error(412, "precondition failed")
            upload_id = f"session{next(self._upload_ids)}"
            self._uploads[upload_id] = {"metadata": metadata, "query": query, "data": b"", "done": None}
            location = f"http://{headers['Host']}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={upload_id}"
            return Reply(200, headers={"Location": location})
        return self._continue(bucket, self._uploads.get(query.get("upload_id", "")), headers, body)

    def _continue(self, bucket: str, upload: Optional[dict], headers: dict, body: bytes) -> Reply:
        if upload is None:
            return _error(404, "no such upload")
        if upload["done"] is not None:
            return upload["done"]
        place = re.match(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", headers.get("content-range", headers.get("Content-Range", "")))
        start, total = place[1], place[3]
        if start is not None:
            if int(start) > len(upload["data"]):
                return _error(503, "a chunk is missing")
            upload["data"] = upload["data"][: int(start)] + body
        if total != "*" and len(upload["data"]) == int(total):
            reply = self._store(bucket, upload["metadata"], upload["data"], upload["query"])
            if reply.status == 200:
                upload["done"] = reply
            return reply
        received = {"Range": f"bytes=0-{len(upload['data']) - 1}"} if upload["data"] else {}
        return Reply(308, headers=received)

    def _store(self, bucket: str, metadata: dict, data: bytes, query: dict) -> Reply:
        name = metadata["name"]
        if "ifGenerationMatch" not in query:
            self.unconditional_uploads.append(name)
        if not self._allowed(bucket, name, query):
            return _error(412, "precondition failed")
        if metadata.get("crc32c") not in (None, crc32c(data)):
            return _error(400, f"Provided CRC32C {metadata['crc32c']} doesn't match calculated CRC32C {crc32c(data)}.")
        return json_reply(200, _resource(bucket, name, self.put(bucket, name, data, metadata.get("contentEncoding"))))

    def _allowed(self, bucket: str, name: str, query: dict) -> bool:
        stored = self.objects.get((bucket, name))
        wanted = query.get("ifGenerationMatch")
        return wanted is None or int(wanted) == (0 if stored is None else stored.generation)


def _parts(content_type: str, body: bytes) -> tuple[dict, bytes]:
    """Splits a multipart/related body into metadata and content, which may hold any bytes."""
    boundary = email.parser.HeaderParser().parsestr(f"Content-Type: {content_type}").get_boundary().encode()
    _, first, rest = body.split(b"--" + boundary + b"\r\n", 2)
    content = rest.partition(b"\r\n\r\n")[2]
    return json.loads(first.partition(b"\r\n\r\n")[2]), content[: content.rindex(b"\r\n--" + boundary + b"--")]


def _resource(bucket: str, name: str, stored: StoredObject) -> dict:
    document = {
        "kind": "storage#object",
        "bucket": bucket,
        "name": name,
        "generation": str(stored.generation),
        "metageneration": "1",
        "size": str(len(stored.data)),
        "crc32c": crc32c(stored.data),
        "contentType": "application/octet-stream",
    }
    if stored.content_encoding:
        document["contentEncoding"] = stored.content_encoding
    return document


def _error(status: int, message: str) -> Reply:
    return json_reply(status, {"error": {"code": status, "message": message}})
