"""Adam on the upper variables: the outer loop of the papers on learning."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bilevelpy.numerics.upper.gd import move
from bilevelpy.numerics.upper.optimizer import UpperState

Vec = torch.Tensor

FIRST, SECOND, TINY = 0.9, 0.999, 1e-8


@dataclass(slots=True)
class Adam:
    """Running means of g and g^2 [Kingma2015]_: ``x <- P(x - t m / (sqrt(v) + 1e-8))``."""

    length: float
    m: Vec | None = None
    v: Vec | None = None
    k: int = 0

    def step(self, state: UpperState) -> UpperState:
        """One step of the upper variables with the hypergradient of the state."""
        g = state.point.g
        self.k += 1
        self.m = (1 - FIRST) * g if self.m is None else FIRST * self.m + (1 - FIRST) * g
        square = (1 - SECOND) * g * g
        self.v = square if self.v is None else SECOND * self.v + square
        mean, spread = self.m / (1 - FIRST**self.k), self.v / (1 - SECOND**self.k)
        return move(state, self.length * mean / (spread.sqrt() + TINY))
