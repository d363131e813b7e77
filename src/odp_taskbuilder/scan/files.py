"""What a SavedModel is on disk: its files, before any of them is parsed.

Files are opened without following links and without waiting, so that a link out of the directory, a pipe or a device is an error
and nothing else.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import Optional, TypeVar, Union

from google.protobuf import message

import odp_taskbuilder.proto  # noqa: F401 - makes TensorFlow's messages importable without TensorFlow.
from odp_taskbuilder import errors
from odp_taskbuilder.scan import wire
from odp_taskbuilder.scan.report import Finding, ScanLimits, printable

from tensorflow.core.framework import graph_debug_info_pb2  # isort: skip
from tensorflow.core.protobuf import saved_model_pb2  # isort: skip

GRAPH_FILE = "saved_model.pb"
INDEX_FILE = "variables/variables.index"
# Where TensorFlow says which lines of Python nodes come from; its loader parses it too.
_DEBUG_INFO_FILE = "debug/saved_model_debug_info.pb"
# Checksums, which TensorFlow's loader parses as well.
_FINGERPRINT_FILE = "fingerprint.pb"
# Formats that TensorFlow loads as well, and that are read by nobody else's scan.
_OTHER_FORMATS = {"saved_model.pbtxt": "text", "saved_model.cpb": "chunked"}
# What Keras saves: a file of one of these names, or a directory with this file.
_KERAS_SUFFIXES = (".h5", ".hdf5", ".keras")
_KERAS_FILE = "keras_metadata.pb"

_Message = TypeVar("_Message", bound=message.Message)


def require_saved_model(path: Union[str, os.PathLike]) -> pathlib.Path:
    """Returns `path` if it is a directory with a binary SavedModel and its variables.

    Raises:
      errors.ModelError: it is not; says what is missing.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise errors.ModelError(
            f"There is no model at {path}.", next_step="Pass the directory that save_functional_model wrote."
        )
    if not path.is_dir():
        raise errors.ModelError(
            f"{path} is a file; a model is a directory with saved_model.pb in it.", next_step=how_to_save(path) if _is_of_keras(path) else None
        )
    for part in (GRAPH_FILE, INDEX_FILE):
        if not (path / part).is_file():
            raise errors.ModelError(
                f"{path} is not a SavedModel of a FunctionalModel: {part} is missing.",
                next_step=how_to_save(path),
            )
    return path


def how_to_save(path: Union[str, os.PathLike]) -> str:
    """What to do with a model that was saved in another way than as a FunctionalModel."""
    if not _is_of_keras(pathlib.Path(path)):
        return "Save the model with tff.learning.models.save_functional_model(model, path)."
    return (
        "These lines of Python make a FunctionalModel of what Keras saved; where it has no loss, name one (loss=\"sparse_categorical_crossentropy\"):\n"
        "    import odp_taskbuilder, tensorflow as tf\n"
        f"    model = tf.keras.models.load_model({str(path)!r})\n"
        "    odp_taskbuilder.save_keras_model(model, \"saved_model\", loss=model.loss)"
    )


def _is_of_keras(path: pathlib.Path) -> bool:
    """Whether Keras saved a model there: into a file, whose name must tell its format, or as a SavedModel of its own."""
    return path.suffix.lower() in _KERAS_SUFFIXES or (path / _KERAS_FILE).is_file()


