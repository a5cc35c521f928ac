"""Where a stochastic run starts, and how long its steps are: from the bilevel problem on a part of
the data.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.backends.implicit.aid import AID, AIDOptions
from bilevelpy.backends.stochastic.pace import LowerPace, UpperPace, extent
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.deadline import DeadlineOracle
from bilevelpy.numerics.linear_solve import cholesky, norm
from bilevelpy.numerics.spectrum import extreme_eigenvalues
from bilevelpy.numerics.stochastic.pilot import (
    Metric,
    curvature_range,
    lower_metric,
    trust_radius,
    upper_bend,
    upper_curvature,
)
from bilevelpy.numerics.upper.lipschitz import accurate

if TYPE_CHECKING:
    from bilevelpy.backends.stochastic.state import SampledState

# Rows of a pilot: enough for its curvatures to be those of all rows, at most half of them.
PILOT_ROWS, PILOT_FACTOR = 250, 20
# Batches whose largest curvature is looked at.
LOOKED = 5
# Step of x on the time scale of y and u: single loops converge only where x is the slower one.
SLOWER = 0.5
# Accuracy and upper steps of the solution on a part of the data.
CLOSE, MOST = 1e-4, 60
# A hypergradient that is this many times its difference between two pilots is none.
NOISE = 3.0


def pilot_rows(oracle: Oracle, size: int) -> int:
    """Rows of a pilot."""
    return max(1, min(max(PILOT_ROWS, PILOT_FACTOR * oracle.m), size // 2))


def is_given(options: Any) -> bool:
    """Whether start, metric and both steps are the user's: no part of the data has to be solved,
    which for a network would take longer than the run.
    """
    plain = options.metric == "none" and options.prepare == "none"
    return bool(plain and options.lower_step and options.upper_step)


def _timed(oracle: Oracle, pilot: Any) -> Any:
    """A pilot that ends with the run: its solution may take longer than the run may."""
    return DeadlineOracle(pilot, oracle.deadline) if isinstance(oracle, DeadlineOracle) else pilot


def prepared(oracle: Oracle, state: SampledState, options: Any) -> None:
    """Move x, y and u to the solution of a pilot, as far as the option asks for.

    x stays where two pilots cannot tell it from a solution (a run that goes on, a good start).
    """
    if is_given(options) or options.metric == "rough":
        return
    x, rows = state.x, pilot_rows(oracle, state.data.lower.elements)
    pilot: Any = _timed(oracle, state.data.subset(rows, state.rng))
    start = accurate(pilot, x, state.y, tol=1e-4)
    state.first = norm(oracle.domain_x.projected_gradient(x, start.h))
    if options.prepare == "none":
        return
    second = _timed(oracle, state.data.subset(rows, state.rng))
    other = accurate(second, x, start.y, start.u, tol=1e-4)
    mean, apart = 0.5 * (start.h + other.h), 0.5 * (start.h - other.h)
    near = norm(oracle.domain_x.projected_gradient(x, mean)) <= NOISE * norm(apart)
    if near and bool((x != oracle.x0).any()):
        far = accurate(pilot, oracle.domain_x.project(oracle.x0), start.y, start.u, tol=1e-2)
        state.first = max(state.first, norm(oracle.domain_x.projected_gradient(oracle.x0, far.h)))
    if options.prepare == "respond" or near:
        state.y, state.u = start.y, start.u
        return
    aid, settings = AID(), AIDOptions(tol=CLOSE)
    run = aid.init(pilot, x, start.y, settings, state.rng)
    for _ in range(MOST):
        if run.finish is not None or run.stationarity() <= CLOSE:
            break
        run = aid.step(pilot, run, settings)
    point = run.point
    state.first = max(run.norms, default=0.0)
    state.wait = 1
    if point.adjoint is None or not bool(torch.isfinite(torch.cat([point.x, point.y])).all()):
        return
    state.x, state.y, state.u = point.x, point.y, point.adjoint.u


def scaled(oracle: Oracle, state: SampledState, options: Any, factor: float, inner: int) -> None:
    """Metric and steps of y, u (``factor / L``) and x, by a pilot at the present x; ``inner`` lower
    steps are made for each step of x.
    """
    data, x, rng = state.data, state.x, state.rng
    if is_given(options):
        state.metric = Metric(None, 0.0, factor / options.lower_step)
        state.anchor, state.radius = x, math.inf
        state.beta, state.alpha = options.lower_step, options.upper_step
        return
    if options.metric == "rough":
        _roughly(oracle, state, options, factor)
        return
    rows = pilot_rows(oracle, data.lower.elements)
    pilot: Any = data.subset(rows, rng)
    start = accurate(pilot, x, state.y, state.u, tol=1e-6)
    plain = options.metric == "none"
    lower = None if plain else lower_metric(pilot, x, start.y)
    batches: list[Any] = [data.at(*state.draw()) for _ in range(LOOKED)]
    low, top = curvature_range(data.subset(rows, rng), batches, x, start.y, lower, rng)
    top = 1.1 * top if top > 0 else 1.0
    curvature = None if plain else upper_curvature(pilot, x, start)
    bend = 1.0 if curvature is not None else upper_bend(pilot, x, start, rng) or 1.0
    state.metric = Metric(lower, low, top, curvature, bend)
    if curvature is not None:
        state.metric.factor = cholesky(curvature)
    state.anchor = x
    state.radius = math.inf if plain else trust_radius(oracle, pilot, state.metric, x, start)
    halved = 0.5**state.halvings
    state.beta = options.lower_step or halved * factor / top
    rate = 1.0 - (1.0 - min(state.beta * low, 1.0)) ** inner
    state.alpha = options.upper_step or halved * SLOWER * rate / bend


def _roughly(oracle: Oracle, state: SampledState, options: Any, factor: float) -> None:
    """Steps without a solve: of y by the largest curvature of some batches where y is and searches
    from there on, of x by the hypergradients that come.
    """
    batches: list[Any] = [state.data.at(*state.draw()) for _ in range(LOOKED)]
    tops = [
        extreme_eigenvalues(b.hvp(state.x, state.y), b.m, state.rng, steps=8)[1] for b in batches
    ]
    top = 1.1 * max(*tops, 1e-300)
    state.metric = Metric(None, 0.0, top)
    state.anchor, state.radius = state.x, math.inf
    halved = 0.5**state.halvings
    state.beta = options.lower_step or halved * factor / top
    state.alpha = options.upper_step or halved
    if not options.lower_step:
        state.lower_pace = LowerPace(state.beta)
    if not options.upper_step:
        # Moves begin after a pass: before it the minimisers have hardly moved, and noise is all.
        state.wait = 1
        pace = state.upper_pace
        state.upper_pace = pace or UpperPace(extent(oracle, state.x), state.batches)
