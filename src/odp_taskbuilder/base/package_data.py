"""Files that come with the package, beside the modules that read them."""

from __future__ import annotations


def read_text(package: str, *names: str, encoding: str = "utf-8") -> str:
    """The text of a file of a package. Its name may come after those of directories."""
    import importlib.resources  # Here: it takes longer to import than what reads these files, and few commands do.

    return importlib.resources.files(package).joinpath(*names).read_text(encoding=encoding)
