"""TFF's older client data: one HDF5 file."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.data import examples, file_checksum, mapped
from odp_taskbuilder.data.client_data import ClientData

MAGIC = b"\x89HDF\r\n\x1a\n"


class Hdf5ClientData(ClientData):
    """One group a client, in the group `examples` if there is one, otherwise at the root; in a client's group one dataset a
    feature, whose first axis counts the examples. A client whose id has slashes lies in a group within groups, as HDF5 reads slashes.

    Opening lists the groups. `examples` reads all datasets of the client and encodes one example at a time.
    """

    def __init__(self, path: pathlib.Path, *, keep_nonfinite: bool = False):
        """Opens a file.

        Args:
          keep_nonfinite: NaN and infinities may be among the values.

        Raises:
          StorageError: the file is no sound HDF5 file.
          UsageError: it holds no client, or datasets where clients were expected.
        """
        import h5py

        self.source = str(path)
        self._keep_nonfinite = keep_nonfinite
        try:
            root = h5py.File(path, "r")
            self._examples = root["examples"] if isinstance(root.get("examples"), h5py.Group) else root
            self._datasets = self._datasets_by_group()
        except (OSError, RuntimeError, KeyError) as error:
            raise errors.StorageError(f"Cannot read {path}: {error}.") from error
        for client_id in self._datasets:
            inner = next((other for other in self._datasets if other.startswith(f"{client_id}/")), None)
            if inner is not None:
                raise errors.UsageError(
                    f"{path}: the group {client_id!r} holds datasets, as a client does, and the group {inner!r}.",
                    next_step="Expected one group per client, with one dataset per feature.",
                )
        if not self._datasets:
            raise errors.UsageError(f"{path} holds no group; expected one group per client, with one dataset per feature.")
        self.client_ids = tuple(sorted(self._datasets))

    def num_examples(self, client_id: str) -> int:
        features = self._datasets[client_id]
        shapes = {name: self._examples[f"{client_id}/{name}"].shape for name in features}
        lengths = {name: shape[0] if shape else 0 for name, shape in shapes.items()}
        if len(set(lengths.values())) != 1:
            found = ", ".join(f"{name} {length}" for name, length in lengths.items()) or "none"
            raise errors.UsageError(f"Client {client_id!r} of {self.source}: expected datasets of one length, found {found}.")
        return next(iter(lengths.values()))

    def fingerprint(self) -> str:
        return file_checksum.file_checksum(pathlib.Path(self.source))

    def examples(self, client_id: str) -> Iterator[bytes]:
        count = self.num_examples(client_id)
        features = {}
        for name in self._datasets[client_id]:
            try:
                features[name] = np.asarray(self._examples[f"{client_id}/{name}"][()])
                examples.kind_of(features[name])
            except OSError as error:
                raise errors.StorageError(f"Cannot read client {client_id!r} of {self.source}: {error}.") from error
            except (TypeError, ValueError) as error:
                raise errors.UsageError(f"Client {client_id!r} of {self.source}: dataset {name!r}: {error}.") from error
            for index in np.flatnonzero(~mapped.is_finite(features[name])) if not self._keep_nonfinite else ():
                raise errors.UsageError(
                    f"Client {client_id!r}, example {index} of {self.source}: dataset {name!r} is not finite as float32.",
                    next_step="Mend the data, or append ?nonfinite=keep to keep such values.",
                )
        for index in range(count):
            try:
                yield examples.encode({name: np.asarray(values[index]) for name, values in features.items()})
            except (TypeError, ValueError) as error:
                raise errors.UsageError(f"Client {client_id!r}, example {index} of {self.source}: {error}.") from error

    def _datasets_by_group(self) -> dict[str, list[str]]:
        """Group, relative to that of the examples -> the names of its datasets; groups without any are left out unless they are empty."""
        import h5py

        found: dict[str, list[str]] = {}
        has_groups = set()

        def visit(name: str, item: object) -> None:
            group, _, leaf = name.rpartition("/")
            if isinstance(item, h5py.Group):
                found.setdefault(name, [])
                has_groups.add(group)
            elif group:
                found[group].append(leaf)

        # Every object is visited once, whatever links there are; links to other files are not followed.
        self._examples.visititems(visit)
        return {group: sorted(names) for group, names in found.items() if names or group not in has_groups}
