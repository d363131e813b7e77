"""The interface between client data and those who use it."""

from __future__ import annotations

import abc
from collections.abc import Iterator


class ClientData(abc.ABC):
    """The examples of many clients.

    Every implementation keeps the client ids and whatever locates a client's examples in memory, the examples themselves
    only where its docstring says so. Access by client id is random access: its cost does not depend on the other clients
    unless stated. An object belongs to the process that opened it.

    Attributes:
      source: what was opened, for messages.
      client_ids: all clients, sorted as strings, so that sampling by position does not depend on the order in a file.
    """

    source: str
    client_ids: tuple[str, ...]

    @abc.abstractmethod
    def num_examples(self, client_id: str) -> int:
        """The number of examples of one client.

        Raises:
          StorageError: the client's data cannot be read.
        """

    @abc.abstractmethod
    def examples(self, client_id: str) -> Iterator[bytes]:
        """Yields the client's examples, each one a serialized `tf.train.Example`, always in the same order.

        Raises:
          StorageError: the client's data cannot be read, or is damaged.
          UsageError: it can be read, but its content is not what it should be.
        """

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A digest of all clients' examples, as cheap as the format allows: it tells data that was changed from data that
        was not, wherever the files are.

        Raises:
          StorageError: the data cannot be read.
        """

    def location(self, client_id: str) -> str:
        """Where the client's examples are, for messages."""
        return self.source
