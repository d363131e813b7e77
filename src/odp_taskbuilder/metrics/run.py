"""The metrics of one task over its rounds."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Callable

from odp_taskbuilder import errors
from odp_taskbuilder.base import plain_text

# How the names of those metrics begin that a simulation adds to the plan's.
COMMUNICATION_PREFIX, PROGRESS_PREFIX = SIMULATION_PREFIXES = ("communication/", "simulation/")
# Bytes of all training rounds until a round of either task, both ways: of files, and after gzip.
TRAINING_BYTES = f"{COMMUNICATION_PREFIX}training_bytes_cumulative"
TRAINING_WIRE_BYTES = f"{COMMUNICATION_PREFIX}training_wire_bytes_cumulative"

# Of a round: the training round whose checkpoint it read.
CHECKPOINT_METRIC = f"{PROGRESS_PREFIX}checkpoint_round"

# A metrics file holds some twenty numbers under names of some forty characters.
MAX_BYTES = 1 << 20
_MAX_METRICS = 1000
_MAX_NAME = 1000

_GZIP_MAGIC = b"\x1f\x8b"
# Makes zlib expect gzip's header.
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


@dataclasses.dataclass(frozen=True)
class Run:
    """One task, as far as it has run.

    Attributes:
      name: tells it from the other runs that are shown with it.
      rounds: round number to metric name to value, in ascending order; rounds without metrics are left out.
      group: the tasks of one run directory or bucket have the same.
      evaluated: round number to the training round whose checkpoint an evaluation round read, where that is known.
    """

    name: str
    rounds: Mapping[int, Mapping[str, float]]
    group: str = ""
    evaluated: Mapping[int, int] = dataclasses.field(default_factory=dict)

    def metric_names(self) -> list[str]:
        """All metrics that some round has, in the order of their first appearance."""
        return list(dict.fromkeys(name for values in self.rounds.values() for name in values))

    def missing_rounds(self) -> list[int]:
        """Rounds between the first and the last that have no metrics."""
        return sorted(set(range(min(self.rounds), max(self.rounds))) - set(self.rounds)) if self.rounds else []

    def only(self, patterns: Sequence[str]) -> Run:
        """The run with those metrics whose name, or the end of it behind a slash, matches one of the shell patterns."""
        return self._filtered(
            lambda name: any(fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name, f"*/{pattern}") for pattern in patterns)
        )

    def published(self) -> Run:
        """The run with the metrics that a server would publish, without what a simulation adds to them."""
        return self._filtered(lambda name: not name.startswith(SIMULATION_PREFIXES))

    def _filtered(self, is_wanted: Callable[[str], bool]) -> Run:
        wanted = set(filter(is_wanted, self.metric_names()))
        rounds = {
            number: {name: value for name, value in values.items() if name in wanted} for number, values in self.rounds.items()
        }
        return dataclasses.replace(self, rounds=rounds)


def select(runs: Sequence[Run], patterns: Sequence[str]) -> list[Run]:
    """The runs with the metrics that match one of the patterns (Run.only).

    Raises:
      UsageError: a pattern matches no metric of any run.
    """
    for pattern in patterns:
        if not any(run.only([pattern]).metric_names() for run in runs):
            names = metric_names(runs)
            close = difflib.get_close_matches(pattern, [*names, *(name.rpartition("/")[2] for name in names)], n=1)
            # `accuracy` resembles `sparse_categorical_accuracy` in nothing but that it is a part of it.
            close = close or [f"*{pattern}*" for name in names if pattern in name]
            meant = f" Did you mean {close[0]!r}?" if close else ""
            raise errors.UsageError(f"There is no metric {pattern!r}.{meant}", next_step=f"There are: {', '.join(names) or 'none'}.")
    return [run.only(patterns) for run in runs]


def metric_names(runs: Sequence[Run]) -> list[str]:
    """All metrics of several runs, in the order of their first appearance."""
    return list(dict.fromkeys(name for run in runs for name in run.metric_names()))


def short_name(metric: str) -> str:
    """A metric's name without the parts that all metrics of its kind share: `server/client_work/train/loss` is `train/loss`."""
    for prefix in ("server/client_work/", "server/"):
        if metric.startswith(prefix):
            return metric[len(prefix) :]
    return metric


def parse_metrics(content: bytes) -> dict[str, float]:
    """Reads a metrics file of the server (spec: http_api.md, section 6.1), gzip-compressed or not; NaN and Infinity may
    stand bare in it.

    Raises:
      ValueError: it is no such file.
    """
    if content.startswith(_GZIP_MAGIC):
        content = _decompressed(content)
    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes")
    try:
        document = json.loads(content.decode("utf-8"), parse_int=_number, parse_float=_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("expected a JSON object of numbers")
    if len(document) > _MAX_METRICS:
        raise ValueError(f"{len(document):,} metrics; at most {_MAX_METRICS:,} are expected")
    for name, value in document.items():
        if len(name) > _MAX_NAME:
            raise ValueError(f"a name of {len(name):,} characters; at most {_MAX_NAME:,} are expected")
        if plain_text.escaped(name) != name:
            raise ValueError(f"the name {name!a} has characters that do not belong into one")
        if not isinstance(value, float):
            raise ValueError(f"expected a number as the value of {name!r}, found {_kind(value)}")
    return document


def _decompressed(content: bytes) -> bytes:
    """The content of a gzip file, as far as its size is that of a metrics file; one byte more tells that it is not."""
    expansion = zlib.decompressobj(_GZIP_WINDOW)
    try:
        plain = expansion.decompress(content, MAX_BYTES + 1)
    except zlib.error as error:
        raise ValueError(f"not a sound gzip file ({error})") from error
    if len(plain) <= MAX_BYTES and not expansion.eof:
        raise ValueError("not a sound gzip file (it is cut off)")
    return plain


def _number(text: str) -> float:
    # Integers, too: to convert one of any length to an integer takes time that grows with the square of it.
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is beyond the range of float64")
    return value


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}.get(type(value), "nothing")


def format_metrics(metrics: Mapping[str, float]) -> bytes:
    """Writes a metrics file as the server does: bare NaN and Infinity, a comma and a blank between entries."""
    return json.dumps(metrics, separators=(", ", ":")).encode("utf-8")
