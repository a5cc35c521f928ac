"""Full passes over data that stays in its files: every evaluation adds up blocks of rows.

Memory is bounded by a block, whatever the length of the data. The graph of a point is not kept
between products, for it would hold the data: a product costs a gradient more than in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from bilevelpy.ir.expr import Expr, VarRef
from bilevelpy.ir.mapped import streamed_bytes
from bilevelpy.ir.program import BoundProgram
from bilevelpy.lowering.batch_oracle import BatchOracle
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.protocol import Counts
from bilevelpy.lowering.sampled import SampledObjective, candidates, sampled_objectives

Vec = Tensor

# Bytes of rows, in float64, that are evaluated at once.
BLOCK = 1 << 24


def is_streamed(bound: BoundProgram) -> bool:
    """Whether the data of a program stays in its files: mapped, and more than memory may take."""
    return streamed_bytes(bound.data.arrays.values()) > 0


def make_oracle(bound: BoundProgram) -> TorchOracle:
    """The oracle of a program: by blocks of rows where data stays in files."""
    return StreamedOracle(bound) if is_streamed(bound) else TorchOracle(bound)


class StreamedOracle(TorchOracle):
    """The oracle of a program whose objectives are sums over axes of data in files."""

    def function(
        self, expressions: tuple[Expr, ...], inputs: tuple[VarRef, ...] | None = None
    ) -> Callable[..., Any]:
        """As in memory, but the data is looked at where the function is called."""
        make = super().function
        return lambda *values: make(expressions, inputs)(*values)

    program = function

    @cached_property
    def objectives_by_rows(self) -> tuple[SampledObjective, SampledObjective]:
        """Lower and upper objective, cut into blocks."""
        lower, upper = sampled_objectives(self)
        for objective in (lower, upper):
            if objective.sums:
                objective.divide_evenly(BLOCK)
        return lower, upper

    # --- blocks -----------------------------------------------------------------------------------

    def _blocks(self, objective: SampledObjective) -> Iterator[BatchOracle]:
        """The parts of an objective, one after another."""
        for part in objective.parts():
            yield BatchOracle(self, part, part, Counts())

    @property
    def _lower(self) -> Iterator[BatchOracle]:
        return self._blocks(self.objectives_by_rows[0])

    @property
    def _upper(self) -> Iterator[BatchOracle]:
        return self._blocks(self.objectives_by_rows[1])

    # --- values and gradients ---------------------------------------------------------------------

    def F(self, x: Vec, y: Vec) -> float:
        """The upper objective."""
        self.counts.F += 1
        return sum(b.F(x, y) for b in self._upper)

    def f(self, x: Vec, y: Vec) -> float:
        """The lower objective."""
        self.counts.f += 1
        return sum(b.f(x, y) for b in self._lower)

    def value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        """F, dF/dx and dF/dy in one pass."""
        self.counts.F += 1
        self.counts.grad_F += 1
        value, by_x, by_y = 0.0, x.new_zeros(self.n), y.new_zeros(self.m)
        for b in self._upper:
            part, part_x, part_y = b.value_grad_F(x, y)
            value, by_x, by_y = value + part, by_x + part_x, by_y + part_y
        return value, by_x, by_y

    def grad_F(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        """(dF/dx, dF/dy)."""
        self.counts.F -= 1
        return self.value_grad_F(x, y)[1:]

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """The lower objective and df/dy in one pass."""
        self.counts.f += 1
        self.counts.grad_f += 1
        value, by_y = 0.0, y.new_zeros(self.m)
        for b in self._lower:
            part, part_y = b.value_grad_f(x, y)
            value, by_y = value + part, by_y + part_y
        return value, by_y

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """df/dy."""
        self.counts.f -= 1
        return self.value_grad_f(x, y)[1]

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """df/dx."""
        self.counts.grad_f += 1
        total = x.new_zeros(self.n)
        for b in self._lower:
            total = total + b.grad_f_x(x, y)
        return total

    # --- products ---------------------------------------------------------------------------------

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (f_yy v, f_xy v)``, a pass for each."""

        def product(v: Vec) -> tuple[Vec, Vec]:
            self.counts.grad_f += 1
            self.counts.hvp += 1
            self.counts.jvp += 1
            by_y, by_x = y.new_zeros(self.m), x.new_zeros(self.n)
            for b in self._lower:
                part_y, part_x = b.pullback(x, y)(v)
                by_y, by_x = by_y + part_y, by_x + part_x
            return by_y, by_x

        return product

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_yy v``, a pass for each."""

        def product(v: Vec) -> Vec:
            self.counts.grad_f += 1
            self.counts.hvp += 1
            total = y.new_zeros(self.m)
            for b in self._lower:
                total = total + b.hvp(x, y)(v)
            return total

        return product

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_xy v``, a pass for each."""

        def product(v: Vec) -> Vec:
            self.counts.grad_f += 1
            self.counts.jvp += 1
            total = x.new_zeros(self.n)
            for b in self._lower:
                total = total + b.cross(x, y)(v)
            return total

        return product

    @property
    def kept_quadratic(self) -> None:
        """Nothing: evaluations go by blocks of rows."""
        return

    @property
    def joint_quadratic(self) -> None:
        """Nothing: it would need all rows in one place."""
        return

    @property
    def second_order(self) -> None:
        """Nothing: columns of dy/dx by passes over all rows cost more than upper steps."""
        return

    @property
    def structured(self) -> None:
        """Nothing: predictors of all rows do not fit into memory."""
        return

    @property
    def hessian_price(self) -> float:
        """About how many values with gradients a dense Hessian is worth: products in batches."""
        return 3.0 + self.m / 50

    def hessian(self, x: Vec, y: Vec) -> Tensor:
        """f_yy as a dense symmetric (m, m) tensor, in one pass."""
        self.counts.grad_f += 1
        self.counts.hvp += self.m
        total = y.new_zeros(self.m, self.m)
        for b in self._lower:
            total = total + b.hessian(x, y)
        return total

    # --- expressions ------------------------------------------------------------------------------

    def evaluate(self, expression: Expr, x: Vec, y: Vec) -> np.ndarray[Any, Any]:
        """Any expression of the program at a point; sums over data by blocks."""
        if expression.rank:
            value = super().function((expression,))(*self.upper.split(x), *self.lower.split(y))
            return np.asarray(value.detach().cpu().numpy())
        objective = SampledObjective(self, expression, candidates(self, expression, frozenset()))
        objective.divide_evenly(BLOCK)
        variables = (*self.upper.split(x), *self.lower.split(y))
        return np.array(sum(float(part(*variables)) for part in objective.parts()))
