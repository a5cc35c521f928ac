"""The upper optimizer: projected L-BFGS with a weak Wolfe search, for any backend that answers Phi
and its gradient.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from bilevelpy.numerics.driver.measure import Finish, Measure
from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.lower.response import Point, Response
from bilevelpy.numerics.upper.kink import RADIUS, leave_kink
from bilevelpy.numerics.upper.state import (
    FALL,
    MORE,
    WINDOW,
    UpperState,
    first_length,
)
from bilevelpy.numerics.upper.valleys import change, keep
from bilevelpy.numerics.upper.wolfe import search
from bilevelpy.numerics.wording import wording
from bilevelpy.result import Status

__all__ = ["UpperState", "advance", "begin", "leave", "measure"]

Vec = torch.Tensor

# Predicted decreases below this fraction of |F| cannot be told from rounding.
RESOLUTION = 1e-13
# Gradients above this stationarity at vanishing steps are taken for a kink.
JUMP = 1e-3
# Stationarities up to this multiple of the accuracy of the solves say little.
VAGUE = 10.0
# A hypergradient from an adjoint with a relative residual above this shows no stationarity.
UNSOLVED = 1e-3
# A slope that changes by this part of itself in better solves explains a failed search.
ASTRAY = 0.1
# Values whose squares are no numbers any more, so many times that of the start, have no bound.
EXPLODED, ENDLESS = 1e12, -1e150
# No model has an answer at a distance of so many times the first step. A fall of which this part
# came in the second half of these orders of magnitude is no slower than that of a logarithm.
ASTRONOMIC, LATELY = 1e24, 0.4


def begin(response: Response, x: Vec, y: Vec, tol: float) -> UpperState:
    """Evaluate Phi and its gradient at the start."""
    x = response.oracle.domain_x.project(x)
    y = response.oracle.domain_y.project(y)
    point = response.evaluate(x, None, y)
    if not response.finite(point):
        point = replace(point, gradient=torch.zeros_like(x))
        state = UpperState(response, point, tol, point)
        functions: Any = response.oracle
        rows = getattr(functions, "g", None)
        state.finish = _no_response(response, point, rows=rows is not None and rows.size > 0)
        return state
    point = response.differentiate(point, None)
    state = UpperState(response, point, tol, point)
    _note(state)
    while tol < state.stationarity() <= VAGUE * response.accuracy.level:
        # Perhaps the start is a solution: a gradient this small may be error alone.
        if not response.accuracy.tighten():
            break
        new = response.again(state.point)
        if new.gradient is None:
            break
        state.point = new
    if state.stationarity() <= tol:
        _confirm(state)
    return state


def advance(state: UpperState) -> UpperState:
    """One accepted step of the upper variables, or a verdict in ``state.finish``."""
    if state.finish is not None:
        return state
    old = state.point
    pg = state.projected_gradient
    size = state.gradient_norm
    if size == 0.0:
        _confirm(state)
        if state.gradient_norm == 0.0 and (measure(state).lower_accuracy or 0.0) > state.tol:
            state.finish = Finish(
                Status.STALLED,
                "the hypergradient vanishes, and the lower level is not solved more accurately",
            )
        return state
    if not math.isfinite(size):
        state.finish = Finish(Status.DIVERGED, "the hypergradient is not finite")
        return state
    if state.is_hidden:
        state.more += 1
    first = state.memory.scale == 0.0
    d = _direction(state, pg)
    found = search(state.response, old, d, extent=state.extent, remember=state.recent.append)
    slope = dot(old.g, d)
    # A value that has moved by more than the step was to gain is that of another response.
    same = abs(found.start.value - old.value) <= abs(slope)
    astray = abs(dot(found.start.g, d) - slope) > ASTRAY * abs(slope)
    if found.point is None and not first and same and astray:
        # Not the model was at fault: the gradient was, and has been computed anew.
        state.point = found.start
        pg, size = state.projected_gradient, state.gradient_norm
        d = _direction(state, pg)
        found = search(
            state.response, found.start, d, extent=state.extent, remember=state.recent.append
        )
    if found.point is None and not first:
        # The model may be at fault: steepest descent with the length of the last good step.
        d = -pg * (min(state.reach, max(state.extent, 1e-300)) / 10.0 / size)
        found = search(
            state.response, found.start, d, extent=state.extent, remember=state.recent.append
        )
        state.forget()
    state.point = found.start
    if found.better is not None:
        change(state, found.point or found.start, found.better)
        _note(state)
        return state
    if found.point is not None and _explodes(state, found.point):
        state.point = found.point
        says = wording(state.response.oracle.F_sign)
        state.finish = Finish(
            Status.UNBOUNDED,
            f"F {says.falls} without bound: {says.sign * found.point.F:.2e} at a distance of "
            f"{norm(found.point.x - state.start.x):.1e} from the start",
        )
        return state
    if found.point is None or found.stuck:
        _stuck(state, found.point)
        return state
    length = _accept(state, found.point)
    steep = state.stationarity() > max(JUMP, state.tol) and not state.is_hidden
    if length <= RADIUS * state.extent and steep:
        # Steps of no length while the gradient stays: it jumps, and smooth steps would zigzag
        # across.
        leave(state)
    return state


def measure(state: UpperState) -> Measure:
    """The state in the driver's terms, with the point that it keeps."""
    found, here = _measured(state), state.point
    if state.refuge is None or state.refuge is here:
        return found
    state.point = state.refuge
    kept = replace(_measured(state), finish=None)
    state.point = here
    if kept.F < found.F and (found.stationarity or 0.0) <= state.tol:
        says = wording(state.response.oracle.F_sign)
        text = f"F was {says.sign * kept.F:.6g} beside a jump to a better response, with no slope 0"
        found = replace(found, warnings=(*found.warnings, text))
    return replace(found, rival=kept)


