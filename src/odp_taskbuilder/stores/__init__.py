"""Where models, configs and artifacts lie: directories and buckets behind one interface.

    store = open_store("gs://bucket/models/digits", network, deadline)
    store.download_tree("gs://bucket/models/digits", scratch / "model", TreeLimits())
    store.write("gs://bucket/plans/plan.pb", pathlib.Path("plan.pb"))

Names of files and objects are checked before anything is written (urls.py).

Uses artifacts/ (digests), config/ and transport/. Which artifact goes where, and in what order, is push/'s.
"""

from odp_taskbuilder.stores.base import Outcome, Store, StoredObject, TreeLimits
from odp_taskbuilder.stores.opening import open_store

__all__ = ["Outcome", "Store", "StoredObject", "TreeLimits", "open_store"]
