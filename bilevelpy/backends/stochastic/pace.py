"""Step lengths that a stochastic run measures as it goes, where nothing is solved beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import dot, norm

Vec = torch.Tensor
# An objective of a batch, a point, and the gradient there.
Descent = tuple[Callable[[Vec], float], Vec, Vec]

# Iterations from one search to the next, growth of the step between them, shrinking within one.
EVERY, GROW, SHRINK, BACKTRACKS = 5, 1.1, 0.7, 30
# The fraction of the predicted decrease that is asked for: on a quadratic with largest curvature L
# steps up to 2 (1 - SLOPE) / L along the steepest direction are accepted.
SLOPE = 0.1
# Move of x in an iteration, as a part of its size, by the largest hypergradients so far.
MOVE = 0.02
# Hypergradients that a mean is taken over, at least.
WINDOW = 20


@dataclass(slots=True)
class LowerPace:
    """The lower step by an Armijo search on batches [Vaswani2019]_: the longest ``s`` of a falling
    sequence with ``f_i(y - s g_i) <= f_i(y) - c s |g_i|^2`` for every minimiser that is followed.

    Curvature changes by orders of magnitude while a network is trained; a step that was measured
    at its start is too short later on, or too long. Nothing depends on the units of f and y.
    """

    step: float
    asked: int = 0

    def is_due(self) -> bool:
        """Whether this iteration begins with a search."""
        self.asked += 1
        return self.asked % EVERY == 1

    def search(self, descents: Sequence[Descent]) -> None:
        """Measure the step on a batch; what is not finite is no decrease."""
        starts = [(value(y), dot(g, g)) for value, y, g in descents]
        s = self.step * GROW
        for _ in range(BACKTRACKS):
            if all(
                value(y - s * g) <= start - SLOPE * s * square
                for (value, y, g), (start, square) in zip(descents, starts, strict=True)
            ):
                break
            s *= SHRINK
        self.step = s


@dataclass(slots=True)
class UpperPace:
    """The upper step: a fraction of the size of x over the root mean square of the hypergradients.

    The mean is over the last pass, and its largest value so far counts [Reddi2018]_: as the
    hypergradient goes to 0, so do the moves. Nothing depends on the units of F and x.
    """

    extent: float
    batches: int
    square: float = 0.0
    largest: float = 0.0
    seen: int = 0

    def length(self, oracle: Oracle, x: Vec, h: Vec) -> float:
        """The step along ``-h``, which is taken into the mean; 0 before there is one."""
        size = norm(oracle.domain_x.projected_gradient(x, h))
        self.seen += 1
        part = 1.0 / min(self.seen, max(self.batches, WINDOW))
        self.square += part * (size * size - self.square)
        self.largest = max(self.largest, self.square)
        return MOVE * self.extent / math.sqrt(self.largest) if self.largest > 0.0 else 0.0


def extent(oracle: Oracle, x: Vec) -> float:
    """The size of x: the width of its box, or its norm, or that of ones."""
    width = oracle.domain_x.upper - oracle.domain_x.lower
    if bool(torch.isfinite(width).all()):
        return norm(width)
    return norm(x) or math.sqrt(max(x.numel(), 1))
