"""One model over several processes: every rank evaluates its rows of the data, rank 0 adds up.

An objective is ``free + sum over the elements of an axis``; rank 0 evaluates the free part, every
rank the elements of its share. Rank 0 alone runs the solver: the others wait for a request, a kind
of evaluation with its point, answer with their part of the sum, and wait again. So no decision of
the solver, none about time in particular, has to be the same on all of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bilevelpy.errors import BackendError, UsageError
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.program import BoundProgram
from bilevelpy.lowering.batch_oracle import BatchOracle
from bilevelpy.lowering.nonfinite import first_bad, place, sums_of
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.protocol import Counts
from bilevelpy.lowering.sampled import Sum

Vec = Tensor
# What is asked of a rank. A product is made at a point, used for directions, and released.
_STOP, _F, _f, _DF, _DF_X, _DF_Y, _MAKE, _USE, _DROP, _HESSIAN, _BAD_F, _BAD_f = range(12)
_KINDS = ("pullback", "hvp", "cross")


class Share:
    """A rank's part of both objectives, and what it answers to requests."""

    def __init__(self, oracle: TorchOracle, rank: int, world: int) -> None:
        self.n, self.m = oracle.n, oracle.m
        self.rank, self.world = rank, world
        self.sums: list[list[tuple[Sum, int, int]]] = []
        F, f = (self._part(oracle, e) for e in (oracle.F_expr, oracle.f_expr))
        if not any(self.sums):
            raise UsageError(
                "no objective of this model is a sum over an axis of its data or its followers: "
                "there is nothing to divide among processes"
            )
        self.local = BatchOracle(oracle, F, f, Counts())
        self.products: dict[int, Callable[[Vec], Any]] = {}

    def _part(self, oracle: TorchOracle, objective: Expr) -> Callable[..., Tensor]:
        """The objective on the rows of a rank; the part without rows belongs to rank 0."""
        free, sums = sums_of(oracle, objective)
        parts: list[Callable[..., Tensor]] = []
        if free and self.rank == 0:
            parts.append(oracle.function((oracle.bound.program.builder.add(free),)))
        own = []
        for part in sums:
            first, last = (part.size * r // self.world for r in (self.rank, self.rank + 1))
            own.append((part, first, last))
            if first < last:
                parts.append(part.at(slice(first, last)))
        self.sums.append(own)

        def value(*variables: Tensor) -> Tensor:
            # A rank without rows adds nothing, but differentiably so.
            total = sum((0.0 * v.sum() for v in variables), torch.zeros((), dtype=oracle.dtype))
            for part in parts:
                total = total + part(*variables)
            return total

        return value

    def answer(self, request: int, number: int, x: Vec, y: Vec, v: Vec) -> Tensor | None:
        """The rank's part of what is asked for, as one vector."""
        local = self.local
        if request == _F:
            return x.new_tensor([local.F(x, y)])
        if request == _f:
            return x.new_tensor([local.f(x, y)])
        if request == _DF:
            value, by_x, by_y = local.value_grad_F(x, y)
            return torch.cat([x.new_tensor([value]), by_x, by_y])
        if request == _DF_Y:
            value, by_y = local.value_grad_f(x, y)
            return torch.cat([x.new_tensor([value]), by_y])
        if request == _DF_X:
            return local.grad_f_x(x, y)
        if request == _HESSIAN:
            return local.hessian(x, y).reshape(-1)
        if request in (_BAD_F, _BAD_f):
            return self._bad(self.sums[request == _BAD_f], x, y)
        if request == _MAKE:
            kind, key = number % len(_KINDS), number // len(_KINDS)
            self.products[key] = getattr(local, _KINDS[kind])(x, y)
        elif request == _USE:
            found = self.products[number](v)
            return torch.cat(found) if isinstance(found, tuple) else found
        elif request == _DROP:
            self.products.pop(number, None)
        return None

    def _bad(self, sums: list[tuple[Sum, int, int]], x: Vec, y: Vec) -> Tensor:
        """In the row of this rank: the number of a sum from 1, and the range of its elements that
        is not finite.
        """
        out = torch.zeros(self.world, 3, dtype=torch.float64)
        for k, (part, first, last) in enumerate(sums):
            variables = [*self.local.upper.split(x), *self.local.lower.split(y)]
            found = first_bad(part, first, last, variables)
            if found is not None:
                out[self.rank] = torch.tensor([k + 1, *found])
                break
        return out.reshape(-1)


def serve(share: Share) -> None:
    """Answer the requests of rank 0 until it has no more. Ends with an error where rank 0 is
    lost.
    """
    n, m = share.n, share.m
    with _lost():
        while True:
            head = torch.zeros(2, dtype=torch.int64)
            dist.broadcast(head, 0)
            request, number = int(head[0]), int(head[1])
            if request == _STOP:
                return
            sent = torch.zeros(_sizes(request, n, m), dtype=torch.float64)
            if len(sent):
                dist.broadcast(sent, 0)
            x, y = (sent[:n], sent[n:]) if request != _USE else (sent[:0], sent[:0])
            found = share.answer(request, number, x, y, sent)
            if found is not None:
                dist.reduce(found, 0)


def _sizes(request: int, n: int, m: int) -> int:
    """How many numbers come with a request."""
    return {_STOP: 0, _DROP: 0, _USE: m}.get(request, n + m)


class _lost:
    """A connection that breaks is a rank that is lost."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, RuntimeError) and not isinstance(error, BackendError):
            raise BackendError(f"a process of the run was lost: {str(error)[:200]}") from error


class ShardedOracle(TorchOracle):
    """The oracle of rank 0: every evaluation is the sum of what all ranks answer."""

    def __init__(self, bound: BoundProgram, world: int) -> None:
        super().__init__(bound)
        self.share = Share(self, 0, world)
        self._last = 0
        self._released: list[int] = []

    def stop(self) -> None:
        """Send the other ranks home."""
        with _lost():
            dist.broadcast(torch.tensor([_STOP, 0]), 0)

    def _ask(self, request: int, *vectors: Vec, number: int = 0) -> Tensor | None:
        with _lost():
            while self._released and request != _DROP:
                dropped = self._released.pop()
                dist.broadcast(torch.tensor([_DROP, dropped]), 0)
                self.share.answer(_DROP, dropped, vectors[0], vectors[0], vectors[0])
            dist.broadcast(torch.tensor([request, number]), 0)
            sent = torch.cat(vectors)
            dist.broadcast(sent, 0)
            x, y = (sent[: self.n], sent[self.n :]) if request != _USE else (sent, sent)
            found = self.share.answer(request, number, x, y, sent)
            if found is not None:
                dist.reduce(found, 0)
            return found

    def _sum(self, request: int, *vectors: Vec, number: int = 0) -> Tensor:
        found = self._ask(request, *vectors, number=number)
        assert found is not None
        return found

    def culprit(self, x: Vec, y: Vec, *, lower: bool) -> str | None:
        """Which rank finds which element of an objective not finite."""
        found = self._sum(_BAD_f if lower else _BAD_F, x, y).reshape(-1, 3).to(torch.int64)
        for rank, (which, first, last) in enumerate(found.tolist()):
            if which:
                axis = self.share.sums[lower][which - 1][0].axis
                return f"{place(self, axis, (first, last))} (rank {rank})"
        return None

    # --- values and gradients ---------------------------------------------------------------------

    def F(self, x: Vec, y: Vec) -> float:
        """The upper objective."""
        self.counts.F += 1
        return self._sum(_F, x, y).item()

    def f(self, x: Vec, y: Vec) -> float:
        """The lower objective."""
        self.counts.f += 1
        return self._sum(_f, x, y).item()

    def _value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        found = self._sum(_DF, x, y)
        return found[0].item(), found[1 : 1 + self.n], found[1 + self.n :]

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """The lower objective and df/dy in one evaluation."""
        self.counts.f += 1
        self.counts.grad_f += 1
        found = self._sum(_DF_Y, x, y)
        return found[0].item(), found[1:]

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """df/dy."""
        self.counts.grad_f += 1
        return self._sum(_DF_Y, x, y)[1:]

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """df/dx."""
        self.counts.grad_f += 1
        return self._sum(_DF_X, x, y)

    # --- products ---------------------------------------------------------------------------------

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (f_yy v, f_xy v)``, built once at (x, y) on every rank."""
        call = self._product("pullback", x, y)

        def product(v: Vec) -> tuple[Vec, Vec]:
            self.counts.hvp += 1
            self.counts.jvp += 1
            found = call(v)
            return found[: self.m], found[self.m :]

        return product

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_yy v``."""
        call = self._product("hvp", x, y)

        def product(v: Vec) -> Vec:
            self.counts.hvp += 1
            return call(v)

        return product

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_xy v``."""
        call = self._product("cross", x, y)

        def product(v: Vec) -> Vec:
            self.counts.jvp += 1
            return call(v)

        return product

    def _product(self, kind: str, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """A product that the ranks keep until nobody here holds it any more."""
        self.counts.grad_f += 1
        self._last += 1
        key = self._last
        self._ask(_MAKE, x, y, number=key * len(_KINDS) + _KINDS.index(kind))

        def call(v: Vec) -> Vec:
            return self._sum(_USE, v, number=key)

        weakref.finalize(call, self._released.append, key)
        return call

    @property
    def kept_quadratic(self) -> None:
        """Nothing: every evaluation is a sum over the ranks."""
        return None

    @property
    def joint_quadratic(self) -> None:
        """Nothing: it would need all rows in one place."""
        return None

    @property
    def second_order(self) -> None:
        """Nothing: columns of dy/dx by passes over all rows cost more than upper steps."""
        return None

    @property
    def structured(self) -> None:
        """Nothing: a Hessian by predictors would need all rows in one place."""
        return None

    @property
    def hessian_price(self) -> float:
        """About how many values with gradients a dense Hessian is worth: products in batches."""
        return 3.0 + self.m / 50

    def hessian(self, x: Vec, y: Vec) -> Tensor:
        """f_yy as a dense symmetric (m, m) tensor: the sum of the ranks' own, in one exchange."""
        self.counts.grad_f += 1
        self.counts.hvp += self.m
        return self._sum(_HESSIAN, x, y).reshape(self.m, self.m)
