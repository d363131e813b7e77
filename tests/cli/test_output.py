"""What every command prints goes one way, on which nothing that steers a terminal gets through."""

import ast
import json
import pathlib

import pytest

import odp_taskbuilder
from odp_taskbuilder import errors
from odp_taskbuilder.cli import output

_SOURCE = pathlib.Path(odp_taskbuilder.__file__).parent
_STEERING = "\x1b]0;PWNED\x07\x9b2J\u202e\u2066\u2028"
_NAME = f"a{_STEERING}b"


def test_nothing_is_printed_past_the_one_way():
    elsewhere = []
    for path in _SOURCE.rglob("*.py"):
        # The second runs before anything is installed, and says sentences of its own.
        if path.relative_to(_SOURCE).as_posix() in ("cli/output.py", "installation/support.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                *("print", "click.echo", "click.secho", "click.echo_via_pager"),
                *("sys.stdout.write", "sys.stderr.write"),
            ):
                elsewhere.append(f"{path}:{node.lineno}")
    assert elsewhere == []


@pytest.mark.parametrize("print_it", [output.show, output.note, lambda text: output.report_error(errors.ModelError(text), False)])
def test_text_is_escaped(print_it, capsys):
    print_it(_NAME)
    printed = "".join(capsys.readouterr())
    assert r"a\x1b]0;PWNED\x07\x9b2J\u202e\u2066\u2028b" in printed
    assert not set(_STEERING) & set(printed) - set("]0;PWNED2J")


@pytest.mark.parametrize(
    "print_it, values",
    [
        (lambda: output.print_json({_NAME: [_NAME]}), lambda document: [*(document.keys() - {"schema_version"}), *document[_NAME]]),
        (
            lambda: output.report_error(errors.ConfigError([errors.Problem(_NAME, source_line=_NAME)]), True),
            lambda document: [document["error"]["problems"][0][key] for key in ("message", "source_line")],
        ),
        (
            lambda: output.report_error(errors.UnsupportedOpsError("no", ops={_NAME: _NAME}), True),
            lambda document: [*document["error"]["ops"], *document["error"]["ops"].values()],
        ),
    ],
)
def test_json_is_escaped_and_keeps_its_value(print_it, values, capsys):
    print_it()
    printed = capsys.readouterr().out
    assert not set(_STEERING) & set(printed) - set("]0;PWNED2J")
    assert values(json.loads(printed)) == [_NAME, _NAME]
