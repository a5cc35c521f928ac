"""Weak Wolfe line search along a projection arc, in the form that also works at kinks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.lower.response import Point, Response

Vec = torch.Tensor

ARMIJO = 1e-4
WOLFE = 0.9
TRIALS = 40
NOISE = 1e-13
# Brackets shorter than this fraction of the extent of the run end the search: no smooth minimiser
# lies in them.
SHORTEST = 1e-11
# A start whose lower residual is so many times that of a trial is solved again before it is
# believed.
VAGUE = 10.0
# Extrapolation of responses ends at this multiple of the step that is known.
REACH = 1.5
# An expansion must be promised by the decrease so far, this fraction of the linear prediction.
PROMISE = 0.5
# A rise above what is known nearby that so many times the slope does not explain is a jump of the
# response: no shorter bracket holds a minimiser of it.
CLIFF = 30.0
# With no better point yet it is a jump where that holds still in this part of the bracket, with
# this part of the rise.
NARROW, STAYS = 0.3, 0.5
# So must be what twice its length would gain by the slope there: the same on a free line, where it
# is 0.9, and nothing at the corner of a box.
AHEAD = 3e-3


@dataclass(frozen=True, slots=True)
class Found:
    """A point with gradient, or None; ``stuck`` says that the bracket closed without a Wolfe point
    in it. ``start`` is where the search began, perhaps solved anew. ``better`` is a better response
    to x of the point (of the start, if there is none), of which F may be higher.
    """

    point: Point | None
    stuck: bool
    start: Point
    better: Point | None = None


def search(
    response: Response,
    start: Point,
    d: Vec,
    *,
    extent: float,
    remember: Callable[[tuple[Vec, Vec]], None],
) -> Found:
    """Find t with ``Phi(t) <= Phi(0) + 1e-4 slope`` and a slope of at least 0.9 of that at 0.

    Bracketing after Lewis and Overton [Lewis2013]_: the Armijo failure bounds t from above, the
    slope failure from below. On smooth functions the next trial interpolates; on a kink the
    bracket closes on it. Where Phi cannot resolve the decrease any more, slopes decide alone.
    """
    domain = response.oracle.domain_x
    low, high = 0.0, math.inf
    best: Point | None = None
    last: tuple[float, Vec] | None = None
    above = math.inf  # Phi at the upper end of the bracket
    # The response there; the first bracket that a jump seemed to end, and how much Phi rose in it.
    beyond: Vec | None = None
    first: tuple[float, float] | None = None
    looked = False
    t, length = 1.0, norm(d)
    noise = NOISE * abs(start.value)
    shortest = max(SHORTEST * max(extent, length), 4e-16 * norm(start.x))
    for count in range(1, TRIALS + 1):
        x = domain.project(start.x + t * d)
        move = x - start.x
        slope = dot(start.g, move)
        if slope >= 0.0 or (best is not None and torch.equal(x, best.x)):
            if best is not None or not bool(move.any()):
                break
            high, t = t, 0.25 * t
            continue
        guess = start.y if last is None else last[1]
        if response.guesses and last is not None and t <= REACH * last[0]:
            # Between known points the response is almost linear, far beyond them it is not.
            guess = start.y + (t / last[0]) * (last[1] - start.y)
            guess = response.oracle.domain_y.project(guess)
        trial = response.evaluate(x, start, guess, expected=-slope)
        if count == 1 and not trial.value < start.value and _is_vague(response, start, trial):
            # What the first trial is compared with is the error of a looser solve.
            start = _sharper(response, start)
            slope = dot(start.g, move)
            if slope >= 0.0:
                break
        change = trial.value - start.value if response.finite(trial) else math.inf
        good = change <= ARMIJO * slope
        end_slope = math.nan
        if good or change <= noise:
            trial = response.differentiate(trial, start)
            remember((trial.x, trial.g))
            end_slope = dot(trial.g, move)
            steep = end_slope < WOLFE * slope and change <= PROMISE * slope
            if steep:
                # Where bounds hold most of x there is nothing to gain farther on the arc.
                ahead = domain.project(start.x + 2.0 * t * d) - trial.x
                steep = dot(trial.g, ahead) < AHEAD * slope
            if not steep and (good or end_slope <= -WOLFE * slope):
                return Found(trial, False, start)
            if steep:
                low, best = t, trial
            else:
                high, above = t, trial.value
        else:
            high, above = t, trial.value
            beyond = trial.y if trial.lower.usable and not looked else None
            if response.newton is not None and math.isfinite(change):
                response.newton.collect(partial(response.differentiate, trial, start))
        # From a response of another valley the next one would be one of that valley, too.
        if math.isfinite(change) and (good or not response.curved):
            last = (t, trial.y)
        if (high - low) * length <= shortest:
            break
        base = start if best is None else best
        rise = above - base.value
        if response.curved and rise > CLIFF * abs(dot(start.g, d)) * (high - low) > 0.0:
            first = first or (high, rise)
            narrow = high <= NARROW * first[0] and rise > STAYS * first[1]
            if beyond is not None and (best is not None or narrow):
                # Where a valley ends f falls to another one, which is often lower here, too.
                better, beyond, looked = response.better(base, beyond), None, True
                if better is not None:
                    return Found(best, False, start, better)
            if best is not None:
                return Found(best, False, start)
        t = _next(low, high, t, slope, end_slope, change)
    stuck = best is None or high < math.inf
    return Found(best, stuck, start)


def _is_vague(response: Response, start: Point, trial: Point) -> bool:
    """Whether the start, or its gradient, was solved much more loosely than a trial beside it, or
    the slope is within the error of its solves: all are to be tighter then.
    """
    accuracy, move = response.accuracy, trial.x - start.x
    within = -dot(start.g, move) <= VAGUE * start.level * start.size * norm(move)
    if within and accuracy.tighten():
        return True
    if start.level > VAGUE * accuracy.level:
        return True
    return start.lower.residual > VAGUE * trial.lower.residual and trial.lower.ended == "reached"


def _sharper(response: Response, start: Point) -> Point:
    """The start at the present accuracy, where that succeeds."""
    new = response.again(start)
    return start if new.gradient is None else new


def _next(
    low: float, high: float, t: float, slope: float, end_slope: float, change: float
) -> float:
    """The next trial: secant of the slopes when expanding, a parabola or the middle when
    shrinking.
    """
    if high == math.inf:
        rise = end_slope - slope
        guess = t * -slope / rise if rise > 0 else math.inf
        return min(10.0 * t, max(2.0 * t, guess))
    if low > 0.0:
        return 0.5 * (low + high)
    if not math.isfinite(change):
        return 0.1 * high
    if t != high:
        return 0.5 * high
    bend = 2.0 * (change - slope)
    return t * min(0.5, max(0.1, -slope / bend)) if bend > 0 else 0.5 * t
