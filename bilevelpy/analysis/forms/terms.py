"""Objectives as sums of terms: a coefficient that does not move, times an entry-wise sum of a core
that does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bilevelpy.analysis.bounds.ranges import contracted_axes
from bilevelpy.analysis.forms.scope import Scope
from bilevelpy.ir import expr as ir
from bilevelpy.ir.types import Axis
from bilevelpy.ir.walk import postorder

# Objectives of more terms keep sums that are shared and have more than a few terms as they are.
MANY, FEW = 10_000, 64
# Below so many factors a product is a core: chains of `let` that scale what is before are many.
DEEP = 32


@dataclass(frozen=True, slots=True)
class Term:
    """``sign`` times the sum over entries of ``factors`` times ``core``.

    ``selects`` says that only some entries of the core are summed; ``axes`` are those that were
    summed over on the way from the objective. ``root`` is the node that a message points at.
    """

    sign: float
    factors: tuple[ir.Expr, ...]
    core: ir.Expr
    root: ir.Expr
    selects: bool = False
    axes: tuple[Axis, ...] = ()


def split(scope: Scope, objective: ir.Expr, sign: float = 1.0) -> list[Term]:
    """The moving terms of the sum of all entries of ``sign * objective``.

    Sums, differences, reductions and products with what does not move are opened; everything else
    is a core, and so are sums that are shared too often.
    """
    terms: list[Term] = []
    shut = _shut(scope, objective)
    stack = [Term(sign, (), objective, objective, axes=objective.axes)]
    while stack:
        term = stack.pop()
        if term.core not in scope.moving:
            continue
        parts = None if term.core in shut else _parts(scope, term)
        if parts is not None:
            stack.extend(reversed(parts))
        elif isinstance(term.core, ir.Einsum):
            terms.append(replace(term, axes=(*term.axes, *contracted_axes(term.core))))
        else:
            terms.append(term)
    return terms


def _parts(scope: Scope, term: Term) -> list[Term] | None:
    """The terms that one consists of; None for a core."""
    core = term.core
    match core:
        case ir.Apply(function="add"):
            return [replace(term, core=o, root=o) for o in core.operands]
        case ir.Apply(function="neg"):
            return [replace(term, sign=-term.sign, core=core.operands[0])]
        case ir.Reduce(function="sum"):
            axes = tuple(core.operand.axes[d] for d in core.dims)
            return [replace(term, core=core.operand, axes=(*term.axes, *axes))]
        case ir.Einsum():
            return _product(scope, term, core)
        case ir.Align():
            return [replace(term, core=core.operand)]
        case ir.Gather():
            return [replace(term, core=core.operand, selects=True)]
        case ir.ScatterSum():
            axes = (*term.axes, core.operand.axes[0])
            return [replace(term, core=core.operand, axes=axes)]
        case ir.Concat() | ir.Diag():
            return [replace(term, core=o) for o in core.children]
    return None


def _product(scope: Scope, term: Term, core: ir.Einsum) -> list[Term] | None:
    moving = [o for o in core.operands if o in scope.moving]
    fixed = tuple(o for o in core.operands if o not in scope.moving)
    if len(moving) > 1 or len(term.factors) > DEEP:
        return None
    selects = term.selects or any(
        len(set(s)) < len(s)
        for o, s in zip(core.operands, core.subscripts, strict=True)
        if o is moving[0]
    )
    axes = (*term.axes, *contracted_axes(core))
    factors = (*term.factors, *fixed)
    return [replace(term, core=moving[0], factors=factors, selects=selects, axes=axes)]


def _shut(scope: Scope, objective: ir.Expr) -> set[ir.Expr]:
    """Nodes that are not opened, as many ways lead to them and many terms are below: ``let`` may
    double a sum with every line.
    """
    inside: dict[ir.Expr, list[ir.Expr]] = {}
    below: dict[ir.Expr, int] = {}
    for node in postorder(objective):
        parts = _parts(scope, Term(1.0, (), node, node)) if node in scope.moving else None
        inside[node] = [p.core for p in parts or () if p.core in scope.moving]
        below[node] = min(sum(below[p] for p in inside[node]) or 1, MANY + 1)
    if below[objective] <= MANY:
        return set()
    ways = dict.fromkeys(inside, 0) | {objective: 1}
    shut = set()
    for node in reversed(inside):
        if ways[node] > 1 and below[node] > FEW:
            shut.add(node)
            continue
        for part in inside[node]:
            ways[part] = min(ways[part] + ways[node], MANY)
    return shut
