"""Chooses the store for a URL."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator

from odp_taskbuilder.stores import base, local, urls
from odp_taskbuilder.transport import deadline as deadlines


def open_store(url: str, network: deadlines.Network, deadline: deadlines.Deadline) -> base.Store:
    """The store that `url` belongs to.

    Google's client, half a second of imports, is loaded for gs:// only.

    Raises:
      errors.StorageError: no such kind of place, or no credentials for it.
    """
    if isinstance(urls.parse(url), pathlib.Path):
        return local.LocalStore()
    from odp_taskbuilder.stores import gcs

    return gcs.BucketStore(network, deadline)


@contextlib.contextmanager
def readable_tree(
    url: str,
    network: deadlines.Network = deadlines.Network(),  # noqa: B008
    limits: base.TreeLimits = base.TreeLimits(),  # noqa: B008
) -> Iterator[pathlib.Path]:
    """A local directory with what is below `url`: the directory itself, or a copy of a bucket's objects that ends with the context.

    Raises:
      errors.StorageError: there is nothing, it cannot be read, or it is more than `limits`.
    """
    place = urls.parse(url)
    if isinstance(place, pathlib.Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="odp-task-") as scratch:
        target = pathlib.Path(scratch, place.name.rpartition("/")[2] or place.bucket)
        deadline = deadlines.Deadline(network.deadline)
        store = open_store(url, network, deadline)
        deadlines.call_within(deadline, lambda: store.download_tree(url, target, limits))
        yield target
