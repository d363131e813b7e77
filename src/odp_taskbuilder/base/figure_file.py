"""Figures as files."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from odp_taskbuilder import errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: pathlib.Path) -> None:
    """Writes a figure; the suffix of the path decides the format.

    Raises:
      UsageError: matplotlib does not know the format.
      StorageError: the file cannot be written.
    """
    formats = sorted(figure.canvas.get_supported_filetypes())
    # Without a suffix matplotlib would choose both format and name.
    if path.suffix.lower().lstrip(".") not in formats:
        raise errors.UsageError(
            f"Cannot plot to {path}: its suffix names no format.", next_step=f"There are: .{', .'.join(formats)}."
        )
    try:
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise errors.StorageError(f"Cannot write {path}: {error.strerror}") from error
