"""The functions of two flat vectors that belong to a batch of the data.

Independent of the programs that serve full passes: a batch is evaluated once or a few times, and
its derivatives are reverse differentiation of the sum over its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bilevelpy.lowering.programs.differentiate import batched_gradients, gradient, gradients

if TYPE_CHECKING:
    from bilevelpy.lowering.programs.named import NamedPrograms

Vec = Tensor
Function = Callable[..., Tensor]
# Directions of a dense Hessian that are multiplied at once.
COLUMNS = 64


class BatchOracle:
    """An oracle (:class:`bilevelpy.lowering.protocol.Oracle`) of other objectives ``F`` and ``f``
    over the variables of ``parent``; ``counts`` takes the evaluations.
    """

    def __init__(self, parent: NamedPrograms, F: Function, f: Function, counts: Any) -> None:
        self.n, self.m = parent.n, parent.m
        self.x0, self.y0 = parent.x0, parent.y0
        self.domain_x, self.domain_y = parent.domain_x, parent.domain_y
        self.F_sign, self.f_sign = parent.F_sign, parent.f_sign
        self.upper, self.lower = parent.upper, parent.lower
        self.counts = counts
        self._F, self._f = F, f

    # --- values and gradients ---------------------------------------------------------------------

    def F(self, x: Vec, y: Vec) -> float:
        """The upper objective."""
        self.counts.F += 1
        return self._F(*self.upper.split(x), *self.lower.split(y)).item()

    def f(self, x: Vec, y: Vec) -> float:
        """The lower objective."""
        self.counts.f += 1
        return self._f(*self.upper.split(x), *self.lower.split(y)).item()

    def value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        """F, dF/dx and dF/dy in one evaluation."""
        self.counts.F += 1
        return self._value_grad_F(x, y)

    def grad_F(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        """(dF/dx, dF/dy)."""
        return self._value_grad_F(x, y)[1:]

    def _value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        self.counts.grad_F += 1
        xs, ys = self.upper.leaves(x), self.lower.leaves(y)
        value = self._F(*xs, *ys)
        grads = gradient(value, [*xs, *ys])
        return value.item(), self._x(grads[: len(xs)], x), self._y(grads[len(xs) :], y)

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """The lower objective and df/dy in one evaluation."""
        self.counts.f += 1
        self.counts.grad_f += 1
        ys = self.lower.leaves(y)
        value = self._f(*self.upper.split(x), *ys)
        return value.item(), self._y(gradient(value, ys), y)

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """df/dy."""
        self.counts.grad_f += 1
        ys = self.lower.leaves(y)
        return self._y(gradient(self._f(*self.upper.split(x), *ys), ys), y)

    def flat_f(self, x: Tensor, y: Tensor) -> Tensor:
        """f as a function of the two flat vectors that torch transforms; not counted."""
        xs = [x[p.start : p.stop].reshape(p.shape) for p in self.upper.pieces]
        ys = [y[p.start : p.stop].reshape(p.shape) for p in self.lower.pieces]
        return self._f(*xs, *ys)

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """df/dx."""
        self.counts.grad_f += 1
        xs = self.upper.leaves(x)
        return self._x(gradient(self._f(*xs, *self.lower.split(y)), xs), x)

    def grads_f(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        """(df/dx, df/dy) in one evaluation."""
        self.counts.grad_f += 1
        xs, ys = self.upper.leaves(x), self.lower.leaves(y)
        grads = gradient(self._f(*xs, *ys), [*xs, *ys])
        return self._x(grads[: len(xs)], x), self._y(grads[len(xs) :], y)

    # --- products ---------------------------------------------------------------------------------

    def triple(self, x: Vec, y: Vec, u: Vec) -> tuple[Vec, Vec, Vec]:
        """``f_y``, ``f_yy u`` and ``f_xy u`` through one graph."""
        self.counts.hvp += 1
        self.counts.jvp += 1
        xs, ys = self.upper.leaves(x), self.lower.leaves(y)
        first = self._first(xs, ys)
        parts = gradients(first, [*ys, *xs], self.lower.split(u))
        g = self._y([None if p is None else p.detach() for p in first], y)
        return g, self._y(parts[: len(ys)], u), self._x(parts[len(ys) :], u)

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (f_yy v, f_xy v)``, built once at (x, y)."""
        xs, ys = self.upper.leaves(x), self.lower.leaves(y)
        first = self._first(xs, ys)

        def product(v: Vec) -> tuple[Vec, Vec]:
            self.counts.hvp += 1
            self.counts.jvp += 1
            parts = gradients(first, [*ys, *xs], self.lower.split(v))
            return self._y(parts[: len(ys)], v), self._x(parts[len(ys) :], v)

        return product

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_yy v``."""
        ys = self.lower.leaves(y)
        first = self._first(self.upper.split(x), ys)

        def product(v: Vec) -> Vec:
            self.counts.hvp += 1
            return self._y(gradients(first, ys, self.lower.split(v)), v)

        return product

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_xy v``."""
        xs, ys = self.upper.leaves(x), self.lower.leaves(y)
        first = self._first(xs, ys)

        def product(v: Vec) -> Vec:
            self.counts.jvp += 1
            return self._x(gradients(first, xs, self.lower.split(v)), v)

        return product

    def hessian(self, x: Vec, y: Vec) -> Tensor:
        """f_yy as a dense symmetric (m, m) tensor."""
        ys = self.lower.leaves(y)
        first = self._first(self.upper.split(x), ys)
        self.counts.hvp += self.m
        eye = torch.eye(self.m, dtype=y.dtype)
        rows = [
            self.lower.join_rows(batched_gradients(first, ys, self.lower.split_rows(part)), part)
            for part in eye.split(COLUMNS)
        ]
        H = torch.cat(rows) if rows else y.new_zeros(0, 0)
        return 0.5 * (H + H.T)

    def _first(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """df/dy with its graph."""
        self.counts.grad_f += 1
        return gradient(self._f(*xs, *ys), ys, create=True)

    def _x(self, parts: Sequence[Tensor | None], like: Vec) -> Vec:
        return self._joined(self.upper, parts, like)

    def _y(self, parts: Sequence[Tensor | None], like: Vec) -> Vec:
        return self._joined(self.lower, parts, like)

    @staticmethod
    def _joined(layout: Any, parts: Sequence[Tensor | None], like: Vec) -> Vec:
        joined: Vec = layout.join(parts, like)
        return joined
