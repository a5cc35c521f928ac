"""What the path-differentiating backends share: a response that may carry a fixed upper step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.lower.response import Response
from bilevelpy.numerics.lower.solve import LowerSolution, finish
from bilevelpy.numerics.upper.adam import Adam

Vec = torch.Tensor


@dataclass(slots=True)
class SteppedResponse(Response):
    """A response with the length of plain upper steps; 0 where a line search finds it. ``adam``
    takes the steps where it is there.
    """

    alpha: float = 0.0
    adam: Adam | None = None


# Iterates are kept up to this many bytes before only some of them are.
KEEP = 1 << 28
CHECKPOINTS = ("auto", "always", "never")


class Path:
    """Lower iterates ``y_0, ..., y_T`` of ``y <- P(y - s f_y)``.

    With checkpoints only every k-th iterate is kept, k about sqrt(T), and the ones between are
    computed again, a segment at a time, when they are asked for: about 2 sqrt(T) iterates of
    memory for one more gradient per step. "auto" begins with that where memory asks for it.
    """

    __slots__ = ("checkpoint", "count", "end", "kept", "largest", "previous", "step", "stride")

    def __init__(self, start: Vec, step: float, checkpoint: str = "never") -> None:
        self.step, self.checkpoint = step, checkpoint
        self.kept, self.stride, self.count = [start], 1, 0
        self.end = self.previous = start
        self.largest = 1  # iterates held at once

    def append(self, y: Vec) -> None:
        """Take the next iterate."""
        self.previous, self.end = self.end, y
        self.count += 1
        if self.count % self.stride == 0:
            self.kept.append(y)
            if self._is_full():
                self.kept = self.kept[::2]
                self.stride *= 2
        self.largest = max(self.largest, len(self.kept))

    def _is_full(self) -> bool:
        if self.checkpoint == "never" or len(self.kept) <= 2 * self.stride:
            return False
        size = 8 * self.end.numel() * len(self.kept)
        return self.checkpoint == "always" or size > KEEP

    def forward(self, oracle: Oracle, x: Vec, first: int = 0) -> Iterator[tuple[Vec, Vec]]:
        """``(y_t, y_{t+1})`` for ``t = first, ..., T - 1``."""
        for k in range(first // self.stride, len(self.kept)):
            points = self._segment(oracle, x, k)
            for t in range(len(points) - 1):
                if k * self.stride + t >= first:
                    yield points[t], points[t + 1]

    def backward(self, oracle: Oracle, x: Vec, stop: int = 0) -> Iterator[tuple[Vec, Vec]]:
        """``(y_{t-1}, y_t)`` for ``t = T, ..., stop + 1``."""
        for k in range(len(self.kept) - 1, stop // self.stride - 1, -1):
            points = self._segment(oracle, x, k)
            for t in range(len(points) - 1, 0, -1):
                if k * self.stride + t > stop:
                    yield points[t - 1], points[t]

    def _segment(self, oracle: Oracle, x: Vec, k: int) -> list[Vec]:
        """The iterates from the k-th kept one to the next."""
        length = min(self.stride, self.count - k * self.stride)
        points = [self.kept[k]]
        if self.stride == 1:
            return [*points, self.kept[k + 1]] if length else points
        for _ in range(length):
            g = oracle.grad_f(x, points[-1])
            points.append(oracle.domain_y.project(points[-1] - self.step * g))
        self.largest = max(self.largest, len(self.kept) + len(points))
        return points


def interior(domain: ProductSet, y: Vec) -> Vec | None:
    """Derivative of the projection onto a box that gave y: 1 between the bounds, 0 on them; None
    for all ones.
    """
    if domain.is_free:
        return None
    return ((y > domain.lower) & (y < domain.upper)).to(y.dtype)


def extend(oracle: Oracle, x: Vec, path: Path, steps: int) -> float:
    """Append ``steps`` iterates, one gradient each; the last projected gradient norm seen."""
    domain, residual = oracle.domain_y, math.inf
    for _ in range(steps):
        g = oracle.grad_f(x, path.end)
        residual = domain.projected_gradient_norm(path.end, g)
        path.append(domain.project(path.end - path.step * g))
    return residual


def packed(oracle: Oracle, x: Vec, path: Path, *, exact: bool, ended: str) -> LowerSolution:
    """The end of a path as a lower solution; ``exact`` evaluates f and its gradient there."""
    y = path.end
    oracle.counts.lower_solves += 1
    if exact:
        f, g = oracle.value_grad_f(x, y)
        if not math.isfinite(f):
            ended = "nonfinite"
        return finish(oracle.domain_y, y, f, g, path.count, ended)
    # The last step shows the gradient before it: no evaluation for its own sake.
    g = (path.previous - y) / path.step
    return finish(oracle.domain_y, y, math.nan, g, path.count, ended)
