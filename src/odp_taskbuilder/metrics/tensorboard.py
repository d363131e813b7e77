"""TensorBoard event files, written without TensorFlow: TFRecords of Event messages."""

from __future__ import annotations

import os
import pathlib
import re
import socket
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Union

from odp_taskbuilder import errors
from odp_taskbuilder.data import tfrecord
from odp_taskbuilder.metrics.run import Run

# Makes TensorFlow's protos importable without TensorFlow.
import odp_taskbuilder.proto  # noqa: F401  # isort: skip

from tensorboard.plugins.hparams import plugin_data_pb2  # isort: skip
from tensorflow.core.framework import tensor_pb2, types_pb2  # isort: skip
from tensorflow.core.util import event_pb2  # isort: skip

# What TensorBoard's plugin for hyperparameters looks for (its metadata.py, whose import takes half a second).
_HPARAMS_PLUGIN, _HPARAMS_TAG = "hparams", "_hparams_/session_start_info"

# Ends the names of our event files.
_OWN_SUFFIX = ".odp-task"


class EventFile:
    """Scalars of one run. Every call is on disk when it returns, so that TensorBoard can follow."""

    def __init__(self, directory: pathlib.Path, *, replace: bool):
        """Makes a new event file in a directory, beside those that are there.

        Args:
          replace: remove the event files that an EventFile made there before.

        Raises:
          StorageError: it cannot be written, or a former one cannot be removed.
        """
        # TensorBoard reads a directory's files in the order of their names, which starts with the time.
        name = f"events.out.tfevents.{time.time_ns():020d}.{socket.gethostname()}.{os.getpid()}{_OWN_SUFFIX}"
        self._path = directory / name
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for former in directory.glob(f"events.out.tfevents.*{_OWN_SUFFIX}") if replace else ():
                former.unlink()
        except OSError as error:
            raise errors.StorageError(f"Cannot write {directory}: {error.strerror}") from error
        self._append(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Appends values.

        Args:
          step: round number.
          values: tag to value; stored as float32.

        Raises:
          StorageError: the file cannot be written.
        """
        event = event_pb2.Event(wall_time=time.time(), step=step)
        for tag, value in values.items():
            event.summary.value.add(tag=tag, simple_value=value)
        self._append(event)

    def add_hyperparameters(self, values: Mapping[str, Union[str, float]], group: str) -> None:
        """Says with which hyperparameters the scalars came about, for TensorBoard's table of runs.

        Args:
          values: name to value.
          group: the event files of one run have the same, and make one line of the table.

        Raises:
          StorageError: the file cannot be written.
        """
        now = time.time()
        session = plugin_data_pb2.SessionStartInfo(group_name=group, start_time_secs=now)
        for name, value in values.items():
            if isinstance(value, str):
                session.hparams[name].string_value = value
            else:
                session.hparams[name].number_value = value
        event = event_pb2.Event(wall_time=now)
        # The plugin reads the metadata; a value has to have content all the same.
        value = event.summary.value.add(tag=_HPARAMS_TAG, tensor=tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT))
        value.tensor.tensor_shape.dim.add(size=0)
        value.metadata.plugin_data.plugin_name = _HPARAMS_PLUGIN
        value.metadata.plugin_data.content = plugin_data_pb2.HParamsPluginData(session_start_info=session).SerializeToString()
        self._append(event)

    def _append(self, event: event_pb2.Event) -> None:
        try:
            with open(self._path, "ab") as file:
                file.write(tfrecord.frame(event.SerializeToString()))
        except OSError as error:
            raise errors.StorageError(f"Cannot write {self._path}: {error.strerror}") from error


def write_summaries(
    runs: Sequence[Run], logdir: pathlib.Path, hyperparameters: Mapping[str, Mapping[str, Union[str, float]]] = MappingProxyType({})
) -> None:
    """Writes one directory of scalars per run, tagged by metric name, in place of what it wrote there before.

    Args:
      hyperparameters: by group of runs, where they are known.

    Raises:
      StorageError: a file cannot be written.
    """
    for run, name in zip(runs, _directory_names([run.name for run in runs])):
        events = EventFile(logdir / name, replace=True)
        if run.group in hyperparameters:
            events.add_hyperparameters(hyperparameters[run.group], run.group)
        for number, values in run.rounds.items():
            events.add_scalars(number, values)


def _directory_names(labels: Sequence[str]) -> list[str]:
    """A name for each label that stays inside the log directory and is no other's."""
    names: list[str] = []
    for label in labels:
        # A label may be a whole path, or `..`.
        name = wanted = re.sub(r"[/\\:\0]+", "_", label).strip("._ ") or "run"
        number = 1
        while name in names:
            number += 1
            name = f"{wanted} ({number})"
        names.append(name)
    return names