def _measured(state: UpperState) -> Measure:
    p = state.point
    scale = state.response.scale
    residual = p.lower.residual
    lower_accuracy = residual / scale if scale else 0.0
    if p.lower.usable:  # solved to the level that the confirmed stationarity asked for
        lower_accuracy = min(lower_accuracy, state.response.accuracy.level)
    # Fixed numbers of steps have the accuracy that they have; what is tied to tol must have it.
    if state.response.correct and p.adjoint is not None and p.adjoint.residual > UNSOLVED:
        lower_accuracy = max(lower_accuracy, p.adjoint.residual)  # h may vanish for lack of u
    f = p.lower.f if math.isfinite(p.lower.f) else state.response.oracle.f(p.x, p.y)
    warnings = state.warnings
    if p.adjoint is not None and p.adjoint.negative_curvature:
        warnings = (*warnings, "negative curvature of the lower level was met at a response")
    if p.lower.face.weak:
        warnings = (
            *warnings,
            "bounds of the lower level are weakly active: the response has a kink here",
        )
    return Measure(
        p.x,
        p.y,
        p.F,
        f,
        state.gradient_norm,
        residual,
        state.stationarity(),
        min(lower_accuracy, 1.0),
        state.finish,
        warnings,
    )


def _direction(state: UpperState, pg: Vec) -> Vec:
    """Newton's, or that of the pairs on the face; capped at ten times the last step."""
    newton = state.newton_step()
    if newton is not None and dot(newton, pg) > 0:
        d = -newton
    elif state.memory.scale == 0.0:
        return -pg * (first_length(state) / state.gradient_norm)
    else:
        d = -state.model_step()
    if not dot(d, pg) < 0:
        d = -state.memory.scale * pg
    length = norm(d)
    return d * (state.reach / length) if length > state.reach else d


def _accept(state: UpperState, new: Point) -> float:
    """Move to the new point, learn the pair, and tie the accuracies to the progress; the length of
    the step.
    """
    old = state.point
    s = new.x - old.x
    state.memory.update(s, new.g - old.g)
    length = norm(s)
    if state.memory.scale == 0.0:
        state.memory.scale = length / max(state.gradient_norm, 1e-300)
    state.point = new
    state.reach = 10.0 * length
    state.extent = max(state.extent, norm(new.x - state.start.x), length)
    _note(state)
    stationarity = state.stationarity()
    if stationarity <= state.tol:
        _confirm(state)
        return length
    state.response.accuracy.follow(stationarity)
    if state.is_flat():
        state.point = state.response.polish(state.point)
        says = wording(state.response.oracle.F_sign)
        state.finish = Finish(
            Status.CONVERGED,
            f"F {says.falls} by less than {FALL * state.tol:.0e} of its size in {WINDOW} "
            f"iterations, relative hypergradient {state.relative_gradient():.1e}",
        )
    return length


