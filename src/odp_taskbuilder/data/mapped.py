"""Client data whose features go by other names, or are of another kind, than the model wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Optional

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.data import examples
from odp_taskbuilder.data.client_data import ClientData
from odp_taskbuilder.data.data_spec import FeatureSource


class MappedClientData(ClientData):
    """Another ClientData with its features renamed, converted or joined; decodes and encodes each example when it is asked
    for."""

    def __init__(self, inner: ClientData, features: Sequence[FeatureSource]):
        self.source = inner.source
        self.client_ids = inner.client_ids
        self._inner = inner
        self._features = tuple(features)

    def num_examples(self, client_id: str) -> int:
        return self._inner.num_examples(client_id)

    def examples(self, client_id: str) -> Iterator[bytes]:
        for index, serialized in enumerate(self._inner.examples(client_id)):
            try:
                yield examples.encode(map_features(examples.decode(serialized), self._features))
            except (ValueError, errors.UsageError) as error:
                raise errors.UsageError(
                    f"Client {client_id!r}, example {index} of {self.location(client_id)}: {error}"
                ) from error

    def fingerprint(self) -> str:
        return f"{self._inner.fingerprint()} {self._features!r}"

    def location(self, client_id: str) -> str:
        return self._inner.location(client_id)


def map_features(values: Mapping[str, np.ndarray], features: Sequence[FeatureSource]) -> dict[str, np.ndarray]:
    """Makes the features of one example from named values.

    Raises:
      UsageError: a column is missing.
      ValueError: a value does not convert.
    """
    return {
        feature.name: convert(np.concatenate([np.ravel(values[name]) for name in feature.matches(list(values))]), feature.kind)
        for feature in features
    }


def convert(values: np.ndarray, kind: Optional[str]) -> np.ndarray:
    """Converts an array to a kind, keeping its shape; None leaves it as it is.

    Raises:
      ValueError: a value does not convert; floating-point numbers become int64 only when they are whole.
    """
    if kind is None or examples.kind_of(values) == kind:
        return values
    if kind == "string":
        return np.array([str(value).encode() for value in values.ravel().tolist()], dtype=object).reshape(values.shape)
    if kind == "int64" and np.issubdtype(values.dtype, np.floating):
        if not np.array_equal(values, np.trunc(values)):
            raise ValueError("a number with a fraction cannot become int64")
        if np.abs(values).max(initial=0) >= 2.0**63:
            raise ValueError("a number beyond 64 bits cannot become int64")
    try:
        return values.astype(examples.numpy_dtype(kind))
    except OverflowError as error:
        raise ValueError(f"a number is too large for {kind}") from error


def is_finite(values: np.ndarray) -> np.ndarray:
    """[...], of rows with several values [rows]: whether the values are finite once they are float32; text always is."""
    if not np.issubdtype(values.dtype, np.floating):
        return np.ones(values.shape[:1], bool)
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32))
    return finite.reshape(len(values), -1).all(axis=1) if values.ndim else finite
