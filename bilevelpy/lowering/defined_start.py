"""Where variables begin that have no `start`: at 0, or where the objectives have values and slopes.

Logarithms, roots and quotients have none at 0, which is where a variable of the model begins, and
often the end of its range, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch

from bilevelpy.ir import expr as ir
from bilevelpy.ir.atoms import ELEMENTWISE, MATRICES
from bilevelpy.ir.walk import postorder, variables
from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.programs.layout import Layout
from bilevelpy.lowering.sums.streaming import is_streamed

Vec = torch.Tensor

# Functions with values on a part of the line alone.
PARTIAL = frozenset(
    name for name, atom in chain(ELEMENTWISE.items(), MATRICES.items()) if atom.domain != "all"
)
# How far inside of their ranges variables begin: sums of many have to stay small in some models.
DEPTHS = (1.0, 0.1, 1e-2, 1e-3)


def begin_where_defined(oracle: TorchOracle) -> None:
    """Move `x0` and `y0` of the oracle inside of the domains where an objective or its slope is
    not finite there, and is so inside; starts that the model declares stay.

    Lower variables are moved before upper ones, and where no such point is found none are. Data in
    files is not looked at: every point would be a pass over it.
    """
    if is_streamed(oracle.bound):
        return
    objectives = [o for o in (oracle.F_expr, oracle.f_expr) if _partial(o)]
    if not objectives:
        return
    before = _defined(oracle, oracle.x0, oracle.y0)
    if all(before):
        return
    best, found = sum(before), (oracle.x0, oracle.y0)
    for x, y in _inside(oracle):
        lower, upper = _defined(oracle, x, y)
        if lower + upper > best and lower >= before[0]:
            best, found = lower + upper, (x, y)
    oracle.x0, oracle.y0 = found


def _partial(objective: ir.Expr) -> bool:
    """Whether a function with values on a part of the line alone reads variables."""
    return any(
        isinstance(node, ir.Apply | ir.Matrix)
        and node.function in PARTIAL
        and bool(variables(node.children))
        for node in postorder(objective)
    )


def _defined(oracle: TorchOracle, x: Vec, y: Vec) -> tuple[bool, bool]:
    """Whether the lower and the upper objective and their slopes are finite at a point."""
    f, slope = oracle.value_grad_f(x, y)
    F, *slopes = oracle.value_grad_F(x, y)
    lower = bool(torch.isfinite(slope.new_tensor(f)) & torch.isfinite(slope).all())
    upper = all(bool(torch.isfinite(part).all()) for part in (slope.new_tensor(F), *slopes))
    return lower, upper


def _inside(oracle: TorchOracle) -> Iterator[tuple[Vec, Vec]]:
    """Points to begin at, those that move least of the model first."""
    for depth in DEPTHS:
        x = _moved(oracle.x0, oracle.upper, oracle.domain_x, depth)
        y = _moved(oracle.y0, oracle.lower, oracle.domain_y, depth)
        yield from ((oracle.x0, y), (x, oracle.y0), (x, y))


def _moved(start: Vec, layout: Layout, domain: ProductSet, depth: float) -> Vec:
    """The start with entries that no one has given so far from the ends of their ranges, free ones
    so far above 0, and multiples of the identity for matrices; on simplices and balls as it is.
    """
    moved, low, high = start.clone(), domain.lower.clone(), domain.upper
    low[~torch.isfinite(low) & ~torch.isfinite(high)] = 0.0
    near = torch.minimum((high - low) / 2, torch.tensor(depth, dtype=low.dtype))
    inner = torch.minimum(torch.maximum(moved, low + near), high - near)
    kept = torch.zeros(domain.dim, dtype=torch.bool)
    for block in (*domain.simplices, *domain.balls):
        kept[block.start : block.stop] = True
    for block in domain.matrices:
        kept[block.start : block.stop] = True
        for first in range(block.start, block.stop, block.size):
            kept[first : first + block.size : block.side + 1] = False
    for piece in layout.pieces:
        kept[piece.start : piece.stop] |= piece.variable.start is not None
    return torch.where(kept, moved, inner)