def _note(state: UpperState) -> None:
    state.norms.append(state.gradient_norm)
    state.values.append(state.point.value)
    state.recent.append((state.point.x, state.point.g))
    keep(state)


def _confirm(state: UpperState) -> None:
    """Evaluate once more with tighter accuracy: an end that loose solves only pretend must not
    pass.
    """
    response = state.response
    while response.accuracy.tighten(0.03):
        old = state.point
        new = response.again(old)
        if new.gradient is None:
            return
        state.point = new
        if state.stationarity() > state.tol:
            return
        scale = max([*state.norms, new.size])
        if norm(new.g - old.g) <= 0.5 * state.tol * scale:
            break
    # F is wrong to first order in the lower residual: the y that is returned has almost none left.
    state.point = response.polish(state.point)
    response.accuracy.level = response.accuracy.floor


def _stuck(state: UpperState, partial: Point | None) -> None:
    """No smooth step: solve more accurately, or treat the point as a kink, or admit the end."""
    response = state.response
    if partial is not None and partial.value < state.point.value:
        _accept(state, partial)
    if response.accuracy.tighten():
        new = response.again(state.point)
        if new.gradient is not None:
            state.point = new
        state.forget()
        return
    if state.is_hidden:
        state.more = MORE  # what is left cannot be resolved
        _confirm(state)
        return
    noise = RESOLUTION * max(abs(state.point.value), 1e-300)
    # At a kink the model is so steep across it that it promises nothing along it either.
    smooth = state.stationarity() <= JUMP
    if smooth and 0.0 < state.decrement() <= 1e3 * noise:
        says = wording(response.oracle.F_sign)
        state.finish = Finish(
            Status.STALLED,
            f"no further {says.change} of F can be resolved in double precision",
        )
        return
    leave(state)


def leave(state: UpperState) -> None:
    """Go on beyond a kink, or end at it."""
    response, says = state.response, wording(state.response.oracle.F_sign)
    outcome = leave_kink(response, state.point, list(state.recent), state.extent)
    state.forget()
    if outcome.point is not None:
        _accept(state, outcome.point)
    elif outcome.stationary:
        state.finish = Finish(
            Status.CONVERGED,
            f"stopped at a kink of F(x, y(x)): every direction tried leads {says.uphill} from here",
        )
    else:
        state.finish = Finish(Status.STALLED, f"no direction was found in which F {says.falls}")


def _explodes(state: UpperState, new: Point) -> bool:
    """Whether F and the distance from the start have left every scale of the problem, or the
    distance has and F falls with its logarithm: values that tend to a limit fall less with every
    order of magnitude.
    """
    fallen = state.start.value - new.value
    distance = norm(new.x - state.start.x)
    if state.far is None:
        state.far = (max(norm(state.start.x), first_length(state), 1.0), state.start.value)
    first, then = state.far
    if distance <= math.sqrt(ASTRONOMIC) * first:
        state.far = (first, new.value)
    if new.value < ENDLESS and fallen > EXPLODED * max(abs(state.start.value), 1e-300):
        return True
    return distance > ASTRONOMIC * first and then - new.value > LATELY * fallen > 0.0


def _no_response(response: Response, point: Point, *, rows: bool) -> Finish:
    """Why a start has no response; with ``rows`` below other points may have one."""
    upper, lower = wording(response.oracle.F_sign), wording(response.oracle.f_sign)
    if point.lower.ended == "unbounded" and rows:
        return Finish(
            Status.DIVERGED,
            f"the lower objective {lower.falls} for ever at the start: give the upper variables a "
            "`start` where it has a solution",
        )
    if point.lower.ended == "unbounded":
        return Finish(
            Status.INFEASIBLE, "the lower level is unbounded at the start: no response exists"
        )
    if point.lower.ended == "infeasible":
        return Finish(
            Status.DIVERGED,
            "no lower variables meet the constraints at the start: give the upper ones a `start` "
            "where some do",
        )
    level, value = "lower", lower.sign * point.lower.f
    if math.isfinite(point.lower.f):
        level, value = "upper", upper.sign * point.F
    if math.isfinite(value):
        return Finish(
            Status.DIVERGED,
            "both objectives are finite at the start, but derivatives of the lower one are not: "
            "data or variables are too large there for their squares to be numbers",
        )
    return Finish(
        Status.DIVERGED,
        f"the objectives are not finite at the start: the {level} one is {value}; give the "
        "variables a `start` where it is defined",
    )
