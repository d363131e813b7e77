"""Where a client plan rounds what it sends (learning/compression.py): found in its graph, whoever built it.

Rounding makes steps of differences in the last bit, so a rounded tensor tells little about the arithmetic before it. What tells is the
tensor that is rounded, and what rounding makes of one and the same tensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Optional

import jax.numpy as jnp
import numpy as np

from odp_taskbuilder.artifacts.coded_tensors import unzigzag
from odp_taskbuilder.compiled.graph import Function, Node
from odp_taskbuilder.compiled.translation import Value
from odp_taskbuilder.config.compression import CODES, SCALE

# What they yield comes from outside of the graph.
_SOURCES = ("ReduceDataset", "RestoreV2")


@dataclasses.dataclass(frozen=True)
class Rounding:
    """A tensor that is rounded before it is saved. Tensors are those of the main subgraph, by index.

    Attributes:
      name: in the update; where codes and their scale are saved, what their names have in common.
      unrounded: all that is saved of the tensor is made of this one and of constants.
      nodes: the operators that make it.
      codes, scale: what is saved; None where the plan saves decoded values.
      product: the decoded values that are saved, and the two factors of which they are the product; None where it saves codes.
    """

    name: str
    unrounded: int
    nodes: tuple[Node, ...]
    codes: Optional[int] = None
    scale: Optional[int] = None
    product: Optional[tuple[int, int, int]] = None

    @property
    def saved(self) -> tuple[int, ...]:
        """What is saved of it."""
        return (self.codes, self.scale) if self.product is None else self.product[:1]

    def decoded(self, values: Mapping[int, Any]) -> Value:
        """What the server makes of it, float32.

        Args:
          values: of JAX, of all that `nodes` make.
        """
        if self.product is not None:
            return values[self.product[0]]
        return unzigzag(values[self.codes]).astype(np.float32) * values[self.scale].astype(np.float32)

    def step(self, values: Mapping[int, Any]) -> Optional[Value]:
        """The distance of two neighbouring values, a scalar; None where none of the factors is one. Args: as of `decoded`."""
        if self.product is None:
            return jnp.reshape(values[self.scale], ())
        scalars = [values[index] for index in self.product[1:] if values[index].size == 1]
        return jnp.reshape(jnp.asarray(scalars[0]), ()) if scalars else None


def find_roundings(main: Function, saved: Mapping[str, int]) -> tuple[Rounding, ...]:
    """The tensors that a plan rounds.

    Args:
      saved: what it saves, by name.
    """
    found = []
    for name, index in saved.items():
        base, _, last = name.rpartition("/")
        codes, scale = saved.get(f"{base}/{CODES}"), saved.get(f"{base}/{SCALE}")
        if last in (CODES, SCALE) and codes is not None and scale is not None:
            region = _region(main, [codes, scale])
            if last == CODES and region is not None:
                found.append(Rounding(base, *region, codes=codes, scale=scale))
        elif main.subgraph.tensors[index].dtype == "FLOAT32":
            region, product = _region(main, [index]), _product(main, index)
            if region is not None and product is not None:
                left, right = product.operator.inputs
                found.append(Rounding(name, *region, product=(index, left, right)))
    return tuple(found)


def _region(main: Function, ends: Iterable[int]) -> Optional[tuple[int, tuple[Node, ...]]]:
    """The nearest tensor of which alone, with constants, the ends are made by operators of which one is FLOOR; and those operators. None if
    there is none."""
    makers = {index: position for position, node in enumerate(main.nodes) for index in node.operator.outputs}
    needed = set(ends)
    positions: set[int] = set()
    while needed:
        if len(needed) == 1 and any(main.nodes[position].name == "FLOOR" for position in positions):
            return needed.pop(), tuple(main.nodes[position] for position in sorted(positions))
        # Operators stand in an order in which they can run: nothing that comes before the last one needs what it yields.
        position = makers.get(max(needed, key=lambda index: makers.get(index, -1)))
        if position is None or main.nodes[position].name in _SOURCES:
            return None
        positions.add(position)
        operator = main.nodes[position].operator
        needed -= set(operator.outputs)
        needed |= {index for index in operator.inputs if index >= 0 and index not in main.constants}
    return None


def _product(main: Function, index: int) -> Optional[Node]:
    """The multiplication that makes a tensor, reshaped perhaps."""
    makers = {output: node for node in main.nodes for output in node.operator.outputs}
    node = makers.get(index)
    while node is not None and node.name == "RESHAPE":
        node = makers.get(node.operator.inputs[0])
    return node if node is not None and node.name == "MUL" else None
