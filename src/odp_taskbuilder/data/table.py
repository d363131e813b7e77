"""CSV and Parquet tables."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.data import examples, file_checksum, mapped
from odp_taskbuilder.data.client_data import ClientData
from odp_taskbuilder.data.data_spec import FeatureSource

PARQUET_MAGIC = b"PAR1"
CSV_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_LARGEST_INT64 = np.iinfo(np.int64).max


class Table:
    """A table in memory.

    Attributes:
      source: the file.
      columns: names, in the order of the file.
      num_rows: how many rows there are.
    """

    source: str
    columns: tuple[str, ...]
    num_rows: int

    def text(self, name: str) -> np.ndarray:
        """[num_rows], a column as text, the form in which values name clients: in a CSV file the very text that stands there.

        Raises:
          UsageError: there is no such column, or a value is missing; names the row.
        """
        values = self._texts(self._require(name))
        for row in np.flatnonzero(values == ""):
            raise errors.UsageError(f"{self.place(row)}: column {name!r} is empty, and names no client.")
        return values

    def column(self, name: str, kind: Optional[str] = None) -> np.ndarray:
        """[num_rows] or [num_rows, values], a column as `kind`; of a list column of several lengths an array of arrays.

        Args:
          kind: float32, int64 or string; None takes what fits every value: int64, else float32, else string.

        Raises:
          UsageError: there is no such column, or a value is missing or does not convert; names the row.
        """
        return self._values(self._require(name), kind)

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        raise NotImplementedError

    def _texts(self, name: str) -> np.ndarray:
        raise NotImplementedError

    def _values(self, name: str, kind: Optional[str]) -> np.ndarray:
        raise NotImplementedError

    def _require(self, name: str) -> str:
        if name not in self.columns:
            raise errors.UsageError(
                f"{self.source} has no column {name!r}.", next_step=f"There are: {', '.join(self.columns)}."
            )
        return name

    def features(
        self, sources: Sequence[FeatureSource], without: Sequence[str] = (), *, keep_nonfinite: bool = False
    ) -> dict[str, np.ndarray]:
        """The features of all rows; with no sources every column, but those in `without`, is a feature of its own name.

        Args:
          keep_nonfinite: NaN and infinities may be among the values.

        Raises:
          UsageError: a column is missing, columns of different lengths are joined, or a value does not convert or is not finite.
        """
        available = [name for name in self.columns if name not in without]
        sources = sources or [FeatureSource(name, None, (name,)) for name in available]
        features = {}
        for source in sources:
            names = source.matches(available)
            columns = [self.column(name, source.kind) for name in names]
            if not keep_nonfinite:
                for name, values in zip(names, columns):
                    self._require_finite(name, values)
            try:
                features[source.name] = _joined(columns)
            except ValueError as error:
                raise errors.UsageError(
                    f"{self.source}: feature {source.name!r} cannot be made of {', '.join(names)}: {error}."
                ) from error
        return features

    def example(self, features: Mapping[str, np.ndarray], row: int) -> bytes:
        """Serializes one row."""
        return examples.encode({name: np.asarray(values[row]) for name, values in features.items()})

    def _require_finite(self, name: str, values: np.ndarray) -> None:
        for row in range(len(values)) if values.dtype == object else np.flatnonzero(~mapped.is_finite(values)):
            if not mapped.is_finite(np.asarray(values[row])).all():
                raise errors.UsageError(
                    f"{self.place(row)}: column {name!r} is not finite as float32: found {self._shown(name, row)}.",
                    next_step="Mend the row, or append &nonfinite=keep to keep such values.",
                )

    def _shown(self, name: str, row: int) -> str:
        return repr(str(self._texts(name)[row])[:60])


class CsvTable(Table):
    """The rows of a CSV file as text, converted column by column when they are asked for."""

    def __init__(self, source: str, header: Sequence[str], rows: Sequence[Sequence[str]], lines: Sequence[int]):
        """Args:
        rows: [num_rows][columns].
        lines: the line of the file that each row starts in.
        """
        self.source = source
        self.columns = tuple(header)
        self.num_rows = len(rows)
        self._lines = lines
        self._cells = dict(zip(header, zip(*rows)))

    def place(self, row: int) -> str:
        return f"{self.source}:{self._lines[row]}"

    def _texts(self, name: str) -> np.ndarray:
        return np.array(self._cells[name], dtype=object)

    def _values(self, name: str, kind: Optional[str]) -> np.ndarray:
        cells = self._cells[name]
        if kind is not None:
            return self._converted(name, kind)
        if all(_is_integer(cell) for cell in cells):
            return np.array(cells, dtype=object).astype(np.int64)
        numbers = [_is_number(cell) for cell in cells]
        # Numbers of too many digits are names of something: rounded, different ones would become one.
        if all(numbers) and not any(cell.strip().lstrip("+-").isdigit() and not _is_integer(cell) for cell in cells):
            return self._converted(name, "float32")
        missing = [row for row, cell in enumerate(cells) if not cell.strip()]
        if missing and sum(numbers) + len(missing) == len(cells) > len(missing):
            raise errors.UsageError(
                f"{self.place(missing[0])}: a number is missing in column {name!r}.",
                next_step=f"Fill or remove the row; a feature of text is written NAME:string={name}.",
            )
        return self._converted(name, "string")

    def _converted(self, name: str, kind: str) -> np.ndarray:
        cells = self._cells[name]
        if kind == "string":
            return np.array([cell.encode() for cell in cells] + [None], dtype=object)[:-1]
        is_right: Callable[[str], bool] = _is_integer if kind == "int64" else _is_number
        for row, cell in enumerate(cells):
            if not is_right(cell):
                found = repr(cell[:60]) if cell else "nothing"
                raise errors.UsageError(f"{self.place(row)}: column {name!r} must be {kind}, found {found}.")
        if kind == "int64":
            return np.array([int(cell) for cell in cells], dtype=np.int64)
        with np.errstate(over="ignore"):
            return np.array([float(cell) for cell in cells], dtype=np.float64).astype(np.float32)


class ParquetTable(Table):
    """The columns of a Parquet file."""

    def __init__(self, source: str, columns: Mapping[str, np.ndarray]):
        self.source = source
        self.columns = tuple(columns)
        self.num_rows = len(next(iter(columns.values()))) if columns else 0
        self._columns = dict(columns)

    def place(self, row: int) -> str:
        return f"{self.source}, row {row + 1}"

    def _texts(self, name: str) -> np.ndarray:
        values = self._columns[name].tolist()
        return np.array(
            [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values] + [None],
            dtype=object,
        )[:-1]

    def _values(self, name: str, kind: Optional[str]) -> np.ndarray:
        values = self._columns[name]
        try:
            examples.kind_of(np.asarray(values[0]) if values.dtype == object and self.num_rows else values)
            return mapped.convert(values, kind)
        except ValueError as error:
            raise errors.UsageError(f"{self.source}: column {name!r}: {error}.") from error


def _is_integer(cell: str) -> bool:
    """Whether this is an integer of 64 bits."""
    digits = cell.strip()
    digits = digits[1:] if digits[:1] in ("+", "-") else digits
    return digits.isascii() and digits.isdigit() and len(digits) < 30 and -_LARGEST_INT64 - 1 <= int(cell) <= _LARGEST_INT64


def _is_number(cell: str) -> bool:
    """Whether this is a number, an infinity or NaN; not `1_000`, which Python reads, too."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell and cell.isascii()


