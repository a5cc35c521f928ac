"""Where the variables of the lower level enter only through affine predictors.

Most objectives of many samples have the form ``f(x, y) = g(z_1, ..., z_K; x)`` with predictors
``z_k`` affine in y (``X @ W + b``) and ``g`` a sum over samples. Then ``f_yy = sum_k J_k' G_k J_k``
with ``J_k`` constant and ``G_k`` block-diagonal over the samples. This module finds the predictors,
the axes over which ``g`` falls apart, and the factors of ``J_k``, on the IR alone; whatever does
not have this form gives None, and the caller differentiates twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from bilevelpy.analysis.forms.linear_terms import linear_terms, owned
from bilevelpy.analysis.structure import Evidence, Fact
from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.objectives import lower_objective
from bilevelpy.ir.walk import postorder

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder
    from bilevelpy.ir.program import BoundProgram

_LINEAR_APPLY = ("add", "neg")


@dataclass(frozen=True, slots=True)
class Term:
    """One linear term of a predictor: ``sum_K coefficient[B, N, K] * variable[B, K, C]``.

    ``coefficient`` is data-only with axes batch, samples, contracted. ``order`` permutes the
    variable's dimensions into batch, contracted, class.
    """

    variable: ir.VarRef
    coefficient: Expr
    order: tuple[int, ...]
    contracted: int


@dataclass(frozen=True, slots=True)
class Predictor:
    """A maximal affine node ``z`` that enters nonlinearly.

    ``batch``, ``samples``, ``classes`` are its dimensions: g falls apart over batch and samples;
    variables carry the batch dimensions and the class dimensions, but not the sample dimensions.
    """

    node: Expr
    batch: tuple[int, ...]
    samples: tuple[int, ...]
    classes: tuple[int, ...]
    terms: tuple[Term, ...]


def hessian_passes(bound: BoundProgram) -> Fact[int | None]:
    """How many second-derivative passes in the space of the predictors a lower Hessian costs.

    The value is None where f has no predictors and a dense Hessian takes a product per variable.
    """
    program, sizes = bound.program, bound.data.sizes
    if not program.lowers:
        return Fact(None, Evidence.PROVED, "there is no lower level")
    objective, _ = lower_objective(program)
    names = frozenset(level.name for level in program.lowers)
    found = find_predictors(program.builder, objective, names)
    if found is None:
        return Fact(None, Evidence.PROVED, "f is no sum of functions of affine predictors")
    passes = sum(prod(sizes[p.node.axes[d]] for d in p.classes) for p in found)
    span = next((p.node.span for p in found if p.samples), None)
    count = f"{passes} {'pass' if passes == 1 else 'passes'}"
    reason = f"f is a sum of functions of affine predictors: a Hessian takes {count} over them"
    return Fact(passes, Evidence.PROVED, reason, span)


def find_predictors(
    builder: Builder, objective: Expr, level_names: frozenset[str]
) -> tuple[Predictor, ...] | None:
    """The predictors of ``objective`` in the variables of the levels named.

    None where the objective has another form.
    """
    depends: dict[Expr, bool] = {}
    affine: dict[Expr, bool] = {}
    order = list(postorder(objective))
    for node in order:
        depends[node] = (isinstance(node, ir.VarRef) and node.level in level_names) or any(
            depends[c] for c in node.children
        )
        affine[node] = _is_affine(builder, node, depends, affine)
    found: dict[Expr, None] = {}  # in the order of the walk
    for node in order:
        if depends[node] and not affine[node]:
            found.update(dict.fromkeys(c for c in node.children if depends[c] and affine[c]))
    frontier = list(found)
    spread = _Spread(builder, frontier, depends)
    for node in order:
        if depends[node] and (node in spread.index or not affine[node]) and not spread.visit(node):
            return None
    entangled = {k for pair in spread.coupled if pair[0] != pair[1] for k in pair}
    predictors = []
    for k, node in enumerate(frontier):
        if (k, k) not in spread.coupled:
            continue
        if k in entangled:
            return None
        mixed = spread.mixed[k]
        predictor = _factor(builder, node, mixed, depends)
        if predictor is None:
            return None
        predictors.append(predictor)
    return tuple(predictors)


def _is_affine(
    builder: Builder, node: Expr, depends: dict[Expr, bool], affine: dict[Expr, bool]
) -> bool:
    """Affine in the level's variables with coefficients that are data."""
    if not depends[node]:
        return builder.is_data(node)
    if isinstance(node, ir.VarRef):
        return True
    if isinstance(node, ir.Apply):
        # What is added may read the other level: the linear part is what counts.
        return node.function in _LINEAR_APPLY and all(
            affine[c] or not depends[c] for c in node.operands
        )
    if isinstance(node, ir.Einsum):
        return sum(depends[c] for c in node.operands) == 1 and all(affine[c] for c in node.operands)
    if isinstance(node, ir.Align):
        return affine[node.operand]
    if isinstance(node, ir.Reduce):
        return node.function == "sum" and affine[node.operand]
    return isinstance(node, ir.Gather) and affine[node.operand]


