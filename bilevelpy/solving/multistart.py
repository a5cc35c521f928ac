"""Multistart after a local end of a small model: whether F is lower elsewhere in the upper set.

A method that descends from one start ends at the local optimum beside it. Where there are few
upper variables and a response takes little time, the responses to points all over the upper set
say at once whether another one is better: ends and corners of finite ranges, points between them,
and points at growing distances where a range has no end. From the best of them a few quasi-Newton
steps go down. A point that is clearly better is where the next run starts.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import minimize

from bilevelpy.backends.implicit.base import DenseSolver
from bilevelpy.errors import BackendError
from bilevelpy.lowering.hessians.expansion import entries
from bilevelpy.numerics.certificate.conic import applies
from bilevelpy.numerics.certificate.resolve import Resolver
from bilevelpy.numerics.cones.response import ConicResolver
from bilevelpy.numerics.lower.block_curvature import curvature_of
from bilevelpy.numerics.lower.grouped import grouped_oracle
from bilevelpy.numerics.lower.halves import halves, joined, split_oracle
from bilevelpy.numerics.lower.quadratic import is_quadratic, quadratic_lower
from bilevelpy.numerics.lower.response import Accuracy, Point, Response
from bilevelpy.numerics.rows.resolver import RowsResolver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bilevelpy.lowering.oracle import TorchOracle
    from bilevelpy.numerics.lower.solve import LowerSolution

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

# Upper and lower variables up to which points all over the upper set are affordable.
FEW_UPPER, SOME_LOWER = 10, 200
# Upper ones above boxes and simplices: responses with kinks leave F with many local minima. Lower
# ones where each response takes one factor at most.
SOME_UPPER, MORE_LOWER = 200, 600
# The same for lower variables beside rows of semidefinite matrices: conic solves take longer.
FEW_ENTRIES = 60
# The same for lower variables with rows.
SOME_ROWS = 1000
# Numbers of data below that some hundreds of passes take little time over.
LONG = 300_000
# Points on a line and in a cloud, axes up to which all corners are among them.
LINE, CLOUD, CORNERS = 17, 32, 4
# The same beside rows, where F has many local minima, some of them narrow.
LINE_ROWS, CLOUD_ROWS = 129, 64
# Points times variables and rows at most, but for those that there are in any case.
WORK = 50_000
# Starts of descents, and their steps.
STARTS, STEPS = 2, 8
# The same beside rows and bounds, where F has kinks on the way; starts where each response takes
# one factor at most, of up to SOME_LOWER variables.
STARTS_KINKED, STEPS_KINKED, STARTS_EXACT = 6, 60, 24
# Seconds at most, or the part of the time of the run: numbers decide before, so that runs repeat.
# Conic solves take ten times as long as Newton's method, those with rows five times; above kinks
# there are more of them.
MOST, SHARE, MOST_CONIC, MOST_KINKED = 0.5, 0.5, 3.0, 2.5
# F has to be lower by this, relative to its size at both points.
CLEARLY = 1e-3
# Newton steps of responses, relative to y, times ten.
LEVEL = 1e-7


def is_small(oracle: Any, *, affine: bool) -> bool:
    """Whether responses to some dozens of points cost next to nothing; ``affine`` says that rows
    below are as :mod:`bilevelpy.numerics.rows.response` takes them.
    """
    most = SOME_ROWS if oracle.g.size else SOME_LOWER
    if _is_bounded(oracle) and not oracle.g.size and is_quadratic(oracle):
        most = MORE_LOWER
    many = FEW_UPPER if oracle.g.size or not _is_bounded(oracle) else SOME_UPPER
    if not 0 < oracle.n <= many or not 0 < oracle.m <= most:
        return False
    if oracle.expanded is None and entries(oracle) > LONG:
        return False
    if applies(oracle):
        return oracle.m <= FEW_ENTRIES and not oracle.G.size
    if oracle.g.size and (not affine or oracle.m + oracle.g.size > SOME_ROWS):
        return False
    return not oracle.G.size and Resolver.is_small(oracle)


def _is_bounded(oracle: Any) -> bool:
    """Whether y is in boxes or simplices, at whose bounds responses have kinks."""
    return bool(oracle.domain_y.is_nearly_box and not oracle.domain_y.is_free)


def better_point(
    oracle: TorchOracle, x: Vec, y: Vec, seed: int, spent: float, seconds: float
) -> tuple[Vec, Vec] | None:
    """A point of the upper set with a clearly lower F than (x, y), and its response; None where
    none was met. ``spent`` are the seconds of the run that led to x, ``seconds`` those left.
    """
    rng = np.random.default_rng(seed)
    kinked = bool(oracle.g.size) or _is_bounded(oracle)
    most = MOST_CONIC if applies(oracle) else MOST_KINKED if kinked else MOST
    until = time.perf_counter() + min(max(most, SHARE * spent), seconds)
    seeable, split = _without_kinks(oracle, x)
    sampler = _Sampler(seeable, halves(y) if split else y, until, rows=bool(oracle.g.size))
    here = sampler.value(x)
    if here is None:
        return None
    seen: list[tuple[float, Vec]] = []
    for point in _points(oracle, x, rng, rows=bool(oracle.g.size)):
        value = sampler.value(point)
        if sampler.is_late:
            break
        if value is not None:
            seen.append((value, point))
    seen.sort(key=lambda pair: pair[0])
    best = seen[0] if seen else (math.inf, x)
    if oracle.domain_x.is_box:
        starts, steps = (STARTS_KINKED, STEPS_KINKED) if kinked else (STARTS, STEPS)
        if kinked and sampler.is_exact and oracle.m <= SOME_LOWER:
            starts = STARTS_EXACT
        for _, start in seen[:starts]:
            if sampler.is_late:
                break
            end = sampler.descend(start, steps)
            best = min(best, end, key=lambda pair: pair[0])
    size = max(abs(here), abs(best[0]) if math.isfinite(best[0]) else 0.0)
    if not best[0] < here - CLEARLY * size:
        return None
    response = sampler.last_response(best[1])
    if response is None:
        return None
    return best[1], joined(response) if split else response


def _without_kinks(oracle: TorchOracle, x: Vec) -> tuple[Any, bool]:
    """The problem as Newton's method takes it: absolute values and norms of groups by their
    support, or in halves (True).
    """
    try:
        grouped = grouped_oracle(oracle)
    except BackendError:  # norms of another form
        grouped = None
    if grouped is not None:
        return grouped, False
    split = split_oracle(oracle, x, torch.Generator().manual_seed(0))
    return (oracle, False) if split is None else (split, True)


class _Sampler:
    """Values of Phi at points far from each other, until a deadline."""

    def __init__(self, oracle: Any, y: Vec, deadline: float, *, rows: bool) -> None:
        self.oracle, self.y, self.deadline = oracle, y, deadline
        self.solver: ConicResolver | RowsResolver | _Responses
        if applies(oracle):
            self.solver = ConicResolver(oracle)
        elif rows:
            self.solver = RowsResolver(oracle)
        else:
            self.solver = _Responses(oracle)

    @property
    def is_late(self) -> bool:
        return time.perf_counter() > self.deadline

    @property
    def is_exact(self) -> bool:
        """Whether responses come from factors, without iterations."""
        return isinstance(self.solver, _Responses) and self.solver.is_exact

    def response(self, x: Vec) -> Vec | None:
        """The response to x; None after the deadline."""
        return None if self.is_late else self.last_response(x)

    def last_response(self, x: Vec) -> Vec | None:
        """The response to x, whatever the time."""
        lower = self.solver.solved(x, self.y)
        return lower.y if lower is not None and lower.usable else None

    def value(self, x: Vec) -> float | None:
        """F at the response to x."""
        y = self.response(x)
        if y is None:
            return None
        F = self.oracle.F(x, y)
        return F if math.isfinite(F) else None

    def descend(self, start: Vec, steps: int) -> tuple[float, Vec]:
        """A few steps down from a point of a box: F and where."""
        if isinstance(self.solver, RowsResolver):
            end = self.solver.descended(start, self.y, steps, lambda: self.is_late)
            return (math.inf, start) if end is None else (end.F, end.x)
        best: tuple[float, Vec] = (math.inf, start)

        def fun(z: Array) -> tuple[float, Array]:
            nonlocal best
            x = self.oracle.domain_x.project(torch.from_numpy(z.copy()))
            found = None if self.is_late else self.solver.answer(x, self.y)
            if found is None or found.gradient is None or not math.isfinite(found.F):
                return 1e300, np.zeros_like(z)
            best = min(best, (found.F, x), key=lambda pair: pair[0])
            return found.F, found.gradient.numpy().copy()

        low, high = (v.numpy() for v in (self.oracle.domain_x.lower, self.oracle.domain_x.upper))
        minimize(
            fun,
            start.numpy().copy(),
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(low, high, strict=True)),
            options={"maxiter": steps, "maxfun": steps + 4},
        )
        return best


class _Responses:
    """Responses without rows: exact ones by one factor where f is quadratic in y, else by Newton's
    method, as good as a comparison needs. The certificate has others.
    """

    def __init__(self, oracle: Any) -> None:
        solver = DenseSolver(curvature_of(oracle))
        exact = quadratic_lower(oracle, solver)
        method, self.is_exact = exact or solver, exact is not None
        self.response = Response(oracle, method, Accuracy(LEVEL, 1.0, LEVEL), correct=False)
        self.near: Vec | None = None

    def solved(self, x: Vec, y: Vec) -> LowerSolution:
        """The response to x from y."""
        r = self.response
        return r.method.solve_lower(r.oracle, x, y, r.accuracy, r.scale)[0]

    def answer(self, x: Vec, y: Vec) -> Point | None:
        """The same with F and the hypergradient, from the one before; None where there is none."""
        point = self.response.evaluate(x, None, y if self.near is None else self.near)
        if not self.response.finite(point):
            return None
        self.near = point.y
        return self.response.differentiate(point, None)


def _points(oracle: TorchOracle, x: Vec, rng: np.random.Generator, *, rows: bool) -> Iterator[Vec]:
    """Points all over the upper set; with ``rows`` also those where one variable of x is at an
    end.
    """
    domain = oracle.domain_x
    low, high = domain.lower.numpy(), domain.upper.numpy()
    n = low.size
    finite = np.isfinite(low) & np.isfinite(high)
    if n <= CORNERS and finite.all():
        for corner in itertools.product(*zip(low.tolist(), high.tolist(), strict=True)):
            yield domain.project(torch.tensor(corner, dtype=torch.float64))
    if rows and n > 1:
        # Penalties that have switched their terms off have no slope that would bring them back.
        for j in np.flatnonzero(finite):
            for end in (low[j], high[j]):
                moved = x.clone()
                moved[j] = float(end)
                yield domain.project(moved)
    size = np.maximum(1.0, np.maximum(np.abs(x.numpy()), np.abs(oracle.x0.numpy())))
    middle = 0.5 * (x.numpy() + oracle.x0.numpy())
    count = LINE if n == 1 else CLOUD
    if rows:
        many = WORK // (oracle.m + oracle.g.size)
        count = max(count, min(many, LINE_ROWS if n == 1 else CLOUD_ROWS))
    for k in range(count):
        share = np.full(1, (k + 0.5) / count) if n == 1 else rng.uniform(size=n)
        # Where a range has no end, distances grow from a tenth of the size of x to a hundred times.
        away = size * 10.0 ** rng.uniform(-1.0, 2.0, n) * rng.choice([-1.0, 1.0], n)
        inside = np.where(finite, low, 0.0) + share * np.where(finite, high - low, 0.0)
        point = np.where(finite, inside, middle + away)
        bent = np.where(np.isfinite(low) & ~finite, low + np.abs(away), point)
        bent = np.where(np.isfinite(high) & ~finite, high - np.abs(away), bent)
        yield domain.project(torch.from_numpy(bent))
