"""Which places a task builder service may read models from and write artifacts to. What is not allowed is denied."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from odp_taskbuilder import errors
from odp_taskbuilder.base import redaction
from odp_taskbuilder.stores import urls


@dataclasses.dataclass(frozen=True)
class AllowedPlaces:
    """Places and everything below them.

    Attributes:
      buckets: `BucketPlace`s; one without a name allows its whole bucket.
      directories: absolute paths, with symbolic links resolved.
    """

    buckets: tuple[urls.BucketPlace, ...] = ()
    directories: tuple[pathlib.Path, ...] = ()

    @classmethod
    def parse(cls, places: Sequence[str]) -> AllowedPlaces:
        """Reads gs://bucket[/prefix], file:///directory and local directories.

        Raises:
          errors.StorageError: one of them is none of these.
        """
        parsed = [urls.parse(place) for place in places]
        return cls(
            buckets=tuple(place for place in parsed if isinstance(place, urls.BucketPlace)),
            directories=tuple(place.resolve() for place in parsed if isinstance(place, pathlib.Path)),
        )

    def allows(self, place: urls.Place) -> bool:
        """Whether `place` lies in one of these; `models_old` does not lie in `models`. Contacts nothing."""
        if isinstance(place, urls.BucketPlace):
            return any(
                allowed.bucket == place.bucket
                and (not allowed.name or _is_below(place.name.split("/"), allowed.name.split("/")))
                for allowed in self.buckets
            )
        # Resolved, so that a link inside an allowed directory does not lead out of it.
        parts = pathlib.Path(os.path.realpath(place)).parts
        return any(_is_below(parts, allowed.parts) for allowed in self.directories)


def check(places: AllowedPlaces, url: str, purpose: str, option: str) -> None:
    """Raises unless `url` is in `places`.

    Raises:
      errors.StorageError: it is not, or is no URL.
    """
    if not places.allows(urls.parse(url)):
        raise errors.StorageError(
            f"This server does not {purpose} {redaction.redact_url(url)}.", next_step=f"Its operator allows places with {option}; ask for this one."
        )


def _is_below(parts: Sequence[str], prefix: Sequence[str]) -> bool:
    return tuple(parts[: len(prefix)]) == tuple(prefix)
