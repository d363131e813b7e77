"""Reading and checking the URLs of stored things, and the names of the files in a tree."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import urllib.parse
from typing import Union

from odp_taskbuilder import errors
from odp_taskbuilder.base import redaction

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_NAME_BYTES = 1024
# Of a URL or path; Linux takes no longer path.
_MAX_CHARACTERS = 4096
_MAX_SHOWN = 300
_EXPECTED = "Expected gs://bucket/object, file:///path or a local path."


@dataclasses.dataclass(frozen=True)
class BucketPlace:
    """An object, or everything below a prefix, in a bucket. An empty `name` is the whole bucket."""

    bucket: str
    name: str

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.name}"


# Where something is stored.
Place = Union[BucketPlace, pathlib.Path]


def parse(url: str) -> Place:
    """Reads a URL or local path; one trailing slash does not matter.

    Raises:
      errors.StorageError: another scheme, no bucket, too long, or a name that could be mistaken for another one (`..`, empty
        parts, control characters).
    """
    if len(url) > _MAX_CHARACTERS:
        raise _invalid(url, f"it is longer than {_MAX_CHARACTERS} characters")
    scheme, separator, rest = url.partition("://")
    if not separator:
        return _local_path(url, url)
    if scheme == "gs":
        bucket, _, name = rest.partition("/")
        if not _BUCKET.fullmatch(bucket):
            # What stands before an @ is for nobody's eyes, also where a slash cuts it in two.
            is_shown = bucket and redaction.redact_url(url) == url
            raise _invalid(url, f"{bucket!r} is no bucket name" if is_shown else "it names no bucket")
        name = name[:-1] if name.endswith("/") else name
        if name:
            _check_parts(url, name.split("/"))
        return BucketPlace(bucket, name)
    if scheme == "file":
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost") or not slash:
            raise _invalid(url, "a file URL has three slashes before the path")
        return _local_path(url, "/" + urllib.parse.unquote(path))
    raise _invalid(url, f"{redaction.redact_url(scheme)}:// is not supported")


def parse_object(url: str) -> Place:
    """Reads the URL of a single object.

    Raises:
      errors.StorageError: as `parse`, or the URL names a bucket or a directory.
    """
    place = parse(url)
    if url.endswith("/") or (isinstance(place, BucketPlace) and not place.name):
        raise _invalid(url, "it names no object")
    return place


def tree_parts(name: str, tree: str) -> tuple[str, ...]:
    """Splits the name of a file relative to its tree, for use below a local directory.

    Raises:
      errors.StorageError: the name is absolute, climbs out of the tree, or means something else on another system.
    """
    parts = tuple(name.split("/"))
    if any(not _is_plain(part) or "\\" in part or ":" in part for part in parts):
        raise errors.StorageError(
            f"{tree} holds an object whose name cannot be a file below a directory: {name!r}.",
            next_step="Remove that object, or copy the model to a place of its own.",
        )
    return parts


def _local_path(url: str, path: str) -> pathlib.Path:
    if not path or "\0" in path:
        raise _invalid(url, "it names no file")
    return pathlib.Path(path)


def _check_parts(url: str, parts: list[str]) -> None:
    for part in parts:
        # An escaped slash or dot means nothing to Cloud Storage; whoever writes one hopes that somebody unescapes it.
        if not _is_plain(part) or not _is_plain(urllib.parse.unquote(part)) or "/" in urllib.parse.unquote(part):
            raise _invalid(url, f"the part {part!r} of the object's name is not allowed")
    if len("/".join(parts).encode()) > _MAX_NAME_BYTES:
        raise _invalid(url, f"the object's name is longer than {_MAX_NAME_BYTES} bytes")


def _is_plain(part: str) -> bool:
    return part not in ("", ".", "..") and not _CONTROL.search(part)


def _invalid(url: str, reason: str) -> errors.StorageError:
    shown = redaction.redact_url(url)
    shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."
    return errors.StorageError(f"Not a usable URL: {shown!r}: {reason}.", next_step=_EXPECTED)
