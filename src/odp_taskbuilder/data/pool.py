"""A whole dataset, before it is dealt over clients."""

from __future__ import annotations

import pathlib
from typing import Optional

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.data import examples, mnist, tfrecord_directory
from odp_taskbuilder.data.data_spec import DataSpec, parse_data_spec
from odp_taskbuilder.data.mapped import map_features
from odp_taskbuilder.data.open import is_table, read_head
from odp_taskbuilder.data.table import Table, read_table

DIGITS = "digits"
# The column of sources that know clients.
CLIENT = "client"


class ExamplePool:
    """All examples of a dataset, serialized and in memory, with the values that they can be dealt by."""

    def __init__(
        self, source: str, serialized: list[bytes], table: Optional[Table] = None, clients: Optional[np.ndarray] = None
    ):
        """Args:
        table: that the examples are the rows of.
        clients: [len(serialized)] text, the column CLIENT of a source that knows clients.
        """
        self.source = source
        self.serialized = serialized
        self._table = table
        self._clients = clients

    def __len__(self) -> int:
        return len(self.serialized)

    def values(self, name: str) -> np.ndarray:
        """One value per example: a column of the table, or else a feature with a single value.

        Raises:
          UsageError: there is no such column or feature, or it has several values.
        """
        if self._table is not None and name in self._table.columns:
            return self._table.column(name)
        values = []
        for index, serialized in enumerate(self.serialized):
            feature = examples.decode(serialized).get(name)
            if feature is None or len(feature) != 1:
                found = "none" if feature is None else str(len(feature))
                raise errors.UsageError(
                    f"{self.source}: expected one value of {name!r} in every example, found {found} in example {index}."
                )
            values.append(feature[0])
        return np.array(values)

    def client_names(self, name: str) -> np.ndarray:
        """[len(self)], the values that name the client of each example, as text: of a column the very text of the file.

        Raises:
          UsageError: as `values`; also when a value is empty.
        """
        if self._table is not None and name in self._table.columns:
            return self._table.text(name)
        if self._clients is not None and name == CLIENT:
            return self._clients
        names = [
            value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in self.values(name).tolist()
        ]
        if "" in names:
            raise errors.UsageError(f"{self.source}: {name!r} is empty in example {names.index('')}, and names no client.")
        return np.array(names, dtype=object)


def load_pool(text: str, *, group_column: Optional[str] = None) -> ExamplePool:
    """Loads a dataset.

    Args:
      text: `digits`, `mnist:PATH` (mnist.read_pictures), the path of a CSV or Parquet table, a TFRecord file, or a directory of them; a mapping to features may
        follow as in data_spec.
      group_column: a column of a table that names the client and therefore is no feature unless the mapping makes it one.

    Raises:
      StorageError: the source cannot be read or is damaged.
      UsageError: it is no such source, it is empty, or its content is not what it should be.
    """
    spec = parse_data_spec(text)
    if not spec.path.startswith(mnist.PREFIX):
        spec.accept_options("nonfinite")
    if spec.path == DIGITS:
        pool = _digits()
    elif spec.path.startswith(mnist.PREFIX):
        pictures = mnist.read_pictures(spec)
        pool = ExamplePool(spec.path, pictures.serialized(), clients=pictures.clients)
    elif (path := pathlib.Path(spec.path)) and (head := read_head(path)) is not None and is_table(path, head):
        return _from_table(spec, read_table(path), group_column)
    else:
        data = tfrecord_directory.TfRecordDirectory(path)
        pool = ExamplePool(spec.path, [example for client_id in data.client_ids for example in data.examples(client_id)])
    if not pool.serialized:
        raise errors.UsageError(f"{spec.path} holds no example.")
    if spec.features:
        pool.serialized = [_mapped(pool.source, index, example, spec) for index, example in enumerate(pool.serialized)]
    return pool


def _digits() -> ExamplePool:
    """The 1,797 digits of 8 x 8 pixels that ship inside scikit-learn: x float32 [64] in [0, 1], y int64 [1]."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise errors.UsageError("The digits dataset is part of scikit-learn.", next_step="pip install scikit-learn") from error
    digits = datasets.load_digits()
    # Pixels are counts from 0 to 16.
    pixels = (digits.data / 16).astype(np.float32)
    labels = digits.target.astype(np.int64)
    return ExamplePool(DIGITS, [examples.encode({"x": x, "y": y}) for x, y in zip(pixels, labels)])


def _from_table(spec: DataSpec, table: Table, group_column: Optional[str]) -> ExamplePool:
    without = [group_column] if group_column and not spec.features else []
    features = table.features(spec.features, without=without, keep_nonfinite=spec.keep_nonfinite)
    return ExamplePool(table.source, [table.example(features, row) for row in range(table.num_rows)], table)


def _mapped(source: str, index: int, serialized: bytes, spec: DataSpec) -> bytes:
    try:
        return examples.encode(map_features(examples.decode(serialized), spec.features))
    except (ValueError, errors.UsageError) as error:
        raise errors.UsageError(f"{source}, example {index}: {error}") from error
