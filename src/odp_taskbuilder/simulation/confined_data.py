"""Which files a confined worker must be able to read for its clients' data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Union

from odp_taskbuilder.base.cache import cache_directory
from odp_taskbuilder.data.data_spec import parse_data_spec
from odp_taskbuilder.data.part import DataPart

# What SQLite keeps beside a database.
_SQLITE_SUFFIXES = ("-wal", "-shm", "-journal")


def readable_data(arguments: Iterable[Union[str, DataPart]]) -> tuple[str, ...]:
    """Files and directories that reading client data needs, whether they exist or not.

    Args:
      arguments: data arguments (data.data_spec), or parts of what they name.
    """
    texts = {argument.text if isinstance(argument, DataPart) else argument for argument in arguments}
    paths = dict.fromkeys(path for text in sorted(texts) for path in _paths(parse_data_spec(text).path))
    # Where compressed databases are unpacked.
    return (*paths, str(cache_directory()))


def _paths(path: str) -> Iterator[str]:
    yield path
    if not os.path.isdir(path):
        yield from (os.path.realpath(path) + suffix for suffix in _SQLITE_SUFFIXES)
        return
    for folder, folders, files in os.walk(path):
        # A directory may be one of links to files elsewhere.
        yield from (link for link in (os.path.join(folder, name) for name in (*folders, *files)) if os.path.islink(link))
