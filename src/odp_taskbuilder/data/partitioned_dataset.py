"""Makes client data from one dataset: loads it, deals it over clients, writes directories of TFRecord files."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Optional

import numpy as np

from odp_taskbuilder import errors
from odp_taskbuilder.artifacts import directory
from odp_taskbuilder.base.stages import Stage, unannounced
from odp_taskbuilder.data import partition, tfrecord
from odp_taskbuilder.data.describe import DataDescription, describe
from odp_taskbuilder.data.partition import Assignment
from odp_taskbuilder.data.pool import ExamplePool, load_pool
from odp_taskbuilder.data.tfrecord_directory import TfRecordDirectory

# What `data partition` wrote, so that writing it again may replace it.
_LISTING, _PRODUCER = "partition.json", "odp-task data partition"
# Drawing from a Dirichlet distribution takes a time that grows with 1/alpha, and below this value nothing else comes of it.
MIN_ALPHA = 1e-4


def partition_dataset(
    source: str,
    output: pathlib.Path,
    *,
    strategy: str,
    num_clients: Optional[int] = None,
    label: str = "y",
    alpha: float = 1.0,
    column: Optional[str] = None,
    test_fraction: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
    stage: Stage = unannounced,
) -> dict[str, DataDescription]:
    """Deals a dataset over clients and writes it.

    Args:
      source: `digits`, a CSV or Parquet table, a TFRecord file or a directory of them (pool.load_pool); held in memory.
      output: directory to make; with a test fraction it gets the parts `train` and `test`, otherwise it holds the client files.
      strategy: `iid` and `dirichlet` deal to `num_clients` clients, `dirichlet` by `label` with concentration `alpha` of at least MIN_ALPHA;
        `column` makes one client of every value of `column`.
      test_fraction: share of each client's examples that goes to `test`.
      overwrite: replace an output that holds something else than a former output of this, as it was written.
      stage: told what takes long.

    Returns:
      What was written, by part; the name of the part is empty without a test fraction.

    Raises:
      UsageError: the source does not fit, or the strategy lacks what it needs.
      StorageError: reading or writing failed, or the output holds other files; nothing was written then.
    """
    if strategy == "column" and column is None:
        raise errors.UsageError("Strategy `column` needs the column that names the client.", next_step="Add --column NAME.")
    if not (math.isfinite(alpha) and alpha >= MIN_ALPHA):
        raise errors.UsageError(
            f"alpha must be a number of at least {MIN_ALPHA:g}, found {alpha:g}.",
            next_step="Below that every client holds one label, as far as there is one left.",
        )
    if strategy != "column" and num_clients is None:
        raise errors.UsageError(f"Strategy `{strategy}` needs the number of clients.", next_step="Add --clients K.")
    directory.check_destination(output, overwrite=overwrite, former_output=_former_output)
    with stage("reading the dataset"):
        pool = load_pool(source, group_column=column)
    rng = np.random.default_rng(seed)
    if strategy == "iid":
        assignment = partition.partition_iid(len(pool), num_clients, rng)
    elif strategy == "dirichlet":
        assignment = partition.partition_dirichlet(pool.values(label), num_clients, alpha, rng)
    else:
        assignment = partition.partition_by_column(pool.client_names(column))
    if test_fraction > 0:
        train, test = partition.split_each_client(assignment, test_fraction, rng)
        parts = {"train": train, "test": test}
    else:
        parts = {"": assignment}
    with stage("writing the clients' files"):
        write_partition(pool, parts, output, overwrite=overwrite)
    with stage("describing the clients"):
        return {part: describe(TfRecordDirectory(output / part), label) for part in parts}


def write_partition(
    pool: ExamplePool, parts: Mapping[str, Assignment], output: pathlib.Path, *, overwrite: bool = False
) -> None:
    """Writes `output/PART/CLIENT.tfrecord`, or `output/CLIENT.tfrecord` for a part named by the empty string.

    Raises:
      StorageError: the output holds other files, or cannot be written; it is as it was then.
    """
    with directory.staged_directory(output, overwrite=overwrite, former_output=_former_output) as staging:
        for part, assignment in parts.items():
            (staging / part).mkdir(exist_ok=True)
            for client_id, positions in assignment.items():
                path = staging / part / f"{client_id}.tfrecord"
                if path.exists():
                    raise errors.StorageError(
                        f"The file system of {output} takes {path.name} for the file of another client, whose name differs in case only.",
                        next_step="Write to a file system that tells upper and lower case apart, or rename the clients.",
                    )
                tfrecord.write_records(path, (pool.serialized[position] for position in positions))
        (staging / _LISTING).write_text(
            json.dumps({"producer": _PRODUCER, "files": _listing(staging)}, indent=2) + "\n", encoding="utf-8"
        )


def _listing(output: pathlib.Path) -> dict[str, int]:
    """Path and size of every file below a directory, but for the listing itself."""
    files = (path for path in sorted(output.rglob("*")) if path.is_file() and path != output / _LISTING)
    return {path.relative_to(output).as_posix(): path.stat().st_size for path in files}


def _former_output(output: pathlib.Path) -> set[str]:
    """Names of what lies in a directory, if that is what write_partition left there and nothing else; else nothing."""
    try:
        document = json.loads((output / _LISTING).read_bytes())
    except (OSError, ValueError, RecursionError):
        return set()
    if not isinstance(document, dict) or document.get("producer") != _PRODUCER or document.get("files") != _listing(output):
        return set()
    return {path.name for path in output.iterdir()}
