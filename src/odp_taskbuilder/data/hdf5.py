"""TFF's older client data: one HDF5 file."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.data import examples, file_checksum
from odp_taskbuilder.data.client_data import ClientData

MAGIC = b"\x89HDF\r\n\x1a\n"


class Hdf5ClientData(ClientData):
    """One group a client, in the group `examples` if there is one, otherwise at the root; in a client's group one dataset a
    feature, whose first axis counts the examples.

    Opening lists the groups. `examples` reads all datasets of the client and encodes one example at a time.
    """

    def __init__(self, path: pathlib.Path):
        """Opens a file.

        Raises:
          StorageError: the file is no sound HDF5 file.
          UsageError: it holds no client.
        """
        import h5py

        self.source = str(path)
        try:
            root = h5py.File(path, "r")
        except OSError as error:
            raise errors.StorageError(f"Cannot read {path}: {error}.") from error
        groups = root["examples"] if isinstance(root.get("examples"), h5py.Group) else root
        self._groups = {name: group for name, group in groups.items() if isinstance(group, h5py.Group)}
        if not self._groups:
            raise errors.UsageError(f"{path} holds no group; expected one group per client, with one dataset per feature.")
        self.client_ids = tuple(sorted(self._groups))

    def num_examples(self, client_id: str) -> int:
        lengths = {name: dataset.shape[0] if dataset.shape else 0 for name, dataset in self._groups[client_id].items()}
        if len(set(lengths.values())) != 1:
            found = ", ".join(f"{name} {length}" for name, length in lengths.items()) or "none"
            raise errors.UsageError(f"Client {client_id!r} of {self.source}: expected datasets of one length, found {found}.")
        return next(iter(lengths.values()))

    def fingerprint(self) -> str:
        return file_checksum.file_checksum(pathlib.Path(self.source))

    def examples(self, client_id: str) -> Iterator[bytes]:
        count = self.num_examples(client_id)
        try:
            features = {name: dataset[()] for name, dataset in self._groups[client_id].items()}
        except OSError as error:
            raise errors.StorageError(f"Cannot read client {client_id!r} of {self.source}: {error}.") from error
        for index in range(count):
            yield examples.encode({name: np.asarray(values[index]) for name, values in features.items()})
