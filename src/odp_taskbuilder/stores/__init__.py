"""Where models, configs and artifacts lie: directories and buckets behind one interface.

    store = open_store("gs://bucket/models/digits", network, deadline)
    store.download_tree("gs://bucket/models/digits", scratch / "model", TreeLimits())
    store.write("gs://bucket/plans/plan.pb", pathlib.Path("plan.pb"))

Names of files and objects are checked before anything is written (urls.py).

Uses artifacts/ (digests), config/ and transport/. Which artifact goes where, and in what order, is push/'s.
"""

from __future__ import annotations

import pathlib

from odp_taskbuilder.stores import local, urls
from odp_taskbuilder.stores.base import Outcome, Store, StoredObject, TreeLimits
from odp_taskbuilder.transport import deadline as deadlines

__all__ = ["Outcome", "Store", "StoredObject", "TreeLimits", "open_store"]


def open_store(url: str, network: deadlines.Network, deadline: deadlines.Deadline) -> Store:
    """The store that `url` belongs to.

    Google's client, half a second of imports, is loaded for gs:// only.

    Raises:
      errors.StorageError: no such kind of place, or no credentials for it.
    """
    if isinstance(urls.parse(url), pathlib.Path):
        return local.LocalStore()
    from odp_taskbuilder.stores import gcs

    return gcs.BucketStore(network, deadline)
