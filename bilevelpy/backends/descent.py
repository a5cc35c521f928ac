"""What the path-differentiating backends share: a response that may carry a fixed upper step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from bilevelpy.lowering.domains import ProductSet
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.lower_solve import LowerSolution, finish
from bilevelpy.numerics.response import Response

Vec = torch.Tensor


@dataclass(slots=True)
class SteppedResponse(Response):
    """A response with the length of plain upper steps; 0 where a line search finds it."""

    alpha: float = 0.0
    steps: int = 0


@dataclass(slots=True)
class Path:
    """Lower iterates ``y_0, ..., y_T`` of ``y <- P(y - s f_y)``."""

    points: list[Vec]
    step: float
    masks: list[Vec | None]

    @property
    def end(self) -> Vec:
        """The last iterate."""
        return self.points[-1]


def interior(domain: ProductSet, y: Vec) -> Vec | None:
    """Derivative of the projection onto a box that gave y: 1 between the bounds, 0 on them; None
    for all ones.
    """
    if domain.is_free:
        return None
    return ((y > domain.lower) & (y < domain.upper)).to(y.dtype)


def extend(oracle: Oracle, x: Vec, path: Path, steps: int, tol: float = 0.0) -> float:
    """Append up to ``steps`` iterates; returns the last projected gradient norm seen. One gradient
    each.
    """
    domain, residual = oracle.domain_y, math.inf
    for _ in range(steps):
        g = oracle.grad_f(x, path.end)
        residual = domain.projected_gradient_norm(path.end, g)
        if tol > 0.0 and residual <= tol:
            break
        y = domain.project(path.end - path.step * g)
        path.points.append(y)
        path.masks.append(interior(domain, y))
    return residual


def packed(oracle: Oracle, x: Vec, path: Path, *, exact: bool, ended: str) -> LowerSolution:
    """The end of a path as a lower solution; ``exact`` evaluates f and its gradient there."""
    y = path.end
    oracle.counts.lower_solves += 1
    if exact:
        f, g = oracle.value_grad_f(x, y)
        if not math.isfinite(f):
            ended = "nonfinite"
        return finish(oracle.domain_y, y, f, g, len(path.points) - 1, ended)
    previous = path.points[-2] if len(path.points) > 1 else y
    # The last step shows the gradient before it: no evaluation for its own sake.
    g = (previous - y) / path.step
    return finish(oracle.domain_y, y, math.nan, g, len(path.points) - 1, ended)
