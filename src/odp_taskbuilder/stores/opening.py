"""Chooses the store for a URL."""

from __future__ import annotations

import pathlib

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
