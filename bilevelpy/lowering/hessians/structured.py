"""The lower Hessian of a bound program by its predictors, where its objective has that form and it
pays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bilevelpy.analysis.forms.predictors import Predictor, find_predictors
from bilevelpy.ir.expr import Expr, VarRef
from bilevelpy.ir.substitute import substitute
from bilevelpy.lowering.hessians.curvature import FLOPS, OVERHEAD, Curvature
from bilevelpy.lowering.hessians.weights import Weights
from bilevelpy.lowering.programs.slots import sparse_node
from bilevelpy.lowering.programs.splitting import several

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder
    from bilevelpy.lowering.programs.compiled import Programs

# Beyond this many classes a second-derivative pass per class costs more than differentiating twice.
MAX_CLASSES = 256
# Side of a matrix beyond which products with the columns of the response cost less.
LARGEST = 5_000


class StructuredHessian:
    """``f_yy`` as ``sum_k J_k' G_k J_k``; the blocks ``G_k`` of the last point are kept.

    ``constant[k]`` says that ``G_k`` reads no variable: that predictor enters by least squares.
    """

    def __init__(
        self, oracle: Programs, predictors: tuple[Predictor, ...], curvature: Curvature
    ) -> None:
        self._oracle = oracle
        self.curvature = curvature
        self._point: tuple[Tensor, Tensor] | None = None
        self._weights: list[Tensor] = []
        g, cuts = _outer(oracle.bound.program.builder, oracle.f_expr, predictors)
        self._program = Weights.of(oracle, g, cuts, curvature.shapes, oracle.program_variables)
        if self._program is not None:
            self.constant = self._program.constant
        else:
            # A function without a rule: its second derivatives are taken at run time.
            self.constant = (False,) * len(predictors)
            self._predict = oracle.function(tuple(cuts))
            self._value = oracle.function((g,), (*oracle.program_variables, *cuts.values()))

    def dense(self, x: Tensor, y: Tensor) -> Tensor:
        """The matrix at a point."""
        known = self.constant if self._program is not None else ()
        return self.curvature.dense(self.at(x, y), known)

    def moved(self, H: Tensor, start: tuple[Tensor, Tensor], end: tuple[Tensor, Tensor]) -> Any:
        """H of one point with the elementwise terms of another, such as penalties: O(m), no pass
        over data. None where no such term moves, or where a gradient is not dearer.
        """
        known = self._elementwise
        if known is None:
            return None
        which, program = known
        weights = self._program
        assert weights is not None
        old, new = (program(*self._oracle.parts(*point)) for point in (start, end))
        H = H.clone()
        for k, before, after in zip(which, old, new, strict=True):
            change = torch.as_tensor(after) - torch.as_tensor(before)
            self.curvature.moved(H, k, weights.block(k, change))
        return H

    @cached_property
    def _elementwise(self) -> tuple[list[int], Callable[..., Any]] | None:
        """The elementwise predictors that move, with the program of their weights."""
        weights, oracle = self._program, self._oracle
        if weights is None or self.curvature.m**3 / 3 / FLOPS + 2 * OVERHEAD > self.work[0] / 2:
            return None
        which = [k for k in self.curvature.elementwise() if not self.constant[k]]
        if not which:
            return None
        roots = tuple(weights.roots[k] for k in which)
        builder = oracle.bound.program.builder
        return which, several(builder, oracle.program, roots, oracle.program_variables)

    def restricted(self, x: Tensor, y: Tensor, index: Tensor) -> Tensor | None:
        """Some rows and columns of the matrix at a point, where they are to be had alone."""
        return self.curvature.restricted(self.at(x, y), index.numpy())

    def diagonal(self, x: Tensor, y: Tensor) -> Tensor:
        """The diagonal at a point."""
        return self.curvature.diagonal(self.at(x, y))

    @property
    def is_sparse(self) -> bool:
        """Whether data are sparse."""
        return self.curvature.is_sparse

    @property
    def work(self) -> tuple[float, float]:
        """Rough seconds of a gradient and of a dense Hessian with its factor, by their sizes."""
        return self.curvature.work(self.constant)

    def at(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """The blocks at a point, computed once for it."""
        if self._point is None or not (
            torch.equal(self._point[0], x) and torch.equal(self._point[1], y)
        ):
            oracle = self._oracle
            oracle.counts.grad_f += 1
            if self._program is not None:
                self._weights = self._program(oracle.parts(x, y))
            else:
                inputs = [*oracle.upper.split(x), *oracle.lower.split(y)]
                found = self._predict(*inputs)
                nodes = [
                    z.detach().requires_grad_()
                    for z in (found if isinstance(found, tuple) else (found,))
                ]
                self._weights = self.curvature.weights(self._value(*inputs, *nodes), nodes)
            self._point = (x.clone(), y.clone())
        return self._weights


class StructuredCurvature:
    """The same for another function of both levels' variables and of some ``beside`` them, at
    points that do not come again.
    """

    def __init__(self, curvature: Curvature, weights: Weights) -> None:
        self.curvature, self._weights = curvature, weights

    @classmethod
    def of(
        cls, oracle: Programs, objective: Expr, beside: Sequence[VarRef]
    ) -> StructuredCurvature | None:
        """None where the function has another form, its data are elsewhere, a function has no rule
        for its derivative, or the matrix is large: then products are taken.
        """
        if oracle.m > LARGEST or oracle.device.type != "cpu" or oracle.dtype is not torch.float64:
            return None
        found = _predictors(oracle, objective)
        if found is None:
            return None
        predictors, curvature = found
        g, cuts = _outer(oracle.bound.program.builder, objective, predictors)
        inputs = (*oracle.program_variables, *beside)
        weights = Weights.of(oracle, g, cuts, curvature.shapes, inputs)
        return None if weights is None else cls(curvature, weights)

    @property
    def roots(self) -> tuple[Expr, ...]:
        """The second derivatives in the predictors."""
        return self._weights.roots

    @property
    def passes(self) -> float:
        """What the matrix costs, in passes over the data."""
        gradient, hessian = self.curvature.work(self._weights.constant, factor=False)
        return hessian / gradient

    def dense(self, inputs: list[Any]) -> Tensor:
        """The matrix (m, m) at values of the variables and of those beside them, as programs take
        them.
        """
        return self.curvature.dense(self._weights(inputs), self._weights.constant)


def _outer(
    builder: Builder, objective: Expr, predictors: Sequence[Predictor]
) -> tuple[Expr, dict[Expr, VarRef]]:
    """g as a function of the predictors, and the inputs that stand for them: one that is a variable
    itself also feeds others, and must not see them.
    """
    cuts = {p.node: builder.var("predictor", str(k), p.node.axes) for k, p in enumerate(predictors)}
    return substitute(builder, objective, cuts), cuts


def structured_hessian(oracle: Programs) -> StructuredHessian | None:
    """The structured Hessian of an oracle, or None where the general way is right.

    None where the objective has another form, where a predictor is the variable itself with
    everything mixed (no data to gain from), and where there are many classes.
    """
    found = _predictors(oracle, oracle.f_expr)
    return None if found is None else StructuredHessian(oracle, *found)


def _predictors(
    oracle: Programs, objective: Expr
) -> tuple[tuple[Predictor, ...], Curvature] | None:
    """The predictors of a function in the lower variables, with their data."""
    program = oracle.bound.program
    builder, sizes = program.builder, oracle.bound.data.sizes
    found = find_predictors(builder, objective, frozenset(level.name for level in program.lowers))
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
        for term in predictor.terms:
            # One matrix, samples by variables, can stay sparse.
            plain = len(predictor.samples) == 1 and not predictor.batch and term.contracted == 1
            if sparse_node(term.coefficient, oracle.tensors.sparse) and not plain:
                return None
    coefficients = [
        [_coefficient(oracle, predictor, k, shape) for k in range(len(predictor.terms))]
        for predictor, shape in zip(found, shapes, strict=True)
    ]
    return found, Curvature(found, shapes, coefficients, oracle.lower.positions(), oracle.m)


def _coefficient(
    oracle: Programs, predictor: Predictor, position: int, shape: tuple[int, ...]
) -> Any:
    """A term's coefficient in the shape batch, samples, contracted (broadcast where it does not
    carry them); a sparse one as it is.
    """
    term = predictor.terms[position]
    if sparse_node(term.coefficient, oracle.tensors.sparse):
        return oracle.tensors.linear_map(term.coefficient).csr
    sizes = oracle.bound.data.sizes
    start = len(predictor.batch)
    contracted = [sizes[term.variable.axes[d]] for d in term.order[start : start + term.contracted]]
    full = [shape[d] for d in (*predictor.batch, *predictor.samples)] + contracted
    return oracle.tensors.tensor(term.coefficient).expand(full)
