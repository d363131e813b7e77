"""CSV and Parquet tables."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Optional

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.data import examples, file_checksum, mapped
from odp_taskbuilder.data.client_data import ClientData
from odp_taskbuilder.data.data_spec import FeatureSource

PARQUET_MAGIC = b"PAR1"
CSV_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Table:
    """A table in memory: per column an array over the rows; a Parquet list column has one more axis, or is an array of
    arrays."""

    def __init__(self, source: str, columns: Mapping[str, np.ndarray]):
        self.source = source
        self.columns = dict(columns)
        self.num_rows = len(next(iter(self.columns.values()))) if self.columns else 0

    def column(self, name: str) -> np.ndarray:
        """One column.

        Raises:
          UsageError: there is none of that name.
        """
        if name not in self.columns:
            raise errors.UsageError(
                f"{self.source} has no column {name!r}.", next_step=f"There are: {', '.join(self.columns)}."
            )
        return self.columns[name]

    def features(self, sources: Sequence[FeatureSource], without: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """The features of all rows; with no sources every column, but those in `without`, is a feature of its own name.

        Raises:
          UsageError: a column is missing, columns of different lengths are joined, or a value does not convert.
        """
        if not sources:
            return {name: values for name, values in self.columns.items() if name not in without}
        features = {}
        for source in sources:
            names = source.matches([name for name in self.columns if name not in without])
            try:
                features[source.name] = _joined([mapped.convert(self.columns[name], source.kind) for name in names])
            except ValueError as error:
                raise errors.UsageError(
                    f"{self.source}: feature {source.name!r} cannot be made of {', '.join(names)}: {error}."
                ) from error
        return features

    def example(self, features: Mapping[str, np.ndarray], row: int) -> bytes:
        """Serializes one row."""
        return examples.encode({name: np.asarray(values[row]) for name, values in features.items()})


class TableClientData(ClientData):
    """The rows of a table, grouped by its client column; rows keep their order.

    The table is held in memory; an example is encoded when it is asked for.
    """

    def __init__(self, table: Table, client_column: str, sources: Sequence[FeatureSource]):
        """Groups a table.

        Raises:
          UsageError: a column is missing or does not convert.
        """
        self.source = table.source
        self._table = table
        self._client_column = client_column
        self._sources = tuple(sources)
        self._features = table.features(sources, without=[client_column])
        clients, inverse = np.unique(text_values(table.column(client_column)), return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        starts = np.searchsorted(inverse[order], np.arange(len(clients) + 1))
        self._rows = {str(client): order[starts[index] : starts[index + 1]] for index, client in enumerate(clients)}
        self.client_ids = tuple(sorted(self._rows))

    def num_examples(self, client_id: str) -> int:
        return len(self._rows[client_id])

    def fingerprint(self) -> str:
        return f"{file_checksum.file_checksum(pathlib.Path(self.source))} {self._client_column} {self._sources!r}"

    def examples(self, client_id: str) -> Iterator[bytes]:
        for row in self._rows[client_id]:
            yield self._table.example(self._features, row)


def text_values(values: np.ndarray) -> np.ndarray:
    """A column as text, the form in which values name clients."""
    return np.array([value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values.tolist()])


def read_table(path: pathlib.Path) -> Table:
    """Reads a CSV file (by suffix: `.csv`, `.tsv`) with a header line, or a Parquet file (by content).

    A CSV column becomes int64 if every value is an integer, else float32 if every value is a number, else string.

    Raises:
      StorageError: the file cannot be read.
      UsageError: it is no such table, or Parquet is not installed.
    """
    if path.suffix in CSV_DELIMITERS:
        return _read_csv(path, CSV_DELIMITERS[path.suffix])
    return _read_parquet(path)


def _read_csv(path: pathlib.Path, delimiter: str) -> Table:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter)
            header = next(reader, [])
            rows = []
            for row in reader:
                if len(row) != len(header):
                    raise errors.UsageError(
                        f"{path}:{reader.line_num}: expected {len(header)} values as in the header, found {len(row)}."
                    )
                rows.append(row)
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise errors.UsageError(f"{path} is no CSV table in UTF-8: {error}.") from error
    if not rows:
        raise errors.UsageError(f"{path} has no rows; expected a header line and one line per example.")
    if len(set(header)) != len(header):
        raise errors.UsageError(f"{path}:1: a column name appears twice.")
    return Table(str(path), {name: _typed(values) for name, values in zip(header, zip(*rows))})


def _typed(values: Sequence[str]) -> np.ndarray:
    for kind in ("int64", "float32"):
        try:
            return np.array(values, dtype=str).astype(examples.numpy_dtype(kind))
        except (ValueError, OverflowError):
            continue
    return np.array([value.encode() for value in values], dtype=object)


def _read_parquet(path: pathlib.Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise errors.UsageError(
            f"{path}: reading Parquet needs pyarrow.", next_step="pip install 'odp-task[parquet]'"
        ) from error
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise errors.StorageError(f"Cannot read {path}: {error}.") from error
    return Table(str(path), {name: _from_arrow(path, name, table.column(name)) for name in table.column_names})


def _from_arrow(path: pathlib.Path, name: str, column: object) -> np.ndarray:
    if column.null_count:
        raise errors.UsageError(f"{path}: column {name!r} has {column.null_count} missing values.")
    values = column.to_numpy()
    if values.dtype == object and len(values) and isinstance(values[0], np.ndarray):
        stacked = _stacked(values)
        return values if stacked is None else stacked
    if values.dtype == object:
        return np.array([value.encode() if isinstance(value, str) else value for value in values], dtype=object)
    return values


def _stacked(arrays: np.ndarray) -> Optional[np.ndarray]:
    """Arrays of one length as one matrix; None when the lengths differ."""
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else None


def _joined(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Columns side by side: [rows] for a single plain column, otherwise [rows, values]."""
    if len(columns) == 1:
        return columns[0]
    return np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1)
