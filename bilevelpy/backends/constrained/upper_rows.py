"""Steps of ``conic`` and ``kkt`` where the upper level has rows: sequential quadratic programs
along the responses.

One step solves the program of :mod:`bilevelpy.numerics.cones.sequential` with a damped BFGS matrix
of the Lagrangian and searches along it on the exact penalty. Where that fails, derivatives sampled
around the point take part. Several starts; the best end is kept.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from bilevelpy.backends.constrained.starts import (
    FEASIBLE,
    RowsState,
    agreed,
    close,
    enter,
    unmet,
    widened,
)
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.cones.sequential import Sample, Step, merit, step_program, violations
from bilevelpy.numerics.driver.measure import Finish, Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.quasi_newton import updated
from bilevelpy.numerics.rows.sample import RowsSampler
from bilevelpy.result import Status

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

# The weight of violations at most, in units of F's slope over that of a row.
HEAVIEST = 1e8
# Armijo's fraction, halvings of a step, rounding of F (relative).
ARMIJO, HALVINGS, NOISE = 1e-4, 30, 1e-12
# A step cut to this part of its length has met a kink.
SHORT = 0.05
# The last radius around a kink, in extents; a sampled slope below this is stationary.
NARROWEST, FLAT = 1e-7, 1e-4


def step_rows(state: RowsState) -> RowsState:
    """One step, or the end of a start and the beginning of the next."""
    if state.finish is not None or state.here is None:
        return state
    end = _step(state)
    if _is_fresh(state):
        # An x has shown what the rows below imply: with that row, steps go along the edge.
        widened(state)
        return state
    if end is None:
        return state
    close(state)
    while state.starts and not agreed(state):
        new = state.sampler(state.oracle, state.starts.pop(0), state.here.y)
        if new is not None:
            enter(state, new)
            return state
    assert state.best is not None
    if state.off(state.best) > 10.0 * FEASIBLE:
        end = unmet(state, state.best)
    state.here, state.finish = state.best, end
    return state


def measure_rows(oracle: Oracle, state: RowsState) -> Measure:
    """The best point so far; the stationarity is that of the run from the present start."""
    at = state.here if state.best is None else state.best
    if at is None:
        nan = math.nan
        x, y = state.start
        return Measure(x, y, nan, nan, nan, nan, finish=state.finish)
    slope, f = state.stationarity, oracle.f(at.x, at.y)
    warnings = ("the response has a kink at the point that is returned",) if at.weak else ()
    return Measure(
        at.x, at.y, at.F, f, slope * state.units.parts, at.residual, slope, 0.0, state.finish,
        warnings,
    )  # fmt: skip


def _is_fresh(state: RowsState) -> bool:
    return isinstance(state.sampler, RowsSampler) and state.sampler.is_fresh


# --- one step -------------------------------------------------------------------------------------


def _step(state: RowsState) -> Finish | None:
    """One step; a verdict where this start has come to its end."""
    here = state.here
    assert here is not None
    step = _program(state, [here], state.B)
    if step is None:
        state.B = np.eye(here.x.numel())
        step = _program(state, [here], state.B)
    if step is None:
        return Finish(Status.STALLED, "the quadratic program of a step could not be solved")
    shortfall = 2.0 * state.tol if state.off(here) > FEASIBLE else 0.0
    state.stationarity = max(float(np.linalg.norm(state.B @ step.d)), shortfall)
    if state.stationarity <= state.tol and state.off(here) <= FEASIBLE:
        return Finish(Status.CONVERGED, f"relative gradient {state.stationarity:.1e} within tol")
    new = None
    if not state.jammed:
        new = _search(state, here, step, step.fall + _gain(state, here, step))
    if new is None:
        return None if _is_fresh(state) else _around(state, here)
    # Steps of almost no length zigzag across a kink.
    state.jammed = norm(new.x - here.x) < SHORT * step.length * state.units.extent
    _learn(state, here, new, step)
    state.here = new
    return None


def _program(state: RowsState, samples: list[Sample], B: Array) -> Step | None:
    """The program, with the weight raised until the linear rows hold that can hold."""
    domain = state.oracle.domain_x
    step = step_program(samples, domain, state.kinds, state.units, B, state.mu)
    while step is not None and step.left.max(initial=0.0) > FEASIBLE and state.mu < HEAVIEST:
        again = step_program(samples, domain, state.kinds, state.units, B, 10.0 * state.mu)
        if again is None or again.left.sum() > 0.99 * step.left.sum():
            break
        state.mu *= 10.0
        step = again
    if step is not None:
        soft = np.abs(step.multipliers[~state.kinds.plain])
        # Multipliers may not touch the weight: it would hold back rows that could hold.
        if 1.1 * soft.max(initial=0.0) > state.mu < HEAVIEST:
            state.mu = min(2.0 * state.mu, HEAVIEST)
    return step


def _gain(state: RowsState, here: Sample, step: Step) -> float:
    """The predicted change of the penalty of the rows."""
    rows = here.rows.numpy() / (state.units.rows * state.units.extent)
    now = violations(rows, state.kinds.equality)
    return state.mu * float((step.left - now)[~state.kinds.plain].sum())


def _search(
    state: RowsState, here: Sample, step: Step, slope: float, shortest: float = 0.0
) -> Sample | None:
    """A point along d with less merit; None where there is none farther than ``shortest``."""
    if slope >= 0.0:
        return None
    start = _merit(state, here)
    length = 1.0
    for k in range(HALVINGS):
        new = _moved(state, here, length * step.d)
        if new is not None and _merit(state, new) <= start + ARMIJO * length * slope:
            return new
        if new is not None and k == 0 and state.off(new) > state.off(here):
            second = _corrected(state, here, new, step)
            if second is not None and _merit(state, second) <= start + ARMIJO * slope:
                return second
        length *= 0.5
        rounding = abs(length * slope) <= NOISE * abs(here.F) / state.units.value
        if rounding or length * step.length < shortest:
            return None
    return None


def _moved(state: RowsState, here: Sample, d: Array) -> Sample | None:
    x = state.oracle.domain_x.project(here.x + state.units.extent * torch.from_numpy(d))
    if norm(x - here.x) == 0.0:
        return None
    new = state.sampler(state.oracle, x, here.y)
    if new is not None:
        state.recent = [*state.recent[-2 * x.numel() :], new]
    return new


def _corrected(state: RowsState, here: Sample, new: Sample, step: Step) -> Sample | None:
    """A step that takes the bend of the rows along d into account."""
    bent = new.rows.numpy() - state.units.extent * here.slopes.numpy() @ step.d
    again = step_program(
        [here], state.oracle.domain_x, state.kinds, state.units, state.B, state.mu, bent
    )
    return None if again is None else _moved(state, here, again.d)


def _merit(state: RowsState, at: Sample) -> float:
    return merit(at.F, at.rows.numpy(), state.kinds, state.units, state.mu)


def _learn(state: RowsState, old: Sample, new: Sample, step: Step) -> None:
    """Damped BFGS on the gradient of the Lagrangian (M. J. D. Powell, 1978)."""
    s = (new.x - old.x).numpy() / state.units.extent
    weights = step.multipliers / state.units.rows
    change = (new.slope - old.slope).numpy() / state.units.parts
    change = change + weights @ (new.slopes - old.slopes).numpy()
    bent = state.B @ s
    size, along = float(s @ bent), float(s @ change)
    if not size > 0.0:
        return
    share = 1.0 if along >= 0.2 * size else 0.8 * size / (size - along)
    r = share * change + (1.0 - share) * bent
    state.B = updated(state.B, s, r)


def _around(state: RowsState, here: Sample) -> Finish | None:
    """Beyond a kink, by derivatives sampled around it; a verdict where that leads nowhere."""
    n, flat, bend = here.x.numel(), math.inf, state.bend
    sphere = bend * np.eye(n)
    while state.radius >= NARROWEST:
        reach = state.radius * state.units.extent
        near = [s for s in state.recent if 0.0 < norm(s.x - here.x) <= reach]
        for _ in range(max(min(n, 20) + 1 - len(near), 1)):
            d = torch.randn(n, generator=state.rng, dtype=torch.float64).numpy()
            moved = _moved(state, here, state.radius * d / np.linalg.norm(d))
            near += [] if moved is None else [moved]
        step = _program(state, [here, *near], sphere)
        if step is None:
            break
        flat = bend * step.length
        if flat > max(FLAT, state.tol):
            slope = step.fall + _gain(state, here, step)
            new = _search(state, here, step, slope, SHORT * state.radius)
            if new is not None:
                # The curvature within the kink is learnt from how far the search goes.
                part = norm(new.x - here.x) / (step.length * state.units.extent)
                state.bend = bend * (0.5 if part > 0.9 else min(max(1.0 / part, 1.0), 10.0))
                state.jammed = part < 0.5
                state.here, state.B = new, state.bend * np.eye(n)
                return None
        state.radius *= 0.1
    state.stationarity = min(state.stationarity, flat)
    if flat <= FLAT and state.off(here) <= FEASIBLE:
        return Finish(Status.CONVERGED, "every direction tried leads uphill or out of the rows")
    return Finish(Status.STALLED, "no direction was found in which F decreases within the rows")
