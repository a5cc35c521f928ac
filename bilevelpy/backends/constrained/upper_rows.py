"""Steps of ``conic`` and ``kkt`` where the upper level has rows: sequential quadratic programs
along the responses.

One step solves the program of :mod:`bilevelpy.numerics.cones.sequential` with a damped BFGS matrix
of the Lagrangian and searches along it on the exact penalty. Where that fails, derivatives sampled
around the point take part. Several starts; the best end is kept.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch

from bilevelpy.backends.constrained.pieces import Bend, over_pieces
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
from bilevelpy.numerics.cones.sequential_rows import step_by_exchanges
from bilevelpy.numerics.driver.measure import Finish, Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.quasi_newton import updated
from bilevelpy.numerics.rows.sample import RowsSampler
from bilevelpy.numerics.wording import wording
from bilevelpy.result import Status

Array = np.ndarray[Any, np.dtype[Any]]

# The weight of violations at most, in units of F's slope over that of a row.
HEAVIEST = 1e8
# Armijo's fraction, halvings of a step, rounding of F (relative).
ARMIJO, HALVINGS, NOISE = 1e-4, 30, 1e-12
# Steps on pieces that promise less than this of F lead nowhere.
RESOLVED = 1e-11
# A step cut to this part of its length has met a kink.
SHORT = 0.05
# Random points around a kink at most, and points downhill beside them where there are more upper
# variables.
FEW, BUNDLE = 20, 8
# A run along kinks ends where F falls by less than so many times tol in so many steps.
FALL, WINDOW = 5.0, 100
# The last radius around a kink, in extents; a sampled slope below this is stationary.
NARROWEST, FLAT = 1e-7, 1e-4


def step_rows(state: RowsState) -> RowsState:
    """One step, or the end of a start and the beginning of the next."""
    if state.finish is not None or state.here is None:
        return state
    end = _step(state) or _flat(state)
    if _is_fresh(state):
        # An x has shown what the rows below imply: with that row, steps go along the edge.
        widened(state)
        return state
    if end is None:
        return state
    close(state, end)
    while state.starts and not agreed(state):
        new = state.sampler(state.oracle, state.starts.pop(0), state.here.y)
        if new is not None:
            enter(state, new)
            return state
    assert state.best is not None
    assert state.verdict is not None
    end = state.verdict
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


def _flat(state: RowsState) -> Finish | None:
    """The end of a start whose steps along kinks hardly lower F any more."""
    here = state.here
    assert here is not None
    state.values = [*state.values[-WINDOW:], here.F] if state.off(here) <= FEASIBLE else []
    if not state.jammed or len(state.values) <= WINDOW:
        return None
    fall = state.values[0] - here.F
    if fall > FALL * state.tol * max(abs(here.F), 1e-3 * state.units.value):
        return None
    says = wording(state.oracle.F_sign)
    return Finish(
        Status.STALLED,
        f"steps along a kink changed F by less than {FALL * state.tol:.0e} of its size in {WINDOW} "
        f"iterations: it {says.falls} no further",
    )


# --- one step -------------------------------------------------------------------------------------


def _step(state: RowsState) -> Finish | None:
    """One step; a verdict where this start has come to its end."""
    here = state.here
    assert here is not None
    step = _program(state, [here], state.B)
    if step is None:
        state.B, state.plain = np.eye(here.x.numel()), True
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
        if _is_fresh(state):
            return None
        on = over_pieces(state, here, partial(_on_piece, state))
        if on.new is not None:
            state.here, state.jammed = on.new, on.met
            if on.at is None or on.step is None or on.known:
                return None
            if on.met:
                state.B = state.B * _stiffer(state, here, on.new, on.step)
            else:
                _learn(state, on.at, on.new, on.step)
            return None
        if on.left <= max(FLAT, state.tol) and state.off(here) <= FEASIBLE:
            state.stationarity = min(state.stationarity, on.left)
            return Finish(Status.CONVERGED, "no piece of the response that meets here leads down")
        return None if _is_fresh(state) else _around(state, here)
    # Steps of almost no length zigzag across a kink.
    state.jammed = norm(new.x - here.x) < SHORT * step.length * state.units.extent
    _learn(state, here, new, step)
    state.here = new
    return None


def _program(state: RowsState, samples: list[Sample], B: Array) -> Step | None:
    """The program, with the weight raised until the linear rows hold that can hold."""
    step = _solved(state, samples, B, state.mu)
    while step is not None and step.left.max(initial=0.0) > FEASIBLE and state.mu < HEAVIEST:
        again = _solved(state, samples, B, 10.0 * state.mu)
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


def _solved(
    state: RowsState, samples: list[Sample], B: Array, mu: float, rows: Array | None = None
) -> Step | None:
    """The solution of one program: at a single point from what held the last one."""
    domain, kinds, units = state.oracle.domain_x, state.kinds, state.units
    if len(samples) == 1:
        found = step_by_exchanges(samples[0], domain, kinds, units, B, mu, state.held, rows=rows)
        if found is not None:
            state.held = found[1]
            return found[0]
    return step_program(samples, domain, kinds, units, B, mu, rows)


def _gain(state: RowsState, here: Sample, step: Step) -> float:
    """The predicted change of the penalty of the rows."""
    rows = here.rows.numpy() / (state.units.rows * state.units.extent)
    now = violations(rows, state.kinds.equality)
    return state.mu * float((step.left - now)[~state.kinds.plain].sum())


def _search(
    state: RowsState,
    here: Sample,
    step: Step,
    slope: float,
    shortest: float = 0.0,
    bend: Bend | None = None,
) -> Sample | None:
    """A point along d, or along its ``bend``, with less merit; None where there is none farther
    than ``shortest``. Rows that bend are taken into account at the whole step.
    """
    if slope >= 0.0:
        return None
    start = _merit(state, here)
    length = 1.0
    for k in range(HALVINGS):
        new = _moved(state, here, length * step.d)
        if new is not None and _merit(state, new) <= start + ARMIJO * length * slope:
            return new
        second = None
        if new is not None and bend is not None:
            back = bend(new, length)
            second = None if back is None else _moved(state, here, back)
        elif new is not None and k == 0 and state.off(new) > state.off(here):
            second = _corrected(state, here, new, step)
        if second is not None and _merit(state, second) <= start + ARMIJO * length * slope:
            return second
        length *= 0.5
        rounding = abs(length * slope) <= NOISE * abs(here.F) / state.units.value
        if rounding or length * step.length < shortest:
            return None
    return None


def _on_piece(state: RowsState, at: Sample, step: Step, bend: Bend) -> Sample | None:
    """A point along a step on a piece, with the derivatives of ``at``; None where it promises
    nothing beyond rounding.
    """
    slope = step.fall + _gain(state, at, step)
    if -slope <= RESOLVED * abs(at.F) / state.units.value:
        return None
    return _search(state, at, step, slope, bend=bend)


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
    again = _solved(state, [here], state.B, state.mu, bent)
    return None if again is None else _moved(state, here, again.d)


def _merit(state: RowsState, at: Sample) -> float:
    return merit(at.F, at.rows.numpy(), state.kinds, state.units, state.mu)


def _learn(state: RowsState, old: Sample, new: Sample, step: Step) -> None:
    """Damped BFGS on the gradient of the Lagrangian (M. J. D. Powell, 1978)."""
    s = (new.x - old.x).numpy() / state.units.extent
    weights = step.multipliers / state.units.rows
    change = (new.slope - old.slope).numpy() / state.units.parts
    change = change + weights @ (new.slopes - old.slopes).numpy()
    along = float(s @ change)
    if state.plain and along > 0.0:
        # The first pair says how large curvatures are (D. F. Shanno and K. H. Phua, Math.
        # Programming 14, 1978).
        state.B = state.B * (float(change @ change) / along)
    state.plain = False
    bent = state.B @ s
    size = float(s @ bent)
    if not size > 0.0:
        return
    share = 1.0 if along >= 0.2 * size else 0.8 * size / (size - along)
    r = share * change + (1.0 - share) * bent
    state.B = updated(state.B, s, r)


def _around(state: RowsState, here: Sample) -> Finish | None:
    """Beyond a kink, by derivatives sampled around it; a verdict where that leads nowhere."""
    n, flat = here.x.numel(), math.inf
    while state.radius >= NARROWEST:
        reach = state.radius * state.units.extent
        near = [s for s in state.recent if 0.0 < norm(s.x - here.x) <= reach]
        for _ in range(max(min(n, FEW) + 1 - len(near), 1)):
            d = torch.randn(n, generator=state.rng, dtype=torch.float64).numpy()
            moved = _moved(state, here, state.radius * d / np.linalg.norm(d))
            near += [] if moved is None else [moved]
        for _ in range(BUNDLE if n > FEW else 1):
            step = _beyond(state, here, near)
            if step is None and state.here is not here:
                return None
            flat = math.inf if step is None else state.bend * step.length
            if step is None or flat <= max(FLAT, state.tol):
                break
            # Few random points lie on the piece downhill: one there says what F does on it.
            moved = _moved(state, here, state.radius * step.d / step.length)
            near += [] if moved is None else [moved]
        if math.isinf(flat):
            break
        state.radius *= 0.1
    state.stationarity = min(state.stationarity, flat)
    if flat <= FLAT and state.off(here) <= FEASIBLE:
        return Finish(Status.CONVERGED, "every direction tried leads uphill or out of the rows")
    return Finish(Status.STALLED, "no direction was found in which F decreases within the rows")


def _beyond(state: RowsState, here: Sample, near: list[Sample]) -> Step | None:
    """The step by derivatives at several points; ``state.here`` is where it led, if anywhere."""
    bend, n = state.bend, here.x.numel()
    step = _program(state, [here, *near], bend * np.eye(n))
    if step is None or bend * step.length <= max(FLAT, state.tol):
        return step
    new = _search(state, here, step, step.fall + _gain(state, here, step), SHORT * state.radius)
    if new is None:
        return step
    state.bend = bend * _stiffer(state, here, new, step)
    state.jammed = norm(new.x - here.x) < 0.5 * step.length * state.units.extent
    state.here, state.B, state.plain = new, state.bend * np.eye(n), False
    return None


def _stiffer(state: RowsState, here: Sample, new: Sample, step: Step) -> float:
    """The curvature within a kink is learnt from how far the search goes: what to multiply it
    by.
    """
    part = norm(new.x - here.x) / (step.length * state.units.extent)
    return 0.5 if part > 0.9 else min(max(1.0 / part, 1.0), 10.0)
