import ast
import dataclasses
import inspect
import pathlib

import pytest

import odp_taskbuilder
from odp_taskbuilder.base.keyword_only import keyword_only

_SOURCE = pathlib.Path(odp_taskbuilder.__file__).parent


@keyword_only
@dataclasses.dataclass(frozen=True)
class _Options:
    """Two of a kind.

    Attributes:
      scan: one.
      overwrite: the other.
    """

    scan: bool
    overwrite: bool = False


def test_fields_are_given_by_name():
    assert _Options(scan=True) == _Options(scan=True, overwrite=False)
    with pytest.raises(TypeError, match="positional"):
        _Options(True, False)


def test_what_else_a_dataclass_does_is_as_before():
    options = dataclasses.replace(_Options(scan=True), overwrite=True)
    assert (options.scan, options.overwrite) == (True, True)
    assert repr(options) == "_Options(scan=True, overwrite=True)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.scan = False
    with pytest.raises(TypeError, match="scan"):
        _Options()
    with pytest.raises(TypeError, match="unknown"):
        _Options(scan=True, unknown=1)
    kinds = {parameter.kind for parameter in list(inspect.signature(_Options).parameters.values())}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


def _options_with_booleans() -> list[ast.ClassDef]:
    """The dataclasses that callers fill in and that have a boolean, from the source: importing all of it would take TensorFlow."""
    found = []
    for path in _SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name.endswith(("Options", "Request", "PrivacySpec")):
                fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
                if any(ast.unparse(field.annotation).strip("'\"") in ("bool", "Optional[bool]") for field in fields):
                    found.append(node)
    return found


def test_options_with_booleans_are_keyword_only():
    options = _options_with_booleans()
    assert {"BuildOptions", "ResolveOptions", "ServiceOptions", "PushOptions"} <= {node.name for node in options}
    positional = [node.name for node in options if "keyword_only" not in map(ast.unparse, node.decorator_list)]
    assert positional == []
