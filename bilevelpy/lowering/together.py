"""Lower gradients at many points in one evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.lowering.sums.batch_oracle import BatchOracle

Gradients = Callable[[Tensor, Tensor], Tensor]
BatchGradients = Callable[[BatchOracle, Tensor, Tensor], Tensor]
# What vmap raises where it has no rule for an operation.
UNVECTORISED = (RuntimeError, ValueError, NotImplementedError)


def gradients_together(oracle: Oracle) -> Gradients:
    """``(X, Y) -> df/dy`` at the rows of X (Q, n) and Y (Q, m), as the rows of a (Q, m) tensor.

    One vectorised graph (``torch.vmap``) where the oracle has a graph that can be vectorised, else
    one evaluation after the other. Counts Q gradients.
    """
    target: Any = oracle
    in_time: Callable[[], None] | None = getattr(oracle, "check_deadline", None)
    if hasattr(target, "f_expr"):
        single = torch.func.grad(_flat(target), argnums=1)
        together = torch.vmap(single)
        try:
            together(target.x0.expand(2, -1), target.y0.expand(2, -1))
        except UNVECTORISED:
            return lambda X, Y: _one_by_one(oracle, X, Y)

        def vectorised(X: Tensor, Y: Tensor) -> Tensor:
            if in_time is not None:
                in_time()
            oracle.counts.grad_f += X.shape[0]
            found: Tensor = together(X, Y)
            return found.detach()

        return vectorised
    return lambda X, Y: _one_by_one(oracle, X, Y)


def batch_gradients_together(first: BatchOracle) -> BatchGradients:
    """``(batch, X, Y) -> df/dy`` of a batch at the rows of X and Y, vectorised where the graph of
    ``first``, which is that of all batches, can be. Counts Q gradients of the batch.
    """

    def vectorised(batch: BatchOracle, X: Tensor, Y: Tensor) -> Tensor:
        batch.counts.grad_f += X.shape[0]
        found: Tensor = torch.vmap(torch.func.grad(batch.flat_f, argnums=1))(X, Y)
        return found.detach()

    try:
        torch.vmap(torch.func.grad(first.flat_f, argnums=1))(
            first.x0.expand(2, -1), first.y0.expand(2, -1)
        )
    except UNVECTORISED:
        return lambda batch, X, Y: _one_by_one(batch, X, Y)
    return vectorised


def _flat(oracle: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """f as a function of the two flat vectors."""
    graph = oracle.function((oracle.f_expr,))

    def f(x: Tensor, y: Tensor) -> Tensor:
        value: Tensor = graph(*_parts(oracle.upper, x), *_parts(oracle.lower, y))
        return value

    return f


def _parts(layout: Any, z: Tensor) -> list[Tensor]:
    """The variables of a flat vector, differentiably."""
    return [z[p.start : p.stop].reshape(p.shape) for p in layout.pieces]


def _one_by_one(oracle: Oracle | BatchOracle, X: Tensor, Y: Tensor) -> Tensor:
    return torch.stack([oracle.grad_f(x, y) for x, y in zip(X, Y, strict=True)])