def scan_directory(path: pathlib.Path, limits: ScanLimits) -> list[Finding]:
    """Looks at every entry below `path`.

    Raises:
      errors.ModelError: there is no SavedModel, or something in it is neither a regular file nor a directory.
    """
    if not any((path / name).exists() for name in _OTHER_FORMATS):
        require_saved_model(path)
    findings = []
    for name, status in _entries(path, limits):
        mode = status.st_mode
        folder, _, file_name = name.rpartition("/")
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise errors.ModelError(f"{path}: {printable(name)} is a {_kind(mode)}; a model consists of regular files.")
        if not folder and file_name in _OTHER_FORMATS:
            reason = f"the model is given in the {_OTHER_FORMATS[file_name]} format, beside or instead of {GRAPH_FILE}"
            findings.append(Finding(printable(name), "", "", reason))
        if not name.startswith("variables/") and stat.S_ISREG(mode) and status.st_size > limits.graph_bytes:
            findings.append(
                Finding(printable(name), "", "", f"{status.st_size} bytes; at most {limits.graph_bytes} are accepted")
            )
        elif name == _DEBUG_INFO_FILE:
            content = read_file(path, name, limits.graph_bytes)
            problem = excess(path, name, content, graph_debug_info_pb2.GraphDebugInfo, limits)
            if problem is not None:
                findings.append(Finding(name, "", "", problem))
        elif name == _FINGERPRINT_FILE and status.st_size > limits.fingerprint_bytes:
            reason = f"{status.st_size} bytes; at most {limits.fingerprint_bytes} are accepted"
            findings.append(Finding(name, "", "", reason))
        if name.startswith("assets/") and stat.S_ISREG(mode):
            findings.append(Finding(printable(name), "", "", "a model needs no assets"))
    return findings


def read_file(path: pathlib.Path, name: str, limit: int) -> bytes:
    """Returns the content of a file of the model.

    Raises:
      errors.ModelError: it cannot be read, is not a regular file, or is longer than `limit` bytes.
    """
    with os.fdopen(_open(path, name), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise errors.ModelError(f"{path}: {name} has {size} bytes; at most {limit} are read.")
        return file.read(limit)


def read_saved_model(path: pathlib.Path, limits: ScanLimits = ScanLimits()) -> saved_model_pb2.SavedModel:
    """Parses saved_model.pb, of which no more is believed than that it is a message within the limits.

    Raises:
      errors.UntrustedModelError: the file holds more than the limits allow; nothing of it was parsed.
      errors.ModelError: it cannot be read, or is damaged.
    """
    content = read_file(path, GRAPH_FILE, limits.graph_bytes)
    problem = excess(path, GRAPH_FILE, content, saved_model_pb2.SavedModel, limits)
    if problem is not None:
        raise errors.UntrustedModelError(f"{path}: {GRAPH_FILE} holds {problem}.")
    return parse(path, GRAPH_FILE, content, saved_model_pb2.SavedModel)


def excess(path: pathlib.Path, name: str, content: bytes, kind: type[message.Message], limits: ScanLimits) -> Optional[str]:
    """Says which limit the content of a file passes, a message of that kind, before it is parsed; None if it passes none.

    Raises:
      errors.ModelError: it is damaged.
    """
    try:
        return wire.excess(content, kind.DESCRIPTOR, limits)
    except ValueError as error:
        raise errors.ModelError(f"{path}: {name} is truncated or damaged: {error}.") from error


def parse(path: pathlib.Path, name: str, content: bytes, kind: type[_Message]) -> _Message:
    """Parses the content of a file. Raises errors.ModelError if it is damaged."""
    try:
        return kind.FromString(content)
    except message.DecodeError as error:
        raise errors.ModelError(f"{path}: {name} is truncated or damaged: {error}.") from error


def file_size(path: pathlib.Path, name: str) -> int:
    """The size in bytes of a regular file of the model."""
    fd = _open(path, name)
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def read_range(path: pathlib.Path, name: str, offset: int, size: int) -> bytes:
    """Returns at most `size` bytes of a file of the model from `offset` on."""
    fd = _open(path, name)
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)


def _open(path: pathlib.Path, name: str) -> int:
    try:
        fd = os.open(path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise errors.ModelError(f"{path}: {printable(name)} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise errors.ModelError(f"{path}: {printable(name)} is not a regular file.")
    return fd


def _entries(path: pathlib.Path, limits: ScanLimits) -> Iterator[tuple[str, os.stat_result]]:
    count = 0
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(path / folder) as scan:
                entries = list(itertools.islice(scan, limits.files + 1 - count))
            count += len(entries)
            if count > limits.files:
                raise errors.ModelError(f"{path} holds more than {limits.files} files; a model has about five.")
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = f"{folder}/{entry.name}" if folder else entry.name
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    folders.append(name)
                yield name, status
        except OSError as error:
            raise errors.ModelError(f"{path / folder} cannot be read: {error.strerror}.") from error


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")
