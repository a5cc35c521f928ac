"""A compiled model for people who bring their own solver: NumPy vectors in, NumPy vectors out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from bilevelpy.errors import BackendError
from bilevelpy.expectations import environment
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.certificate.resolve import Resolver

NO_SOLUTION = "the lower level has no finite solution at this x"
Vector = np.ndarray[Any, np.dtype[np.float64]]


class Oracle:
    """The model as functions of ``x`` in R^n (upper variables) and ``y`` in R^m (lower ones).

    Both levels are minimisations here: a level that maximises has its sign turned. ``bounds_x`` and
    ``bounds_y`` are pairs of vectors; simplices and balls show there as the box around them.
    ``counts`` counts every evaluation.
    """

    def __init__(self, oracle: TorchOracle) -> None:
        self._oracle = oracle
        self.n = oracle.n
        self.m = oracle.m
        self.x0: Vector = _out(oracle.x0)
        self.y0: Vector = _out(oracle.y0)
        self.bounds_x = (_out(oracle.domain_x.lower), _out(oracle.domain_x.upper))
        self.bounds_y = (_out(oracle.domain_y.lower), _out(oracle.domain_y.upper))

    @property
    def counts(self) -> dict[str, int]:
        """Evaluations so far, by kind."""
        return self._oracle.counts.as_dict()

    def F(self, x: Any, y: Any) -> float:
        """The upper objective."""
        return self._oracle.F(_in(x, self.n), _in(y, self.m))

    def f(self, x: Any, y: Any) -> float:
        """The lower objective."""
        return self._oracle.f(_in(x, self.n), _in(y, self.m))

    def grad_F(self, x: Any, y: Any) -> tuple[Vector, Vector]:
        """(dF/dx, dF/dy)."""
        by_x, by_y = self._oracle.grad_F(_in(x, self.n), _in(y, self.m))
        return _out(by_x), _out(by_y)

    def grad_f(self, x: Any, y: Any) -> Vector:
        """df/dy."""
        return _out(self._oracle.grad_f(_in(x, self.n), _in(y, self.m)))

    def pullback(self, x: Any, y: Any) -> Callable[[Any], tuple[Vector, Vector]]:
        """``v -> (f_yy v, f_xy v)``, built once at (x, y)."""
        product = self._oracle.pullback(_in(x, self.n), _in(y, self.m))

        def call(v: Any) -> tuple[Vector, Vector]:
            by_y, by_x = product(_in(v, self.m))
            return _out(by_y), _out(by_x)

        return call

    def hessian(self, x: Any, y: Any) -> Vector:
        """f_yy as a dense matrix."""
        return _out(self._oracle.hessian(_in(x, self.n), _in(y, self.m)))

    def response(self, x: Any) -> Vector:
        """The lower solution y(x), solved tightly from ``y0``."""
        point = _in(x, self.n)
        lower = self._solver(point).solved(point, self._oracle.y0)
        if lower is None:
            raise BackendError(NO_SOLUTION)
        return _out(lower.y)

    def hypergradient(self, x: Any) -> Vector:
        """The gradient of F(x, y(x)), with lower and adjoint problem solved to rounding level."""
        point = _in(x, self.n)
        answer = self._solver(point).answer(point, self._oracle.y0)
        if answer is None:
            raise BackendError(NO_SOLUTION)
        return _out(answer.gradient)

    def unflatten(self, x: Any, y: Any) -> tuple[Mapping[str, Vector], Mapping[str, Any]]:
        """Upper variables by name, lower ones by follower and name."""
        vectors = _in(x, self.n), _in(y, self.m)
        return self._oracle.unflatten_x(vectors[0]), self._oracle.unflatten_y(vectors[1])

    def reports(self, x: Any, y: Any) -> dict[str, Vector]:
        """The values of the model's reports, by name."""
        upper, lower = self.unflatten(x, y)
        bound = (self._oracle.by_rows or self._oracle).bound
        run = Interpreter(bound.data, environment(upper, lower), bound.program.externs)
        return {n: np.asarray(run.value(r.value)) for n, r in bound.program.reports.items()}

    def _solver(self, point: torch.Tensor) -> Resolver:
        """What solves the lower level and the adjoint tightly at a point."""
        rng = torch.Generator().manual_seed(0)
        return Resolver(self._oracle, point, self._oracle.y0, rng)


def _in(values: Any, size: int) -> torch.Tensor:
    """A vector of a caller's as a tensor of its own."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    vector = np.array(values, dtype=np.float64).reshape(-1)
    if vector.size != size:
        raise ValueError(f"expected a vector of length {size}, found one of length {vector.size}")
    return torch.from_numpy(vector)


def _out(tensor: torch.Tensor) -> Vector:
    """A tensor as an array of its own."""
    return tensor.detach().cpu().numpy().copy()
