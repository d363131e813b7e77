"""Opens client data by what it is."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.data import hdf5, sqlite, table, tfrecord_directory
from odp_taskbuilder.data.client_data import ClientData
from odp_taskbuilder.data.data_spec import DataSpec, parse_data_spec
from odp_taskbuilder.data.mapped import MappedClientData
from odp_taskbuilder.data.part import DataPart, PartOfClientData
from odp_taskbuilder.data.repeated import RepeatedClientData
from odp_taskbuilder.data.synthetic import Feature, SyntheticClientData

SYNTHETIC = "synthetic"
_REPETITION_OPTIONS = ("clients", "examples", "seed")
_SYNTHETIC_OPTIONS = ("clients", "examples", "classes", "seed")
# Clients, and examples of a client: the ids of ten million clients take a gigabyte.
_MAX_SYNTHETIC = 10_000_000


def open_client_data(text: Union[str, DataPart], *, features: Optional[Sequence[Feature]] = None) -> ClientData:
    """Opens client data.

    Args:
      text: `PATH[?OPTION=VALUE&...]` (see data_spec), where the path is a directory of TFRecord files or a single one, a
        SQLite database of TFF or an .lzma of it, an HDF5 file, a CSV or Parquet table, or the word `synthetic`. The content
        decides, not the suffix, where content can. With `clients` there are so many, which draw from those that are stored. Or a part of such data.
      features: what the plan parses; `synthetic` data is made to fit it.

    Raises:
      StorageError: the path does not exist, cannot be read or is damaged.
      UsageError: it is nothing of the above, its content is not what it should be, an option is missing, unknown or
        impossible, or it names a feature that the plan does not parse.
    """
    if isinstance(text, DataPart):
        return PartOfClientData(open_client_data(text.text, features=features), text)
    spec = parse_data_spec(text)
    if features is not None:
        spec.accept_features([feature.name for feature in features])
    if spec.path == SYNTHETIC:
        return _open_synthetic(spec, features)
    if "clients" not in spec.options:
        return _open_stored(spec)
    options = {name: value for name, value in spec.options.items() if name not in _REPETITION_OPTIONS}
    data = _open_stored(dataclasses.replace(spec, options=options))
    if not data.client_ids:
        raise errors.UsageError(f"{spec.path} has no client that others could draw examples from.")
    return RepeatedClientData(
        data,
        num_clients=spec.integer("clients", 1, minimum=1, maximum=_MAX_SYNTHETIC),
        num_examples=spec.integer("examples", 1, minimum=1, maximum=_MAX_SYNTHETIC) if "examples" in spec.options else None,
        seed=spec.integer("seed", 0, minimum=0, maximum=2**62),
    )


def _open_stored(spec: DataSpec) -> ClientData:
    path = pathlib.Path(spec.path)
    head = read_head(path)
    if head is None or path.suffix in tfrecord_directory.SUFFIXES:
        spec.accept_options()
        data: ClientData = tfrecord_directory.TfRecordDirectory(path)
    elif head.startswith((sqlite.MAGIC, *sqlite.LZMA_MAGICS)):
        spec.accept_options("split")
        data = sqlite.SqliteClientData(path, spec.options.get("split"))
    elif head.startswith(hdf5.MAGIC):
        spec.accept_options("nonfinite")
        data = hdf5.Hdf5ClientData(path, keep_nonfinite=spec.keep_nonfinite)
    elif is_table(path, head):
        return _open_table(spec, path)
    else:
        raise errors.UsageError(
            f"{path} is no client data that odp-task can read.",
            next_step="Expected a directory of TFRecord files, a SQLite or HDF5 file of TFF, or a table (.csv, .tsv, Parquet).",
        )
    return MappedClientData(data, spec.features) if spec.features else data


def read_head(path: pathlib.Path) -> Optional[bytes]:
    """The first bytes of a file, enough to know its format; None for a directory.

    Raises:
      StorageError: the path does not exist or cannot be read.
    """
    if path.is_dir():
        return None
    try:
        with open(path, "rb") as file:
            return file.read(16)
    except OSError as error:
        raise errors.StorageError(f"Cannot read client data {path}: {error.strerror}") from error


def is_table(path: pathlib.Path, head: bytes) -> bool:
    return path.suffix in table.CSV_DELIMITERS or head.startswith(table.PARQUET_MAGIC)


def _open_table(spec: DataSpec, path: pathlib.Path) -> ClientData:
    spec.accept_options("client", "nonfinite")
    rows = table.read_table(path)
    if "client" not in spec.options:
        raise errors.UsageError(
            f"{path} is a table: which column names the client?",
            next_step=f"Append ?client=COLUMN with one of: {', '.join(rows.columns)}.",
        )
    return table.TableClientData(rows, spec.options["client"], spec.features, keep_nonfinite=spec.keep_nonfinite)


def _open_synthetic(spec: DataSpec, features: Optional[Sequence[Feature]]) -> ClientData:
    spec.accept_options(*_SYNTHETIC_OPTIONS)
    for feature in spec.features:
        raise errors.UsageError(
            f"`synthetic` data is not made of columns: {feature.name!r} cannot be set.",
            next_step=f"It takes: {', '.join(_SYNTHETIC_OPTIONS)}.",
        )
    if features is None:
        raise errors.UsageError("`synthetic` data is made from the input of a plan and has no content without one.")
    return SyntheticClientData(
        features,
        num_clients=spec.integer("clients", 100, minimum=1, maximum=_MAX_SYNTHETIC),
        num_examples=spec.integer("examples", 10, minimum=0, maximum=_MAX_SYNTHETIC),
        classes=spec.integer("classes", 2, minimum=1, maximum=2**62),
        seed=spec.integer("seed", 0, minimum=0, maximum=2**62),
    )
