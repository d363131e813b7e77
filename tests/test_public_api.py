"""The names that users import, and that importing them costs nothing until they are used."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import odp_taskbuilder

ROOT = pathlib.Path(__file__).resolve().parent.parent


def documented_names() -> set[str]:
    """The names in the first column of the table of docs/python.md."""
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "python.md").read_text(), flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)", row)}


def test_the_exported_names_are_the_documented_ones():
    assert set(odp_taskbuilder.__all__) == documented_names()
    assert set(odp_taskbuilder.__all__) <= set(dir(odp_taskbuilder))


def test_every_exported_name_is_there_and_build_can_be_called_before_and_after_its_module_is_imported():
    script = (
        "import sys, odp_taskbuilder\n"
        "assert not any(name.startswith('odp_taskbuilder.') for name in sys.modules), 'imported with the package'\n"
        "values = {name: getattr(odp_taskbuilder, name) for name in odp_taskbuilder.__all__}\n"
        "assert 'tensorflow' not in sys.modules\n"
        "assert callable(values['build'])\n"
        "import odp_taskbuilder.build\n"
        "try:\n"
        "    odp_taskbuilder.build('no model', 'no config')\n"
        "except values['errors'].ConfigError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "Cannot read the task config: No such file or directory." in done.stdout, done.stderr


def test_a_name_that_is_not_there_is_an_attribute_error():
    assert not hasattr(odp_taskbuilder, "no_such_name")
