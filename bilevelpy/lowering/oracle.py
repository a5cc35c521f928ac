"""A bound program as functions of two flat vectors.

Gradients and second-order products are programs of their own, derived from the expressions once
(:mod:`bilevelpy.lowering.programs.derive`): an evaluation keeps no tape. Where a function has no
rule there, gradients are reverse differentiation at run time, and products differentiate the
gradient once more in reverse, through one graph that is kept. Either way a product costs about two
gradients, and no data matrix is ever differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bilevelpy.lowering.hessians.known import KnownStructure
from bilevelpy.lowering.programs.differentiate import batched_gradients, gradient, gradients
from bilevelpy.lowering.programs.layout import Layout

Vec = Tensor
# Entries that the batched products of a dense Hessian may take at once (256 MB).
BATCH_ENTRIES = 32_000_000


class TorchOracle(KnownStructure):
    """The oracle of a bound program (:class:`bilevelpy.lowering.protocol.Oracle`)."""

    # --- values -----------------------------------------------------------------------------------

    def F(self, x: Vec, y: Vec) -> float:
        """The upper objective."""
        self.counts.F += 1
        return float(self._F(*self.parts(x, y)))

    def f(self, x: Vec, y: Vec) -> float:
        """The lower objective."""
        self.counts.f += 1
        if self.expanded is not None:
            return self.expanded.value_gradient(x, y)[0]
        return float(self._f(*self.parts(x, y))[0])

    # --- gradients --------------------------------------------------------------------------------

    def value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        """F, dF/dx and dF/dy in one evaluation."""
        self.counts.F += 1
        self.counts.grad_F += 1
        return self._value_grad_F(x, y)

    def grad_F(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        """(dF/dx, dF/dy)."""
        self.counts.grad_F += 1
        return self._value_grad_F(x, y)[1:]

    def _value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        program = self._dF.gradient(value=True, by_x=True, by_y=True)
        count = len(self.upper.pieces)
        if program is None:
            leaves = [*self.upper.leaves(x), *self.lower.leaves(y)]
            value = self.function((self.F_expr,))(*leaves)
            grads = gradient(value, leaves)
            return (
                value.item(),
                self.upper.join(grads[:count], x),
                self.lower.join(grads[count:], y),
            )
        value, *parts = program(*self.parts(x, y))
        return (
            float(value),
            self.joined(self.upper, parts[:count], x),
            self.joined(self.lower, parts[count:], y),
        )

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """The lower objective and df/dy in one evaluation."""
        self.counts.f += 1
        self.counts.grad_f += 1
        if self.expanded is not None:
            return self.expanded.value_gradient(x, y)
        program = self._df.gradient(value=True, by_x=False, by_y=True)
        if program is None:
            value, grads = self._taped(x, self.lower.leaves(y))
            return value, self.lower.join(grads, y)
        found, *parts = program(*self.parts(x, y))
        return float(found), self.joined(self.lower, parts, y)

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """df/dy."""
        self.counts.grad_f += 1
        if self.expanded is not None:
            return self.expanded.value_gradient(x, y)[1]
        program = self._df.gradient(value=False, by_x=False, by_y=True)
        if program is None:
            return self.lower.join(self._taped(x, self.lower.leaves(y))[1], y)
        return self.joined(self.lower, program(*self.parts(x, y)), y)

    def _taped(self, x: Vec, ys: list[Tensor]) -> tuple[float, Sequence[Tensor | None]]:
        """f and df/dy where a function has no rule for its derivative."""
        value = self.function((self.f_expr,))(*self.upper.split(x), *ys)
        return value.item(), gradient(value, ys)

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """df/dx."""
        self.counts.grad_f += 1
        program = self._df.gradient(value=False, by_x=True, by_y=False)
        if program is None:
            xs = self.upper.leaves(x)
            value = self.function((self.f_expr,))(*xs, *self.lower.split(y))
            return self.upper.join(gradient(value, xs), x)
        return self.joined(self.upper, program(*self.parts(x, y)), x)

    # --- second order -----------------------------------------------------------------------------

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (f_yy v, f_xy v)``, built once at (x, y) and reused by every product."""
        kept = self._kept_product(x, y)
        if kept is not None:
            across = self.cross(x, y)

            def both(v: Vec) -> tuple[Vec, Vec]:
                self.counts.hvp += 1
                return kept(v), across(v)

            return both
        call, join = self._products(x, y, by_x=True, by_y=True)
        count = len(self.lower.pieces)

        def product(v: Vec) -> tuple[Vec, Vec]:
            self.counts.hvp += 1
            self.counts.jvp += 1
            parts = call(v)
            return join(self.lower, parts[:count], v), join(self.upper, parts[count:], v)

        return product

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_yy v``."""
        kept = self._kept_product(x, y)
        if kept is not None:
            self.counts.grad_f += 1

            def alone(v: Vec) -> Vec:
                self.counts.hvp += 1
                return kept(v)

            return alone
        call, join = self._products(x, y, by_x=False, by_y=True)

        def product(v: Vec) -> Vec:
            self.counts.hvp += 1
            return join(self.lower, call(v), v)

        return product

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_xy v`` (length n)."""
        call, join = self._products(x, y, by_x=True, by_y=False)

        def product(v: Vec) -> Vec:
            self.counts.jvp += 1
            return join(self.upper, call(v), v)

        return product

    def _kept_product(self, x: Vec, y: Vec) -> Callable[[Vec], Vec] | None:
        """``v -> f_yy v`` by the kept matrix, where that is less work than the data."""
        if self.expanded is None or self.quadratic is None:
            return None
        return self.quadratic.product(x, y)

    def _products(
        self, x: Vec, y: Vec, *, by_x: bool, by_y: bool
    ) -> tuple[Callable[[Vec], Sequence[Any]], Callable[[Layout, Sequence[Any], Vec], Vec]]:
        """A direction -> f_yy v, f_xy v by variable, as asked for; and what makes vectors of
        them.
        """
        program = self._df.product(by_x=by_x, by_y=by_y)
        if program is not None:
            self.counts.grad_f += 1
            at = program.at(self.parts(x, y))
            return (lambda v: at(self.along(v))), self.joined
        xs = self.upper.leaves(x) if by_x else self.upper.split(x)
        ys = self.lower.leaves(y)
        first = self._first(xs, ys)
        inputs = [*(ys if by_y else ()), *(xs if by_x else ())]
        return (lambda v: gradients(first, inputs, self.lower.split(v))), Layout.join

    def _first(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """df/dy with its graph."""
        self.counts.grad_f += 1
        return gradient(self.function((self.f_expr,))(*xs, *ys), ys, create=True)

    def hessian(self, x: Vec, y: Vec) -> Tensor:
        """f_yy as a dense symmetric (m, m) tensor."""
        if self.quadratic is not None:
            return self.quadratic.dense(x, y)
        if self.structured is not None:
            return self.structured.dense(x, y)
        if self.assembled is not None:
            self.counts.grad_f += 1
            return self.assembled.dense(x, y)
        if self.wide and self._df.product(by_x=False, by_y=True) is not None:
            H = torch.stack([*map(self.hvp(x, y), torch.eye(self.m, dtype=y.dtype))])
            return 0.5 * (H + H.T)
        ys = self.lower.leaves(y)
        first = self._first(self.upper.split(x), ys)
        self.counts.hvp += self.m
        step = max(1, min(self.m, BATCH_ENTRIES // max(1, self.width)))
        rows = []
        for low in range(0, self.m, step):
            high = min(low + step, self.m)
            unit = torch.zeros(high - low, self.m, dtype=self.dtype, device=self.device)
            unit[:, low:high].fill_diagonal_(1.0)
            parts = batched_gradients(first, ys, self.lower.split_rows(unit))
            rows.append(self.lower.join_rows(parts, unit))
        H = torch.cat(rows) if rows else y.new_zeros(0, 0)
        return 0.5 * (H + H.T)
