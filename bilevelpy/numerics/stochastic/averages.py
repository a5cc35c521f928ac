"""Averages of noisy directions along a run."""

from __future__ import annotations

from dataclasses import dataclass

import torch

Vec = torch.Tensor


@dataclass(slots=True)
class MovingAverage:
    """``h <- (1 - c) h + c g``; the first value is taken as it is."""

    weight: float
    value: Vec | None = None

    def update(self, g: Vec) -> Vec:
        """The average with one more direction."""
        old = self.value
        self.value = g if old is None else (1.0 - self.weight) * old + self.weight * g
        return self.value


@dataclass(slots=True)
class Storm:
    """``m <- g(z_k; xi) + (1 - b) (m - g(z_{k-1}; xi))`` [Cutkosky2019]_: the old direction is
    corrected by what one and the same batch says about the move.
    """

    value: Vec | None = None

    def update(self, here: Vec, before: Vec, b: float) -> Vec:
        """The direction after one more batch, evaluated at this point and at the one before."""
        old = self.value
        self.value = here if old is None else here + (1.0 - b) * (old - before)
        return self.value


@dataclass(slots=True)
class TailMean:
    """The mean of the second half of a sequence, within a factor of two of it.

    Restarted whenever its length has doubled, so that the beginning of a run is forgotten; of a
    sequence with independent noise it has a variance smaller by its length.
    """

    length: int = 0
    value: Vec | None = None
    older: Vec | None = None
    goal: int = 8

    def update(self, z: Vec) -> None:
        """Take in one more point."""
        if self.length >= self.goal:
            self.older, self.value, self.length = self.value, None, 0
            self.goal *= 2
        self.length += 1
        old = self.value
        self.value = z.clone() if old is None else old + (z - old) / self.length

    @property
    def mean(self) -> Vec | None:
        """The mean, of the stretch before where the newest is short."""
        if self.value is None or (self.older is not None and 2 * self.length < self.goal // 2):
            return self.older
        return self.value
