"""Programs that keep what depends on the upper variables alone from one call to the next.

The lower level is evaluated many times at one x. What reads x and no lower variable, the features
that a network computes of the data, say, or a kernel matrix, is computed once there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.substitute import substitute
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.programs.splitting import Make, several, split

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder


def hoisted(
    builder: Builder,
    make: Make,
    roots: tuple[Expr, ...],
    xs: tuple[ir.VarRef, ...],
    ys: tuple[ir.VarRef, ...],
) -> Callable[..., list[Any]]:
    """``(xs, ys) -> roots``; where a part that reads ``xs`` alone is dear, it is kept for the last
    values of ``xs``.
    """
    kept, rest = split(builder, roots, frozenset(ys))
    if not any(_is_dear(node) for node in kept):
        return several(builder, make, roots, (*xs, *ys))
    held = tuple(builder.var("held", str(k), node.axes) for k, node in enumerate(kept))
    replaced = tuple(substitute(builder, r, dict(zip(kept, held, strict=True))) for r in rest)
    first = several(builder, make, kept, xs)
    second = several(builder, make, replaced, (*held, *ys))
    count = len(xs)
    last: list[tuple[list[Any], list[Any]]] = []

    def call(*values: Any) -> list[Any]:
        x = values[:count]
        if not last or not _same(last[0][0], x):
            last[:] = [([_copy(v) for v in x], first(*x))]
        return second(*last[0][1], *values[count:])

    return call


def _is_dear(node: Expr) -> bool:
    """Whether a node costs more than a comparison of x: a function handed over, or a whole
    matrix.
    """
    inner = [n for n in postorder(node) if not isinstance(n, ir.VarRef)]
    matrix = node.rank >= 2 and any(isinstance(n, ir.Apply) and n.rank >= 2 for n in inner)
    return matrix or any(isinstance(n, ir.ExternCall) for n in inner)


def _same(old: Sequence[Any], new: Sequence[Any]) -> bool:
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else np.array_equal(a, b)
        for a, b in zip(old, new, strict=True)
    )


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return np.array(value)
