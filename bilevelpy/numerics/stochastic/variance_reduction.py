"""Estimates of a mean over batches whose variance vanishes at the solution: SAGA and SARAH."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Vec = torch.Tensor


class SagaTable:
    """``d = v_new - v_j + mean``: the newest value of every batch, and their mean [Defazio2014]_.

    Unbiased over a uniform choice of j; its variance falls with the distance of the point from
    those at which the table was filled. Memory: ``count * dim`` numbers.
    """

    def __init__(self, values: Vec) -> None:
        """``values``: one row a batch."""
        self.values = values
        self.mean = values.mean(0)
        self.updates = 0

    @classmethod
    def zeros(cls, count: int, dim: int) -> SagaTable:
        """The table of the published code: nothing is known."""
        return cls(torch.zeros(count, dim, dtype=torch.float64))

    @classmethod
    def filled(cls, count: int, value: Callable[[int], Vec]) -> SagaTable:
        """The table after a pass at one point."""
        return cls(torch.stack([value(j) for j in range(count)]))

    def direction(self, j: int, new: Vec) -> Vec:
        """The estimate by the new value of batch ``j``, which replaces the old one."""
        change = new - self.values[j]
        direction = change + self.mean
        self.values[j] = new
        self.mean = self.mean + change / len(self.values)
        self.updates += 1
        if self.updates % (100 * len(self.values)) == 0:  # rounding adds up in the running mean
            self.mean = self.values.mean(0)
        return direction


@dataclass(slots=True)
class Sarah:
    """``d_k = d_{k-1} + v(z_k; j) - v(z_{k-1}; j)`` from a full evaluation [Nguyen2017]_."""

    direction: Vec

    def update(self, here: Vec, before: Vec) -> Vec:
        """The estimate after one more batch, evaluated at this point and at the one before."""
        self.direction = self.direction + here - before
        return self.direction
