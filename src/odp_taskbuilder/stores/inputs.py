"""Reading models and configs from where they lie: local paths, file:// and gs:// URLs."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Callable, Union

from odp_taskbuilder.config import LoadedConfig, load_config, parse_config
from odp_taskbuilder.stores import TreeLimits, open_store
from odp_taskbuilder.transport import deadline as deadlines

Path = Union[str, "os.PathLike[str]"]

_MAX_CONFIG_BYTES = 1 << 20


def _is_url(place: Path) -> bool:
    return "://" in os.fspath(place)


def read_config(place: Path, network: deadlines.Network = deadlines.Network()) -> LoadedConfig:
    """Reads a task config from a file, a URL, or standard input (`-`).

    Raises:
      errors.ConfigError: a file cannot be read, or what was read is no text.
      errors.StorageError: a URL cannot be read.
    """
    if not _is_url(place):
        return load_config(place)
    url = os.fspath(place)
    deadline = deadlines.Deadline(network.deadline)
    content = deadlines.call_within(deadline, lambda: open_store(url, network, deadline).read(url, _MAX_CONFIG_BYTES))
    return parse_config(content, url)


@contextlib.contextmanager
def local_model(
    place: Path,
    stage: Callable[[str], contextlib.AbstractContextManager],
    network: deadlines.Network = deadlines.Network(),
) -> Iterator[pathlib.Path]:
    """The model's directory; a model at a URL is downloaded into a temporary one.

    Raises:
      errors.StorageError: a URL cannot be read, or holds more than a model does.
    """
    if not _is_url(place):
        yield pathlib.Path(place)
        return
    url = os.fspath(place)
    with tempfile.TemporaryDirectory(prefix="odp-task-model-") as scratch:
        target = pathlib.Path(scratch, "model")
        deadline = deadlines.Deadline(network.deadline)
        with stage("downloading the model"):
            deadlines.call_within(deadline, lambda: open_store(url, network, deadline).download_tree(url, target, TreeLimits()))
        yield target
