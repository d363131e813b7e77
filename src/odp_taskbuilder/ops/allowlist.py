"""The TensorFlow ops that phones can run, and the module version that first has each of them (spec: flex_ops.md, section 1).

The device runtime links TFLite's builtin ops and a fixed set of TensorFlow kernels, which grows with releases of the On-Device
Personalization module. The list is data: `allowlist.csv` beside this file, or any file of the same form.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Mapping
from typing import Optional, Union

from odp_taskbuilder import errors
from odp_taskbuilder.base import package_data

_HEADER = "min_module_version,op"
_ROW = re.compile(r"([0-9]{1,18})\s*,\s*(\w+)", re.ASCII)
# Far above any real list; a file beyond it is something else.
_MAX_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Allowlist:
    """Supported ops.

    Attributes:
      min_module_versions: TensorFlow op name, without TFLite's `Flex` prefix -> first module version that has it.
    """

    min_module_versions: Mapping[str, int]

    @classmethod
    @functools.cache
    def builtin(cls) -> Allowlist:
        """The list that comes with this package."""
        text = package_data.read_text(__package__, "allowlist.csv", encoding="ascii")
        return cls._parse(text, "the built-in allow list")

    @classmethod
    def from_csv(cls, path: Union[str, os.PathLike]) -> Allowlist:
        """Reads lines of `version,op`; a header line `min_module_version,op` may stand before them.

        Raises:
          StorageError: the file cannot be read.
          UsageError: it does not hold such lines.
        """
        try:
            with open(path, "rb") as file:
                content = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise errors.StorageError(f"Cannot read the allow list {os.fspath(path)}: {error.strerror}") from error
        if len(content) > _MAX_BYTES:
            raise errors.UsageError(f"{os.fspath(path)} is no allow list: it is larger than {_MAX_BYTES} bytes")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise errors.UsageError(f"{os.fspath(path)} is no allow list: it is not text") from None
        return cls._parse(text, os.fspath(path))

    @classmethod
    def _parse(cls, text: str, source: str) -> Allowlist:
        versions: dict[str, int] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            line = line.strip()
            if not line or (number == 1 and line == _HEADER):
                continue
            row = _ROW.fullmatch(line)
            if row is None:
                raise errors.UsageError(f"{source}:{number}: expected a line like 341812000,MapDataset, found {line[:80]!r}")
            version, op = row.groups()
            if op in versions:
                raise errors.UsageError(f"{source}:{number}: the op {op!r} is listed twice")
            versions[op] = int(version)
        if not versions:
            raise errors.UsageError(f"{source} lists no op")
        return cls(versions)

    def min_module_version(self, op: str) -> Optional[int]:
        """The first module version that has the op; None when no listed one has."""
        return self.min_module_versions.get(op)
