"""How one operator is translated: the table, what a translation is given, and what is known while tracing.

A value is a NumPy array where it is known while the program is traced (a constant, a shape, and what `folds=True` operators make of such),
and an array of JAX otherwise. Axes, shapes and slices must be known: TFLite computes them anew at every step, in a compiled program they
are constants.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Callable, Union

import jax.numpy as jnp
import numpy as np

from odp_taskbuilder.compiled.graph import DTYPES, Node

Value = Any  # np.ndarray if known, else a jax.Array
Result = Union[Value, Sequence[Value]]


class Untranslatable(Exception):
    """An operator without a translation, or one that its translation does not cover.

    Attributes:
      op: TFLite's or TensorFlow's name of it.
      subgraph: where it stands.
      reason: what about it.
    """

    def __init__(self, op: str, subgraph: str, reason: str):
        super().__init__(f"{op} in {subgraph!r}: {reason}")
        self.op = op
        self.subgraph = subgraph
        self.reason = reason


@dataclasses.dataclass
class Op:
    """The operator that a translation is for.

    Attributes:
      node: with its options or attributes.
      subgraph: the name of the one that it stands in.
      xp: NumPy while folding, otherwise JAX's NumPy.
      conditions: see `require`.
    """

    node: Node
    subgraph: str
    xp: Any
    output_dtypes: tuple[str, ...]
    conditions: list

    @property
    def options(self) -> Any:
        if self.node.options is None:
            raise self.refuse("it has no options")
        return self.node.options

    @property
    def output_dtype(self) -> np.dtype:
        """Of the first output."""
        if self.output_dtypes[0] not in DTYPES:
            raise self.refuse(f"it yields {self.output_dtypes[0]}")
        return DTYPES[self.output_dtypes[0]]

    def known(self, value: Value, what: str) -> np.ndarray:
        """A value that must be known while tracing, such as axes."""
        if not isinstance(value, np.ndarray):
            raise self.refuse(f"its {what} is known only when it runs")
        return value

    def integers(self, value: Value, what: str) -> tuple[int, ...]:
        """A known vector (or scalar, as one element) of integers."""
        return tuple(int(number) for number in self.known(value, what).ravel())

    def refuse(self, reason: str) -> Untranslatable:
        return Untranslatable(self.node.name, self.subgraph, reason)

    def require(self, condition: Value) -> None:
        """What must hold for the translation to do as TFLite does: where it does not, the client is given back to the interpreter, which
        fails on it or goes its own way. An index within bounds, for example."""
        self.conditions.append(condition)


@dataclasses.dataclass(frozen=True)
class Translation:
    """One entry of the table.

    Attributes:
      apply: (op, *inputs) -> the output, or a sequence of them. Inputs that are left out are None.
      folds: computed with NumPy while tracing when every input is known.
    """

    apply: Callable[..., Result]
    folds: bool


# Every operator that can be translated. The modules of translations fill it.
TABLE: dict[str, Translation] = {}


def translates(*names: str, folds: bool = False) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Enters a function as the translation of operators."""

    def enter(apply: Callable[..., Result]) -> Callable[..., Result]:
        for name in names:
            TABLE[name] = Translation(apply, folds)
        return apply

    return enter


def apply_translation(
    node: Node, subgraph: str, output_dtypes: tuple[str, ...], inputs: Sequence[Value], conditions: list
) -> list:
    """The outputs of an operator.

    Raises:
      Untranslatable: it has no entry, or this use of it is not covered.
    """
    translation = TABLE.get(node.name)
    if translation is None:
        raise Untranslatable(node.name, subgraph, "it has no translation")
    folded = translation.folds and all(value is None or isinstance(value, np.ndarray) for value in inputs)
    op = Op(node, subgraph, np if folded else jnp, output_dtypes, conditions)
    try:
        with np.errstate(all="ignore"):
            result = translation.apply(op, *inputs)
    except Untranslatable:
        raise
    except Exception as error:  # noqa: BLE001 - JAX and NumPy raise classes of their own; the interpreter takes what the table cannot.
        raise op.refuse(f"its translation fails: {type(error).__name__}: {error}") from error
    outputs: list[Any] = list(result) if isinstance(result, (list, tuple)) else [result]
    if folded:
        outputs = [np.asarray(output) for output in outputs]
    if len(outputs) != len(output_dtypes):
        raise op.refuse(f"{len(outputs)} outputs are translated, it has {len(output_dtypes)}")
    for output, dtype in zip(outputs, output_dtypes):
        if DTYPES.get(dtype) != output.dtype:
            raise op.refuse(f"its translation yields {output.dtype}, the graph says {dtype}")
    return outputs
