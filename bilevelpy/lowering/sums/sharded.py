"""One model over several processes: every rank evaluates its rows of the data, rank 0 adds up.

An objective is ``free + sum over the elements of an axis``; rank 0 evaluates the free part, every
rank the elements of its share. Rank 0 alone runs the solver: the others wait for a request, a kind
of evaluation with its point, answer with their part of the sum, and wait again. So no decision of
the solver, none about time in particular, has to be the same on all of them.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from bilevelpy.errors import BackendError
from bilevelpy.ir.program import BoundProgram
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.sums.nonfinite import place
from bilevelpy.lowering.sums.shares import KINDS, Ask, Share
from bilevelpy.lowering.sums.streaming import StreamedOracle

Vec = Tensor


def serve(share: Share, group: dist.ProcessGroup) -> None:
    """Answer the requests of rank 0 until it has no more. Ends with an error where rank 0 is
    lost.
    """
    n, m = share.n, share.m
    while True:
        head = torch.zeros(2, dtype=torch.int64)
        with lost():
            dist.broadcast(head, 0, group)
        request, number = Ask(int(head[0])), int(head[1])
        if request == Ask.STOP:
            return
        sent = torch.zeros(_sizes(request, n, m), dtype=torch.float64)
        if len(sent):
            with lost():
                dist.broadcast(sent, 0, group)
        x, y = (sent[:n], sent[n:]) if request != Ask.USE else (sent[:0], sent[:0])
        found = share.answer(request, number, x, y, sent)
        if found is not None:
            with lost():
                dist.reduce(found, 0, group=group)


def _sizes(request: Ask, n: int, m: int) -> int:
    """How many numbers come with a request."""
    return {Ask.STOP: 0, Ask.DROP: 0, Ask.USE: m}.get(request, n + m)


@contextmanager
def lost() -> Iterator[None]:
    """A connection that breaks is a rank that is lost. For exchanges alone: what an evaluation
    raises is an error of its own.
    """
    try:
        yield
    except RuntimeError as error:
        # gloo puts a place in its source before the fact, and advice after it.
        fact = re.sub(r"^\[[^]]*\] ", "", str(error)).split(". ")[0]
        raise BackendError(
            f"a process of the run was lost ({fact}): what it says itself, if anything, is why"
        ) from error


class ShardedOracle(TorchOracle):
    """The oracle of rank 0: every evaluation is the sum of what all ranks answer."""

    def __init__(self, bound: BoundProgram, group: dist.ProcessGroup) -> None:
        super().__init__(bound)
        self.group = group
        self.share = Share(self, 0, dist.get_world_size(group))
        self._last = 0
        self._released: list[int] = []
        self._exchanging = self._interrupted = False

    def stop(self) -> None:
        """Send the other ranks home, unless they wait for the rest of an exchange that failed:
        those find out when this process ends.
        """
        if not self._exchanging:
            with lost():
                dist.broadcast(torch.tensor([Ask.STOP, 0]), 0, self.group)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt as soon as no exchange is under way: within one, the other ranks
        would take the next request for the rest of this one.
        """
        if not self._exchanging:
            raise KeyboardInterrupt
        self._interrupted = True

    def _ask(self, request: Ask, *vectors: Vec, number: int = 0) -> Tensor | None:
        if self._exchanging:
            raise BackendError("an exchange between the processes of the run has failed before")
        self._exchanging = True
        found = self._exchange(request, torch.cat(vectors), number)
        self._exchanging = False
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt
        return found

    def _exchange(self, request: Ask, sent: Vec, number: int) -> Tensor | None:
        with lost():
            while self._released:
                dropped = self._released.pop()
                dist.broadcast(torch.tensor([Ask.DROP, dropped]), 0, self.group)
                self.share.answer(Ask.DROP, dropped, sent, sent, sent)
            dist.broadcast(torch.tensor([request, number]), 0, self.group)
            dist.broadcast(sent, 0, self.group)
        x, y = (sent[: self.n], sent[self.n :]) if request != Ask.USE else (sent, sent)
        found = self.share.answer(request, number, x, y, sent)
        if found is not None:
            with lost():
                dist.reduce(found, 0, group=self.group)
        return found

    def _sum(self, request: Ask, *vectors: Vec, number: int = 0) -> Tensor:
        found = self._ask(request, *vectors, number=number)
        assert found is not None
        return found

    def culprit(self, x: Vec, y: Vec, *, lower: bool) -> str | None:
        """Which rank finds which element of an objective not finite."""
        found = self._sum(Ask.BAD_f if lower else Ask.BAD_F, x, y).reshape(-1, 3).to(torch.int64)
        for rank, (which, first, last) in enumerate(found.tolist()):
            if which:
                axis = self.share.sums[lower][which - 1][0].axis
                return f"{place(self, axis, (first, last))} (rank {rank})"
        return None

    # --- values and gradients ---------------------------------------------------------------------

    def F(self, x: Vec, y: Vec) -> float:
        """The upper objective."""
        self.counts.F += 1
        return self._sum(Ask.F, x, y).item()

    def f(self, x: Vec, y: Vec) -> float:
        """The lower objective."""
        self.counts.f += 1
        return self._sum(Ask.f, x, y).item()

    def _value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        found = self._sum(Ask.DF, x, y)
        return found[0].item(), found[1 : 1 + self.n], found[1 + self.n :]

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """The lower objective and df/dy in one evaluation."""
        self.counts.f += 1
        self.counts.grad_f += 1
        found = self._sum(Ask.DF_Y, x, y)
        return found[0].item(), found[1:]

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """df/dy."""
        self.counts.grad_f += 1
        return self._sum(Ask.DF_Y, x, y)[1:]

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """df/dx."""
        self.counts.grad_f += 1
        return self._sum(Ask.DF_X, x, y)

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
        self._ask(Ask.MAKE, x, y, number=key * len(KINDS) + KINDS.index(kind))

        def call(v: Vec) -> Vec:
            return self._sum(Ask.USE, v, number=key)

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
        return self._sum(Ask.HESSIAN, x, y).reshape(self.m, self.m)


class ShardedStreamedOracle(ShardedOracle, StreamedOracle):
    """The oracle of rank 0 where data stays in files: expressions besides the objectives, reports
    among them, go by blocks too.
    """
