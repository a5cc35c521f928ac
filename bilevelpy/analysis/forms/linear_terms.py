"""Affine nodes as sums of fixed factors times a variable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder
    from bilevelpy.ir.types import Axis

# Terms of an affine node that are written down at most, and steps from one to the next below it.
TERMS, DEPTH = 2_000, 100


Factors = list[tuple[Expr, tuple[int, ...]]]


Terms = list[tuple[Factors, ir.VarRef, tuple[int, ...]]]


def linear_terms(
    node: Expr,
    labels: tuple[int, ...],
    depends: dict[Expr, bool],
    fresh: list[int],
    depth: int = 0,
) -> Terms | None:
    """The linear terms of an affine node: fixed factors with labels, the variable with labels.

    None where a node is not known here, where there are more than :data:`TERMS` (what is read twice
    is written twice, and chains of that double at every step) or ``depth`` passes :data:`DEPTH`.
    A sign is the factor :data:`MINUS`, and what is repeated along an axis that is summed gets a
    factor of ones there, which counts; :func:`owned` makes both nodes of a builder.
    """
    if not depends[node]:
        return []
    if depth > DEPTH:
        return None
    depth += 1
    if isinstance(node, ir.VarRef):
        return [([], node, labels)]
    if isinstance(node, ir.Apply):
        found = []
        for child in node.operands:
            inner = linear_terms(child, labels if child.axes else (), depends, fresh, depth)
            if inner is None:
                return None
            found += inner
            if len(found) > TERMS:
                return None
        if node.function == "neg":
            found = [([*f, MINUS], v, ls) for f, v, ls in found]
        return found
    if isinstance(node, ir.Align):
        back = {s: labels[d] for d, s in enumerate(node.source) if s is not None}
        return linear_terms(
            node.operand, tuple(back[d] for d in range(node.operand.rank)), depends, fresh, depth
        )
    if isinstance(node, ir.Einsum):
        rename = dict(zip(node.output, labels, strict=True))
        for subscript in node.subscripts:
            for s in subscript:
                if s not in rename:
                    fresh[0] += 1
                    rename[s] = fresh[0]
        moved = [
            (o, tuple(rename[s] for s in ss))
            for o, ss in zip(node.operands, node.subscripts, strict=True)
        ]
        factors = [(o, ls) for o, ls in moved if not depends[o]]
        (variable_part,) = [(o, ls) for o, ls in moved if depends[o]]
        inner = linear_terms(*variable_part, depends, fresh, depth)
        if inner is None:
            return None
        axes = {s: a for o, ls in moved for s, a in zip(ls, o.axes, strict=True)}
        summed = {s: a for s, a in axes.items() if s not in labels}
        return _counted([([*f, *factors], v, ls) for f, v, ls in inner], summed)
    if isinstance(node, ir.Reduce):
        full: list[int] = []
        kept = iter(labels)
        summed = {}
        for d, axis in enumerate(node.operand.axes):
            if d in node.dims:
                fresh[0] += 1
                full.append(fresh[0])
                summed[fresh[0]] = axis
            else:
                full.append(next(kept))
        inner = linear_terms(node.operand, tuple(full), depends, fresh, depth)
        return None if inner is None else _counted(inner, summed)
    return None


def _counted(terms: Terms, summed: dict[int, Axis]) -> Terms:
    """The terms with a factor of ones over every summed label that they do not have."""
    found: Terms = []
    for factors, variable, labels in terms:
        have = {s for _, ls in factors for s in ls} | set(labels)
        ones = [(ir.Fill((a,), None, 1.0), (s,)) for s, a in summed.items() if s not in have]
        found.append(([*factors, *ones], variable, labels))
    return found


def owned(builder: Builder, factors: Factors) -> Factors:
    """The factors of a term as nodes of the builder."""
    return [
        (
            builder.const(node.value)
            if isinstance(node, ir.Const)
            else builder.fill(node.value, node.axes)
            if isinstance(node, ir.Fill)
            else node,
            labels,
        )
        for node, labels in factors
    ]


# The sign of a term.
MINUS: tuple[Expr, tuple[int, ...]] = (ir.Const((), None, -1.0), ())
