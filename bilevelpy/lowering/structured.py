"""The lower Hessian of a bound program by its predictors, where its objective has that form and it
pays.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bilevelpy.analysis.predictors import Predictor, find_predictors
from bilevelpy.ir.expr import VarRef
from bilevelpy.ir.substitute import substitute
from bilevelpy.lowering.curvature import Curvature
from bilevelpy.lowering.slots import sparse_node

if TYPE_CHECKING:
    from bilevelpy.lowering.oracle import TorchOracle

# Beyond this many classes a second-derivative pass per class costs more than differentiating twice.
MAX_CLASSES = 256


class StructuredHessian:
    """``f_yy`` as ``sum_k J_k' G_k J_k``; the blocks ``G_k`` of the last point are kept."""

    def __init__(
        self, oracle: TorchOracle, predictors: tuple[Predictor, ...], curvature: Curvature
    ) -> None:
        builder = oracle.bound.program.builder
        # g takes the predictors as inputs: one that is a variable itself also feeds others, and
        # must not see them.
        cuts = {
            p.node: builder.var("predictor", str(k), p.node.axes) for k, p in enumerate(predictors)
        }
        g = substitute(builder, oracle.f_expr, cuts)
        self._oracle = oracle
        self._predict = oracle.function(tuple(cuts))
        self._value = oracle.function((g,), tuple(cuts.values()))
        self._curvature = curvature
        self._point: tuple[Tensor, Tensor] | None = None
        self._weights: list[Tensor] = []

    def dense(self, x: Tensor, y: Tensor) -> Tensor:
        """The matrix at a point."""
        return self._curvature.dense(self._at(x, y))

    def product(self, x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        """``v -> f_yy v`` at a point."""
        weights = self._at(x, y)
        return lambda v: self._curvature.multiply(weights, v)

    @property
    def work(self) -> tuple[float, float]:
        """Rough seconds of a gradient and of a dense Hessian with its factor, by their sizes."""
        return self._curvature.work

    def _at(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """The blocks at a point, computed once for it."""
        if self._point is None or not (
            torch.equal(self._point[0], x) and torch.equal(self._point[1], y)
        ):
            oracle = self._oracle
            oracle.counts.grad_f += 1
            inputs = [*oracle.upper.split(x), *oracle.lower.split(y)]
            found = self._predict(*inputs)
            nodes = [
                z.detach().requires_grad_()
                for z in (found if isinstance(found, tuple) else (found,))
            ]
            self._weights = self._curvature.weights(self._value(*inputs, *nodes), nodes)
            self._point = (x.clone(), y.clone())
        return self._weights


def structured_hessian(oracle: TorchOracle) -> StructuredHessian | None:
    """The structured Hessian of an oracle, or None where the general way is right.

    None where the objective has another form, where a predictor is the variable itself with
    everything mixed (no data to gain from), where there are many classes, and where coefficients
    are sparse.
    """
    program = oracle.bound.program
    builder, sizes = program.builder, oracle.bound.data.sizes
    found = find_predictors(
        builder, oracle.f_expr, frozenset(level.name for level in program.lowers)
    )
    if not found:
        return None
    shapes = [tuple(sizes[a] for a in p.node.axes) for p in found]
    for predictor, shape in zip(found, shapes, strict=True):
        classes = prod(shape[d] for d in predictor.classes)
        whole = (
            isinstance(predictor.node, VarRef) and len(predictor.classes) == predictor.node.rank > 0
        )
        if classes > MAX_CLASSES or whole:
            return None
        if any(sparse_node(term.coefficient, oracle.tensors.sparse) for term in predictor.terms):
            return None
    coefficients = [
        [_coefficient(oracle, predictor, k, shape) for k in range(len(predictor.terms))]
        for predictor, shape in zip(found, shapes, strict=True)
    ]
    curvature = Curvature(found, shapes, coefficients, oracle.lower.positions(), oracle.m)
    return StructuredHessian(oracle, found, curvature)


def _coefficient(
    oracle: TorchOracle, predictor: Predictor, position: int, shape: tuple[int, ...]
) -> Tensor:
    """A term's coefficient in the shape batch, samples, contracted (broadcast where it does not
    carry them).
    """
    term = predictor.terms[position]
    sizes = oracle.bound.data.sizes
    start = len(predictor.batch)
    contracted = [sizes[term.variable.axes[d]] for d in term.order[start : start + term.contracted]]
    full = [shape[d] for d in (*predictor.batch, *predictor.samples)] + contracted
    return oracle.tensor(term.coefficient).expand(full)