class TableClientData(ClientData):
    """The rows of a table, grouped by its client column; rows keep their order.

    The table is held in memory; an example is encoded when it is asked for.
    """

    def __init__(self, table: Table, client_column: str, sources: Sequence[FeatureSource], *, keep_nonfinite: bool = False):
        """Groups a table by the text of its client column.

        Raises:
          UsageError: a column is missing, a value does not convert, or a row names no client.
        """
        self.source = table.source
        self._table = table
        self._client_column = client_column
        self._sources = tuple(sources)
        names = table.text(client_column)
        self._features = table.features(sources, without=[client_column], keep_nonfinite=keep_nonfinite)
        clients, inverse = np.unique(names, return_inverse=True)
        order: Any = np.argsort(inverse, kind="stable")
        starts: Any = np.searchsorted(inverse[order], np.arange(len(clients) + 1))
        self._rows = {str(client): order[starts[index] : starts[index + 1]] for index, client in enumerate(clients)}
        self.client_ids = tuple(sorted(self._rows))

    def num_examples(self, client_id: str) -> int:
        return len(self._rows[client_id])

    def fingerprint(self) -> str:
        return f"{file_checksum.file_checksum(pathlib.Path(self.source))} {self._client_column} {self._sources!r}"

    def examples(self, client_id: str) -> Iterator[bytes]:
        for row in self._rows[client_id]:
            yield self._table.example(self._features, row)


def read_table(path: pathlib.Path) -> Table:
    """Reads a CSV file (by suffix: `.csv`, `.tsv`) with a header line, or a Parquet file (by content). Empty lines are no rows.

    Raises:
      StorageError: the file cannot be read.
      UsageError: it is no such table, or Parquet is not installed.
    """
    if path.suffix in CSV_DELIMITERS:
        return _read_csv(path, CSV_DELIMITERS[path.suffix])
    return _read_parquet(path)


def _read_csv(path: pathlib.Path, delimiter: str) -> Table:
    rows, lines = [], []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header: list[str] = []
            start = 1
            for row in reader:
                if not header:
                    header = row
                elif row and len(row) != len(header):
                    raise errors.UsageError(
                        f"{path}:{start}: expected {len(header)} values as in the header, found {len(row)}."
                    )
                elif row:
                    rows.append(row)
                    lines.append(start)
                start = reader.line_num + 1
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise errors.UsageError(f"{path} is no CSV table in UTF-8: {error}.") from error
    if not rows:
        raise errors.UsageError(f"{path} has no rows; expected a header line and one line per example.")
    if len(set(header)) != len(header):
        raise errors.UsageError(f"{path}:1: a column name appears twice.")
    return CsvTable(str(path), header, rows, lines)


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
    return ParquetTable(str(path), {name: _from_arrow(path, name, table.column(name)) for name in table.column_names})


def _from_arrow(path: pathlib.Path, name: str, column: Any) -> np.ndarray:
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0]) + 1
        raise errors.UsageError(f"{path}, row {row}: column {name!r} has no value; {column.null_count} are missing in all.")
    values = column.to_numpy()
    if values.dtype == object and len(values) and isinstance(values[0], np.ndarray):
        stacked = _stacked(values)
        return values if stacked is None else stacked
    if values.dtype == object:
        for row, value in enumerate(values):
            if not isinstance(value, (str, bytes)):
                raise errors.UsageError(
                    f"{path}, row {row + 1}: column {name!r} holds {type(value).__name__} values; expected numbers or text."
                )
        return np.array([value.encode() if isinstance(value, str) else value for value in values] + [None], dtype=object)[:-1]
    return values


def _stacked(arrays: np.ndarray) -> Optional[np.ndarray]:
    """Arrays of one length as one matrix; None when the lengths differ."""
    return np.stack(list(arrays)) if len({array.shape for array in arrays}) == 1 else None


def _joined(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Columns side by side: [rows] for a single plain column, otherwise [rows, values]."""
    if len(columns) == 1:
        return columns[0]
    return np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1)
