"""The text that names client data on a command line: `PATH[?OPTION=VALUE&...]`.

    clients/                                            as it stands
    emnist.sqlite?split=digits_only_train               one split of TFF's file
    emnist.sqlite?split=all_train&x=pixels&y=label      its features under the names that the model wants
    users.csv?client=user&x:float32=pixel_*&y=label     a table: feature x from the columns pixel_0, pixel_1, ... in their order
    users.csv?client=user&nonfinite=keep                values that are not finite as float32 are kept, not refused
    clients/?clients=100000&examples=20&seed=1          more clients: each draws 20 examples, with repetition, from one of those
    synthetic?clients=100&examples=20&seed=1&classes=10
    mnist:data?split=train&layout=columns               pictures (partition only)

A key that is no option is a feature: `NAME[:KIND]=COLUMN[,COLUMN...]` with KIND float32, int64 or string.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from collections.abc import Sequence
from typing import Optional

from odp_taskbuilder import errors
from odp_taskbuilder.data import examples

_OPTIONS = ("client", "split", "clients", "examples", "seed", "classes", "nonfinite")


@dataclasses.dataclass(frozen=True)
class FeatureSource:
    """Where one feature of an example comes from.

    Attributes:
      name: the feature's name in the example.
      kind: float32, int64 or string; None keeps the kind of the values.
      columns: column names or shell patterns; several columns are concatenated in the order given here.
    """

    name: str
    kind: Optional[str]
    columns: tuple[str, ...]

    def matches(self, available: Sequence[str]) -> list[str]:
        """The names among `available` that this feature is made of.

        Raises:
          UsageError: a column or pattern matches nothing.
        """
        found: list[str] = []
        for column in self.columns:
            # A column may be called `a[0]`, which is also a pattern: the literal name goes first.
            names = [column] if column in available else fnmatch.filter(available, column)
            if not names:
                raise errors.UsageError(
                    f"Feature {self.name!r} wants column {column!r}, which is not there.",
                    next_step=f"There are: {', '.join(available)}.",
                )
            found += names
        return found


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """A parsed data argument."""

    path: str
    options: dict[str, str]
    features: tuple[FeatureSource, ...]

    @property
    def keep_nonfinite(self) -> bool:
        """Whether values that are not finite are to be kept.

        Raises:
          UsageError: the option has another value than `keep`.
        """
        value = self.options.get("nonfinite")
        if value not in (None, "keep"):
            raise errors.UsageError(f"{self.path}: nonfinite can only be `keep`, found {value!r}.")
        return value is not None

    def integer(self, option: str, default: int, minimum: int, maximum: int) -> int:
        """The value of a numeric option.

        Raises:
          UsageError: it is no integer, or out of bounds.
        """
        text = self.options.get(option, str(default))
        # Thousands of digits take Python minutes to convert.
        if not (text.isascii() and text.isdecimal() and len(text) < 30 and minimum <= int(text) <= maximum):
            raise errors.UsageError(
                f"{self.path}: {option} must be an integer from {minimum:,} to {maximum:,}, found {text[:40]!r}."
            )
        return int(text)

    def accept_options(self, *known: str) -> None:
        """Refuses options that have no meaning for this kind of data.

        Raises:
          UsageError: names the first one.
        """
        for option in self.options:
            if option not in known:
                allowed = f"It takes: {', '.join(known)}." if known else "It takes no option."
                raise errors.UsageError(f"{self.path} has no option {option!r}.", next_step=allowed)

    def accept_features(self, known: Sequence[str]) -> None:
        """Refuses features that nobody will read: they are mistyped, or options of that name were meant.

        Raises:
          UsageError: names the first one.
        """
        for feature in self.features:
            if feature.name not in known:
                raise errors.UsageError(
                    f"{self.path}: {feature.name!r} is neither an option nor a feature of the plan.",
                    next_step=f"The options are {', '.join(_OPTIONS)}; the plan's features are {', '.join(known)}.",
                )


def parse_data_spec(text: str) -> DataSpec:
    """Splits a data argument.

    Raises:
      UsageError: a part behind the question mark is not `KEY=VALUE`, or a feature's kind is unknown.
    """
    path, mark, query = text.rpartition("?")
    # A question mark is legal in a file name.
    if not mark or os.path.exists(text):
        return DataSpec(text, {}, ())
    options: dict[str, str] = {}
    features: list[FeatureSource] = []
    for item in query.split("&"):
        key, equals, value = item.partition("=")
        if not equals or not key or not value:
            raise errors.UsageError(f"Cannot read {item!r} in the data argument {text!r}: expected KEY=VALUE.")
        if key in _OPTIONS or (key == "layout" and path.startswith("mnist:")):
            options[key] = value
            continue
        name, _, kind = key.partition(":")
        if kind and kind not in examples.KINDS:
            raise errors.UsageError(
                f"Unknown kind {kind!r} of feature {name!r} in {text!r}; there are {', '.join(examples.KINDS)}."
            )
        features.append(FeatureSource(name, kind or None, tuple(value.split(","))))
    return DataSpec(path, options, tuple(features))
