"""pip or uv, whichever manages this environment, as a command line."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Optional

from odp_taskbuilder import errors
from odp_taskbuilder.base import child_python

# Of the installer's output, in an error.
_SHOWN_LINES = 12


@dataclasses.dataclass(frozen=True)
class Installer:
    """A program that installs packages into the environment of this interpreter.

    Attributes:
      name: "pip" or "uv".
      command: how it is called to install something into this environment.
    """

    name: str
    command: tuple[str, ...]

    def install(self, arguments: Sequence[str]) -> None:
        """Runs `install` with the given arguments, which are the same for both programs.

        Raises:
          errors.StorageError: it failed; the message ends with what it said.
        """
        process = subprocess.run(
            [*self.command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if process.returncode != 0:
            said = process.stdout.decode(errors="replace").strip().splitlines()[-_SHOWN_LINES:]
            raise errors.StorageError(
                f"{self.name} could not install a package (exit code {process.returncode}):\n" + "\n".join(f"    {line}" for line in said),
                next_step="`odp-task setup` again goes on where this one ended.",
            )

    def target_arguments(self, target: str) -> list[str]:
        """Arguments that unpack the wheel for Linux on x86-64 into a directory, whatever the platform of this interpreter."""
        if self.name == "uv":
            return ["--target", target, "--python-platform", "x86_64-manylinux_2_31", "--only-binary", ":all:", "--link-mode", "copy"]
        return ["--no-user", "--target", target, "--platform", "manylinux_2_31_x86_64", "--only-binary", ":all:", "--no-compile"]

    def reinstall_arguments(self) -> list[str]:
        """Arguments that install packages again which are here already."""
        return ["--reinstall"] if self.name == "uv" else ["--force-reinstall"]


def find_installer() -> Installer:
    """The program that manages this environment: what installed odp-task here, if it is still at hand, else what is.

    Raises:
      errors.UsageError: there is neither.
    """
    uv, has_pip = _find_uv(), importlib.util.find_spec("pip") is not None
    if uv is not None and (not has_pip or _installed_by() == "uv"):
        return Installer("uv", (uv, "pip", "install", "--python", sys.executable))
    if has_pip:
        return Installer("pip", (*child_python.module("pip"), "--disable-pip-version-check", "--no-input", "install"))
    raise errors.UsageError(
        f"{sys.prefix} has no pip, and uv is not on PATH.", next_step=f"Try `{sys.executable} -m ensurepip`, or put uv on PATH."
    )


def _find_uv() -> Optional[str]:
    # uv names itself to what `uv run` starts.
    return os.environ.get("UV") or shutil.which("uv")


def _installed_by() -> str:
    try:
        return (importlib.metadata.distribution("odp-task").read_text("INSTALLER") or "").strip()
    except importlib.metadata.PackageNotFoundError:
        return ""
