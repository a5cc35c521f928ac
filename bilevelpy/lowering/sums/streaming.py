"""Full passes over data that stays in its files: every evaluation adds up blocks of rows.

Memory is bounded by a block, whatever the length of the data. The graph of a point is not kept
between products, for it would hold the data: a product costs a gradient more than in memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from bilevelpy.ir.expr import Expr, VarRef
from bilevelpy.ir.mapped import streamed_bytes
from bilevelpy.ir.program import BoundProgram
from bilevelpy.ir.types import Sense
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.programs.memory import BLOCK, check_held, long_block
from bilevelpy.lowering.protocol import Counts
from bilevelpy.lowering.sums.batch_oracle import BatchOracle
from bilevelpy.lowering.sums.batches import Partition, Positions
from bilevelpy.lowering.sums.sampled import SampledObjective, Sum, candidates, sampled_objectives
from bilevelpy.lowering.sums.statistics import summarised

Vec = Tensor


def is_streamed(bound: BoundProgram) -> bool:
    """Whether the data of a program stays in its files: mapped, and more than memory may take."""
    return streamed_bytes(bound.data.arrays.values()) > 0


def make_oracle(bound: BoundProgram, seconds: float = math.inf) -> TorchOracle:
    """The oracle of a program. Where data stays in files, quadratic sums over its rows by their
    statistics, where those are to be had in so many seconds, others by blocks of rows.
    """
    if not is_streamed(bound):
        return TorchOracle(bound)
    rows = StreamedOracle(bound)
    found = summarised(rows, time.perf_counter() + seconds)
    if found is None:
        return rows
    made = StreamedOracle(found.bound) if is_streamed(found.bound) else TorchOracle(found.bound)
    made.by_rows, made.summary = rows, found
    return made


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
        """Lower and upper objective, cut into blocks.

        Raises
        ------
        ModelError
            Where something else than a sum over rows reads more than memory may take.
        """
        lower, upper = sampled_objectives(self)
        rows = [t for v in self.bound.program.levels for c in v.constraints for t in c.terms]
        check_held(self.bound, [*lower.rest, *upper.rest, *rows])
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
    def predicted(self) -> None:
        """Nothing: predictors of all rows do not fit into memory."""
        return

    def _second(self, *, values: bool) -> None:
        """Nothing: a sparse f_yy, and the bands that are read off it, are made of all rows."""

    @property
    def hessian_price(self) -> float:
        """About how many values with gradients a dense Hessian is worth: products in batches."""
        return 3.0 + self.m / 50

    def hessian(self, x: Vec, y: Vec) -> Tensor:
        """f_yy as a dense symmetric (m, m) tensor, in one pass."""
        self.counts.grad_f += 1
        self.counts.hvp += self.m
        objective = self.objectives_by_rows[0]
        total = y.new_zeros(self.m, self.m)
        if objective.free is not None:
            total = total + BatchOracle(self, objective.free, objective.free, Counts()).hessian(
                x, y
            )
        for part in objective.sums:
            cut = Partition(part.size, max(1, long_block() // part.source.row_bytes))
            for j in range(len(cut)):
                alone = self._rows_alone(part, cut.rows(j))
                total = total + alone.hessian(x, y)
                # Its parts refer to it: the rows would stay until the next collection.
                vars(alone).clear()
        return total

    def _rows_alone(self, part: Sum, rows: Positions) -> TorchOracle:
        """The program whose lower objective is the sum over some rows."""
        program = self.bound.program
        builder, (first, *others) = program.builder, program.lowers
        zero = builder.const(0.0)
        lowers = (
            replace(first, objective=part.sampled.value, sense=Sense.MINIMIZE, constraints=()),
            *(replace(level, objective=zero, constraints=()) for level in others),
        )
        upper = replace(program.upper, objective=zero, constraints=())
        short = replace(program, upper=upper, lowers=lowers)
        return TorchOracle(BoundProgram(short, part.source.data(rows)))

    # --- expressions ------------------------------------------------------------------------------

    def _evaluated(self, expression: Expr, x: Vec, y: Vec) -> np.ndarray[Any, Any]:
        """Sums over data by blocks."""
        if expression.rank:
            value = super().function((expression,))(*self.upper.split(x), *self.lower.split(y))
            return np.asarray(value.detach().cpu().numpy())
        objective = SampledObjective(self, expression, candidates(self, expression, frozenset()))
        objective.divide_evenly(BLOCK)
        variables = (*self.upper.split(x), *self.lower.split(y))
        return np.array(sum(float(part(*variables)) for part in objective.parts()))
