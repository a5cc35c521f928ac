"""Objectives as sums of terms: a coefficient that does not move, times an entry-wise sum of a core
that does.
"""

from __future__ import annotations

from dataclasses import dataclass

from bilevelpy.analysis.ranges import contracted_axes
from bilevelpy.analysis.scope import Scope
from bilevelpy.ir import expr as ir
from bilevelpy.ir.types import Axis


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
    is a core.
    """
    terms: list[Term] = []
    stack = [Term(sign, (), objective, objective, axes=objective.axes)]
    while stack:
        term = stack.pop()
        core = term.core
        if core not in scope.moving:
            continue
        if isinstance(core, ir.Apply) and core.function in ("add", "neg"):
            turned = -term.sign if core.function == "neg" else term.sign
            stack.extend(
                Term(
                    turned,
                    term.factors,
                    o,
                    o if core.function == "add" else term.root,
                    term.selects,
                    term.axes,
                )
                for o in reversed(core.operands)
            )
        elif isinstance(core, ir.Reduce) and core.function == "sum":
            axes = tuple(core.operand.axes[d] for d in core.dims)
            stack.append(
                Term(
                    term.sign,
                    term.factors,
                    core.operand,
                    term.root,
                    term.selects,
                    (*term.axes, *axes),
                )
            )
        elif isinstance(core, ir.Einsum):
            moving = [o for o in core.operands if o in scope.moving]
            fixed = tuple(o for o in core.operands if o not in scope.moving)
            if len(moving) > 1:
                terms.append(_with_axes(term, contracted_axes(core)))
                continue
            selects = term.selects or any(
                len(set(s)) < len(s)
                for o, s in zip(core.operands, core.subscripts, strict=True)
                if o is moving[0]
            )
            axes = contracted_axes(core)
            factors = (*term.factors, *fixed)
            stack.append(
                Term(term.sign, factors, moving[0], term.root, selects, (*term.axes, *axes))
            )
        elif isinstance(core, ir.Align):
            stack.append(
                Term(term.sign, term.factors, core.operand, term.root, term.selects, term.axes)
            )
        elif isinstance(core, ir.Gather):
            stack.append(Term(term.sign, term.factors, core.operand, term.root, True, term.axes))
        elif isinstance(core, ir.ScatterSum):
            axes = (*term.axes, core.operand.axes[0])
            stack.append(Term(term.sign, term.factors, core.operand, term.root, term.selects, axes))
        elif isinstance(core, ir.Concat | ir.Diag):
            stack.extend(
                Term(term.sign, term.factors, o, term.root, term.selects, term.axes)
                for o in reversed(core.children)
            )
        else:
            terms.append(term)
    return terms


def _with_axes(term: Term, axes: tuple[Axis, ...]) -> Term:
    return Term(term.sign, term.factors, term.core, term.root, term.selects, (*term.axes, *axes))
