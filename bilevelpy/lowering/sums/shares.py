"""The part of both objectives that belongs to one of several processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial

import torch
from torch import Tensor

from bilevelpy.errors import UsageError
from bilevelpy.ir.expr import Expr
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.programs.memory import BLOCK
from bilevelpy.lowering.protocol import Counts
from bilevelpy.lowering.sums.batch_oracle import BatchOracle, Function
from bilevelpy.lowering.sums.nonfinite import first_bad, sums_of
from bilevelpy.lowering.sums.sampled import Sum
from bilevelpy.lowering.sums.streaming import is_streamed

Vec = Tensor
KINDS = ("pullback", "hvp", "cross")


class Ask(IntEnum):
    """What is asked of a rank. A product is made at a point, used for directions, and released."""

    STOP = 0
    F = 1
    f = 2
    DF = 3
    DF_X = 4
    DF_Y = 5
    MAKE = 6
    USE = 7
    DROP = 8
    HESSIAN = 9
    BAD_F = 10
    BAD_f = 11


class Share:
    """A rank's part of both objectives, and what it answers to requests.

    Each objective is a list of parts that add up. In memory there is one part, kept; rows of data
    that stays in files are cut into blocks, which are read when they are evaluated.
    """

    def __init__(self, oracle: TorchOracle, rank: int, world: int) -> None:
        self.n, self.m = oracle.n, oracle.m
        self.oracle, self.rank, self.world = oracle, rank, world
        self.in_files = is_streamed(oracle.bound)
        self.sums: list[list[tuple[Sum, int, int]]] = []
        self.parts = [self._parts(e) for e in (oracle.F_expr, oracle.f_expr)]
        if not any(self.sums):
            raise UsageError(
                "no objective of this model is a sum over an axis of its data or its followers: "
                "there is nothing to divide among processes"
            )
        self.products: dict[int, Callable[[Vec], Tensor]] = {}

    def _parts(self, objective: Expr) -> list[Callable[[], BatchOracle]]:
        """The objective on the rows of a rank; the part without rows belongs to rank 0."""
        oracle = self.oracle
        free, sums = sums_of(oracle, objective)
        made: list[Callable[[], Function]] = []
        if free and self.rank == 0:
            made.append(partial(oracle.function, (oracle.bound.program.builder.add(free),)))
        own = []
        for part in sums:
            first, last = (part.size * r // self.world for r in (self.rank, self.rank + 1))
            own.append((part, first, last))
            rows = max(1, BLOCK // part.source.row_bytes) if self.in_files else max(1, last - first)
            for low in range(first, last, rows):
                made.append(partial(part.at, slice(low, min(low + rows, last))))
        self.sums.append(own)
        if self.in_files and made:
            return [partial(self._oracle_of, [make]) for make in made]
        kept = self._oracle_of(made)
        return [lambda: kept]

    def _oracle_of(self, made: Sequence[Callable[[], Function]]) -> BatchOracle:
        """The oracle of the sum of some functions."""
        functions, dtype = [make() for make in made], self.oracle.dtype

        def value(*variables: Tensor) -> Tensor:
            # A rank without rows adds nothing, but differentiably so.
            total = sum((0.0 * v.sum() for v in variables), torch.zeros((), dtype=dtype))
            for function in functions:
                total = total + function(*variables)
            return total

        return BatchOracle(self.oracle, value, value, Counts())

    def _total(self, level: int, evaluate: Callable[[BatchOracle], Tensor]) -> Tensor:
        """What the parts of an objective (0: F, 1: f) answer, added up."""
        first, *others = self.parts[level]
        total = evaluate(first())
        for part in others:
            total = total + evaluate(part())
        return total

    def answer(self, request: Ask, number: int, x: Vec, y: Vec, v: Vec) -> Tensor | None:
        """The rank's part of what is asked for, as one vector."""
        if request == Ask.F:
            return self._total(0, lambda part: x.new_tensor([part.F(x, y)]))
        if request == Ask.f:
            return self._total(1, lambda part: x.new_tensor([part.f(x, y)]))
        if request == Ask.DF:
            return self._total(0, lambda part: _joined(part.value_grad_F(x, y)))
        if request == Ask.DF_Y:
            return self._total(1, lambda part: _joined(part.value_grad_f(x, y)))
        if request == Ask.DF_X:
            return self._total(1, lambda part: part.grad_f_x(x, y))
        if request == Ask.HESSIAN:
            return self._total(1, lambda part: part.hessian(x, y).reshape(-1))
        if request in (Ask.BAD_F, Ask.BAD_f):
            return self._bad(self.sums[request == Ask.BAD_f], x, y)
        if request == Ask.MAKE:
            self._make(KINDS[number % len(KINDS)], number // len(KINDS), x, y)
        elif request == Ask.USE:
            return self.products[number](v)
        elif request == Ask.DROP:
            self.products.pop(number, None)
        return None

    def _make(self, kind: str, key: int, x: Vec, y: Vec) -> None:
        """Keep the product ``kind`` at a point: in memory its graph, else what makes it anew."""
        if self.in_files:
            self.products[key] = lambda v: self._total(
                1, lambda part: _joined(getattr(part, kind)(x, y)(v))
            )
        else:
            product = getattr(self.parts[1][0](), kind)(x, y)
            self.products[key] = lambda v: _joined(product(v))

    def _bad(self, sums: list[tuple[Sum, int, int]], x: Vec, y: Vec) -> Tensor:
        """In the row of this rank: the number of a sum from 1, and the range of its elements that
        is not finite.
        """
        out = torch.zeros(self.world, 3, dtype=torch.float64)
        for k, (part, first, last) in enumerate(sums):
            variables = [*self.oracle.upper.split(x), *self.oracle.lower.split(y)]
            found = first_bad(part, first, last, variables)
            if found is not None:
                out[self.rank] = torch.tensor([k + 1, *found])
                break
        return out.reshape(-1)


def _joined(found: Tensor | tuple[float | Tensor, ...]) -> Tensor:
    """One vector of a vector, or of numbers and vectors."""
    if isinstance(found, Tensor):
        return found
    return torch.cat([torch.as_tensor(p, dtype=torch.float64).reshape(-1) for p in found])