class _Spread:
    """Follows each predictor's dimensions up to the objective.

    ``carried[node][k]`` maps a dimension of predictor k to the node's dimension that carries it, or
    to None where it has been summed. A dimension that meets anything else is ``mixed``.
    """

    def __init__(self, builder: Builder, frontier: list[Expr], depends: dict[Expr, bool]) -> None:
        self.builder = builder
        self.depends = depends
        self.index = {node: k for k, node in enumerate(frontier)}
        self.carried: dict[Expr, dict[int, dict[int, int | None]]] = {}
        self.coupled: set[tuple[int, int]] = set()
        self.mixed: dict[int, set[int]] = {k: set() for k in range(len(frontier))}

    def visit(self, node: Expr) -> bool:
        """Work out ``carried`` of a node from its operands; False for a node unknown here."""
        if node in self.index:
            k = self.index[node]
            self.carried[node] = {k: {d: d for d in range(node.rank)}}
            return True
        parts = [c for c in node.children if self.depends[c]]
        merged: dict[int, dict[int, int | None]] = {}
        for child in parts:
            moved = self._through(node, child)
            if moved is None:
                return False
            for k, dims in moved.items():
                if k not in merged:
                    merged[k] = dict(dims)
                    continue
                for d, target in dims.items():
                    if d not in merged[k] or merged[k][d] != target:
                        self.mixed[k].add(d)
        self.carried[node] = merged
        if not self._is_linear(node, parts):
            for a in merged:
                for b in merged:
                    self.coupled.add((min(a, b), max(a, b)))
                for d, target in merged[a].items():
                    if target is None:
                        self.mixed[a].add(d)
        return True

    @staticmethod
    def _is_linear(node: Expr, parts: list[Expr]) -> bool:
        if isinstance(node, ir.Apply):
            return node.function in _LINEAR_APPLY
        if isinstance(node, ir.Einsum):
            return len(parts) == 1
        return isinstance(node, ir.Align | ir.Gather) or (
            isinstance(node, ir.Reduce) and node.function == "sum"
        )

    def _through(self, node: Expr, child: Expr) -> dict[int, dict[int, int | None]] | None:
        """``carried`` of one operand, moved to the dimensions of the node that uses it."""
        source = self.carried[child]
        if isinstance(node, ir.Apply):
            # A scalar operand of a tensor node is broadcast: it has no dimensions to carry.
            return source
        if isinstance(node, ir.Einsum):
            k = node.operands.index(child)
            subscript = node.subscripts[k]
            if len(set(subscript)) < len(subscript) or node.operands.count(child) > 1:
                return None
            where = [node.output.index(s) if s in node.output else None for s in subscript]
            return _move(source, where)
        if isinstance(node, ir.Align):
            back: list[int | None] = [None] * child.rank
            for d, s in enumerate(node.source):
                if s is not None:
                    back[s] = d
            return _move(source, back)
        if isinstance(node, ir.Reduce):
            kept = [d for d in range(child.rank) if d not in node.dims]
            target = [kept.index(d) if d in kept else None for d in range(child.rank)]
            if node.function != "sum":
                self._mix(source, set(node.dims))
            return _move(source, target)
        if isinstance(node, ir.MapLast):
            self._mix(source, {child.rank - 1})
            return source
        return None

    def _mix(self, source: dict[int, dict[int, int | None]], dims: set[int]) -> None:
        for k, carried in source.items():
            self.mixed[k] |= {d for d, target in carried.items() if target in dims}


def _move(
    source: dict[int, dict[int, int | None]], where: list[int | None]
) -> dict[int, dict[int, int | None]]:
    return {
        k: {d: (None if t is None else where[t]) for d, t in dims.items()}
        for k, dims in source.items()
    }


def _factor(
    builder: Builder, node: Expr, mixed: set[int], depends: dict[Expr, bool]
) -> Predictor | None:
    """Bring an affine node to the form of :class:`Predictor`."""
    labels = tuple(range(node.rank))
    found = linear_terms(node, labels, depends, [node.rank])
    if found is None:
        return None
    separable = [d for d in labels if d not in mixed]
    shared = [d for d in separable if all(d in ls for _, _, ls in found)]
    if any(d in ls for _, _, ls in found for d in separable if d not in shared):
        return None
    samples = tuple(d for d in separable if d not in shared)
    classes = tuple(sorted(mixed))
    batch = tuple(shared)
    axis_of = dict(enumerate(node.axes))
    terms = []
    for factors, variable, var_labels in found:
        if len(set(var_labels)) < len(var_labels) or not set(classes) <= set(var_labels):
            return None
        if any(set(ls) & set(classes) for _, ls in factors):
            return None
        contracted = tuple(s for s in var_labels if s not in labels)
        for s, axis in zip(var_labels, variable.axes, strict=True):
            axis_of[s] = axis
        inner = {s for _, ls in factors for s in ls} - set(labels) - set(contracted)
        if inner:
            for o, ls in factors:
                axis_of |= dict(zip(ls, o.axes, strict=True))
        used = {*batch, *samples, *contracted, *inner}
        coefficient = builder.product(
            owned(builder, factors),
            (*batch, *samples, *contracted),
            {s: axis_of[s] for s in used},
        )
        order = tuple(var_labels.index(s) for s in (*batch, *contracted, *classes))
        terms.append(Term(variable, coefficient, order, len(contracted)))
    return Predictor(node, batch, samples, classes, tuple(terms))
