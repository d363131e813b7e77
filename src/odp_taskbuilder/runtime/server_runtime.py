"""Executing the server's part of a Plan from the emitted files alone, in the order in which the server drives it.

A round is: `write_client_checkpoint`, the clients, `aggregate_updates` in as many sessions as there are aggregators, optionally
`merge_partials`, `apply`. Everything goes in and out as files, as on the server (spec: plan.md, sections 1.2, 1.3 and 4.6).
"""

from __future__ import annotations

import math
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Callable, Union

from odp_taskbuilder import errors
from odp_taskbuilder.proto import plan_pb2
from odp_taskbuilder.runtime import plan_files
from odp_taskbuilder.runtime.distribute_aggregate_server import DistributeAggregateServer
from odp_taskbuilder.runtime.map_reduce_server import MapReduceServer

Path = Union[str, "os.PathLike[str]"]
Server = Union[MapReduceServer, DistributeAggregateServer]


def load_plan(path: Path) -> plan_pb2.Plan:
    """Reads a Plan from a file.

    Raises:
      errors.StorageError: it cannot be read.
      errors.ArtifactError: it is none.
    """
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise errors.StorageError(f"Cannot read {path}: {error.strerror}.") from error
    return plan_files.parse_plan(content, pathlib.Path(path))


def open_server(plan: plan_pb2.Plan, *, keep_session: bool = False, seed_noise: bool = False) -> Server:
    """The runtime for a plan's form, which the server tells by the presence of `server_phase_v2`.

    Args:
      keep_session: keep the TensorFlow sessions of a role for its next use; saves about 50 ms each time.
      seed_noise: make the noise a function of a seed that each `apply` is given.

    Raises:
      errors.ArtifactError: the plan's graphs cannot be imported, or not be seeded.
    """
    if plan.phase[0].HasField("server_phase_v2"):
        return DistributeAggregateServer(plan, keep_session=keep_session, seed_noise=seed_noise)
    return MapReduceServer(plan, keep_session=keep_session, seed_noise=seed_noise)


def reduce_in_two_layers(inputs: Sequence[Path], reduce: Callable[[Sequence[Path], Path], None], directory: Path) -> list[Path]:
    """The first layer of the server's reduction of `inputs`: chunks of ceil(sqrt(n)), each reduced in its own session.

    Returns:
      The inputs of the second layer: `inputs` themselves when there is but one chunk, that is for one or two.
    """
    size = math.ceil(math.sqrt(len(inputs)))
    chunks = [inputs[start : start + size] for start in range(0, len(inputs), size)]
    if len(chunks) == 1:
        return list(inputs)
    outputs: list[Path] = []
    for chunk in chunks:
        handle, output = tempfile.mkstemp(dir=directory, suffix=".partial")
        os.close(handle)
        reduce(chunk, output)
        outputs.append(output)
    return outputs
