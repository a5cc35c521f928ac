"""What of a sum or product is folded into its data, so that fewer operations remain for each
evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.lowering.programs.slots import sparse_node

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder

Factor = tuple[Expr, tuple[int, ...]]


def terms_of(builder: Builder, node: ir.Apply) -> list[tuple[Expr | float, Expr]]:
    """``(factor, operand)`` of a sum: data in one last term, signs and scalar data taken out."""
    data = [o for o in node.operands if builder.is_data(o)]
    terms = [_factored(builder, o) for o in node.operands if not builder.is_data(o)]
    if data:
        total = builder.add(data)
        negative = isinstance(total, ir.Apply) and total.function == "neg"
        terms.append((-1.0, total.children[0]) if negative else (1.0, total))
    return terms


def _factored(builder: Builder, node: Expr) -> tuple[Expr | float, Expr]:
    if isinstance(node, ir.Apply) and node.function == "neg":
        return -1.0, node.operands[0]
    if isinstance(node, ir.Einsum) and not node.contracts:
        pairs = list(zip(node.operands, node.subscripts, strict=True))
        scalars = [o for o, _ in pairs if not o.rank and builder.is_data(o)]
        others = [(o, labels) for o, labels in pairs if o.rank or not builder.is_data(o)]
        if scalars and len(others) == 1 and others[0][1] == node.output:
            return builder.mul(*scalars), others[0][0]
        # A data vector takes the number in at binding.
        absorbed = any(o.rank == 1 and builder.is_data(o) for o, _ in others)
        if scalars and len(others) > 1 and not absorbed:
            return builder.mul(*scalars), builder.einsum(others, node.output, node.span)
    return 1.0, node


def takes_sign(node: Expr, builder: Builder) -> TypeGuard[ir.Einsum]:
    """Whether a product has a factor that a sign costs nothing in: a data scalar or vector."""
    return (
        isinstance(node, ir.Einsum)
        and not node.contracts
        and len(node.operands) > 1
        and any(o.rank <= 1 and builder.is_data(o) for o in node.operands)
    )


def squared(node: ir.Reduce) -> Expr | None:
    """``z`` where the node is the sum of all entries of ``z^2``."""
    inner = node.operand
    if node.function == "sum" and not node.rank and isinstance(inner, ir.Apply):
        return inner.operands[0] if inner.function == "square" else None
    return None


def fold_factors(
    builder: Builder, sparse: frozenset[str], factors: Sequence[Factor]
) -> list[Factor]:
    """Multiply data factors at binding where no larger array comes of it."""
    axis_of = {s: a for o, labels in factors for s, a in zip(labels, o.axes, strict=True)}
    groups: dict[tuple[int, ...], list[Factor]] = {}
    rest: list[Factor] = []
    for operand, labels in factors:
        foldable = builder.is_data(operand) and not sparse_node(operand, sparse)
        if foldable and len(set(labels)) == len(labels):
            groups.setdefault(tuple(sorted(labels)), []).append((operand, labels))
        else:
            rest.append((operand, labels))
    vectors = [labels for labels in groups if len(labels) == 1]
    if () in groups and vectors:
        groups[vectors[0]] += groups.pop(())
    for labels, members in groups.items():
        if len(members) == 1:
            rest.append(members[0])
        else:
            axes = {s: axis_of[s] for s in labels}
            rest.append((builder.product(members, labels, axes), labels))
    return rest
