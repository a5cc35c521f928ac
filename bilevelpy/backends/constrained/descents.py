"""Short runs of ``kkt`` at a loose tolerance, with an end to the work that they take: what says
where a run had better begin.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from bilevelpy.backends.constrained.starts import begin_rows
from bilevelpy.backends.constrained.upper_rows import step_rows
from bilevelpy.numerics.cones.sequential import violations
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.response import Response
from bilevelpy.numerics.rows.resolver import RESOLVED
from bilevelpy.numerics.rows.response import (
    ConstrainedLower,
    constrained_lower,
    rows_response,
)
from bilevelpy.numerics.rows.sample import RowsSampler
from bilevelpy.numerics.upper.optimizer import advance, begin

Vec = torch.Tensor

# The tolerance of short runs, and what rows of the leader may be off by at their ends, in extents.
LOOSE, MET = 1e-4, 1e-6


@dataclass(frozen=True, slots=True)
class Place:
    """x with the response y and F there: infinite where the rows of the leader do not hold."""

    x: Vec
    y: Vec
    F: float


@dataclass(slots=True)
class Descents:
    """Short runs on one problem, which take ``allowed`` systems of lower programs together, or a
    few more; ``spent`` so far.
    """

    oracle: Any
    allowed: int
    spent: int = 0

    @property
    def is_over(self) -> bool:
        """Whether there are none left."""
        return self.spent >= self.allowed

    def looked(self, points: Iterable[Vec], y: Vec) -> Iterator[Place]:
        """The places at points that have a response; F is infinite where the rows of the leader
        do not hold.
        """
        response, solver = self._response(self.oracle)
        for x in points:
            if self.is_over:
                return
            with self._counted(solver):
                point = response.evaluate(x, None, y)
            if response.finite(point):
                is_met = _is_met(self.oracle, x, point.y)
                yield Place(x, point.y, point.F if is_met else math.inf)

    def down(self, oracle: Any, x: Vec, y: Vec, steps: int) -> Place | None:
        """Where so many steps lead on ``oracle``, the problem or one beside it; None where there
        is no response.
        """
        if oracle.G.size:
            return self._down_rows(oracle, x, y, steps)
        response, solver = self._response(oracle)
        with self._counted(solver):
            state = begin(response, x, y, LOOSE)
        while state.finish is None and len(state.norms) <= steps and not self.is_over:
            if state.stationarity() <= LOOSE:
                break
            with self._counted(solver):
                advance(state)
        point = state.point
        return Place(point.x, point.y, point.F) if response.finite(point) else None

    def _down_rows(self, oracle: Any, x: Vec, y: Vec, steps: int) -> Place | None:
        rng, solver = torch.Generator().manual_seed(0), constrained_lower(oracle, RESOLVED)
        with self._counted(solver):
            state = begin_rows(oracle, x, y, LOOSE, 1, rng, RowsSampler(solver))
        for _ in range(steps):
            if state.finish is not None or self.is_over:
                break
            with self._counted(solver):
                step_rows(state)
        here = state.here
        if here is None:
            return None
        return Place(here.x, here.y, here.F if state.off(here) <= MET else math.inf)

    def _response(self, oracle: Any) -> tuple[Response, ConstrainedLower]:
        response = rows_response(oracle, RESOLVED)
        assert isinstance(response.method, ConstrainedLower)
        return response, response.method

    @contextmanager
    def _counted(self, solver: ConstrainedLower) -> Iterator[None]:
        before = solver.tally.systems
        yield
        self.spent += solver.tally.systems - before


def apart(points: list[Place]) -> float:
    """The mean distance of responses from their middle."""
    middle = torch.stack([p.y for p in points]).mean(dim=0)
    return sum(norm(p.y - middle) for p in points) / len(points)


def _is_met(oracle: Any, x: Vec, y: Vec) -> bool:
    """Whether the rows of the leader hold."""
    if not oracle.G.size:
        return True
    values = oracle.G.values(x, y).numpy()
    return bool(violations(values, oracle.G.equality.numpy()).max(initial=0.0) <= MET)
