"""Metrics as a CSV table: one line per run and round, one column per metric."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Sequence

from odp_taskbuilder import errors
from odp_taskbuilder.metrics.run import Run, metric_names


def write_csv(runs: Sequence[Run], path: pathlib.Path) -> None:
    """Writes the table; a metric that a round lacks is an empty field, numbers are written in full precision.

    Raises:
      StorageError: the file cannot be written.
    """
    names = metric_names(runs)
    try:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["run", "round", *names])
            for run in runs:
                writer.writerows(
                    [run.name, number, *(values.get(name, "") for name in names)] for number, values in run.rounds.items()
                )
    except OSError as error:
        raise errors.StorageError(f"Cannot write {path}: {error.strerror}") from error
