"""A download that phones accept, made from a table."""

from __future__ import annotations

import base64
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.android.download_rules import ENCODINGS, SECONDS_PER_TOKEN, check_download, token_problem
from odp_taskbuilder.android.problems import Places
from odp_taskbuilder.base.phone_limits import MAX_EXAMPLE_BYTES
from odp_taskbuilder.data import tfrecord
from odp_taskbuilder.data.open import is_table, read_head
from odp_taskbuilder.data.rows import json_rows
from odp_taskbuilder.data.table import read_table

NOW = "now"
_COLUMNS = ("key", "data", "encoding")


def sync_token(text: str, last: Optional[int] = None) -> int:
    """A token as people write it: seconds since 1970 on the hour, or `now`, rounded down to the hour.

    Raises:
      UsageError: phones drop a download with it.
    """
    if text == NOW:
        token = int(time.time()) // SECONDS_PER_TOKEN * SECONDS_PER_TOKEN
    elif text.isascii() and text.isdecimal() and len(text) < 20:
        token = int(text)
    else:
        raise errors.UsageError(f"The sync token must be `{NOW}` or seconds since 1970, found {text[:40]!r}.")
    problem = token_problem(token, last)
    if problem:
        raise errors.UsageError(f"{problem[0]}.", next_step=problem[1])
    return token


def make_download(path: pathlib.Path, token: int, *, population_name: Optional[str] = None) -> str:
    """The JSON of a download.

    Args:
      path: a table, or JSON objects, with `key`, `data` and, if need be, `encoding`; or a TFRecord file, whose examples get the keys
        POPULATION/NUMBER under which an app made by `odp-task android` looks for them.
      token: as `sync_token`.
      population_name: of the examples in a TFRecord file.

    Raises:
      StorageError: the file cannot be read.
      UsageError: an entry is not what a phone takes; names its place.
    """
    head = read_head(path)
    if head is not None and is_table(path, head):
        entries = list(_table_entries(path))
    elif head is not None and tfrecord.begins_file(head):
        if not population_name:
            raise errors.UsageError(f"{path} holds examples: of which population?", next_step="Add --population_name NAME.")
        entries = list(_example_entries(path, population_name))
    else:
        entries = [(place, row) for place, row in json_rows(str(path))]
    seen: dict[Any, str] = {}
    for place, entry in entries:
        key = entry.get("key")
        if isinstance(key, str) and key in seen:
            raise errors.UsageError(f"{place}: the key {key!r} stands in {seen[key]} too; a phone keeps the last one only.")
        seen[key if isinstance(key, str) else place] = place
        # Every entry is checked as a phone would get it.
        places = Places(place, json.dumps({"syncToken": token, "contents": [entry]}))
        check_download(places)
        for problem in places.problems:
            raise errors.UsageError(f"{place}: {problem.message}.", next_step=problem.fix)
    document = {"syncToken": token, "contents": [entry for _, entry in entries]}
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def _table_entries(path: pathlib.Path) -> Iterator[tuple[str, dict[str, str]]]:
    table = read_table(path)
    for name in table.columns:
        if name not in _COLUMNS:
            raise errors.UsageError(f"{path}: a download has no {name!r}.", next_step=f"The columns are {', '.join(_COLUMNS)}.")
    columns: dict[str, Any] = {
        name: table.column(name, "string") for name in _COLUMNS if name in table.columns or name != "encoding"
    }
    for row in range(table.num_rows):
        entry = {name: values[row].decode(errors="replace") for name, values in columns.items()}
        if not entry.get("encoding"):
            entry.pop("encoding", None)
        yield table.place(row), entry


def _example_entries(path: pathlib.Path, population_name: str) -> Iterator[tuple[str, dict[str, str]]]:
    for number, record in enumerate(tfrecord.read_records(path)):
        if len(record) > MAX_EXAMPLE_BYTES:
            raise errors.UsageError(
                f"{path}, example {number} has {len(record):,} bytes; phones take none above {MAX_EXAMPLE_BYTES:,}.",
                next_step="Make its features smaller in the model's input_spec.",
            )
        # An app takes examples in the order of their keys.
        entry = {"key": f"{population_name}/{number:08d}", "data": base64.b64encode(record).decode(), "encoding": ENCODINGS[1]}
        yield f"{path}, example {number}", entry
