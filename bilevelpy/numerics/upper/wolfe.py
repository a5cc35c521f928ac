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
    return _Search(response, start, d, extent, remember).run()


class _Search:
    """A bracket ``[low, high]`` of step lengths: ``best`` is the point at its lower end, ``above``
    is Phi at its upper end and ``beyond`` the response there.
    """

    __slots__ = (
        "above", "best", "beyond", "d", "domain", "first", "high", "last", "length", "looked",
        "low", "remember", "response", "shortest", "start", "t",
    )  # fmt: skip

    def __init__(
        self,
        response: Response,
        start: Point,
        d: Vec,
        extent: float,
        remember: Callable[[tuple[Vec, Vec]], None],
    ) -> None:
        self.response, self.start, self.d, self.remember = response, start, d, remember
        self.domain = response.oracle.domain_x
        self.t, self.length = 1.0, norm(d)
        self.low, self.high, self.above = 0.0, math.inf, math.inf
        self.best: Point | None = None
        self.beyond: Vec | None = None
        # Step and response of the trial from which the next response is guessed.
        self.last: tuple[float, Vec] | None = None
        # The first bracket that a jump seemed to end, and how much Phi rose in it.
        self.first: tuple[float, float] | None = None
        self.looked = False
        self.shortest = max(SHORTEST * max(extent, self.length), 4e-16 * norm(start.x))

    def run(self) -> Found:
        """Trials until one is good, or the bracket is closed."""
        for count in range(1, TRIALS + 1):
            x = self.domain.project(self.start.x + self.t * self.d)
            move = x - self.start.x
            slope = dot(self.start.g, move)
            if slope >= 0.0 or (self.best is not None and torch.equal(x, self.best.x)):
                if self.best is not None or not bool(move.any()):
                    break
                self.high, self.t = self.t, 0.25 * self.t
                continue
            trial = self.response.evaluate(x, self.start, self._guess(), expected=-slope)
            no_better = count == 1 and not trial.value < self.start.value
            if no_better and _is_vague(self.response, self.start, trial):
                # What the first trial is compared with is the error of a looser solve.
                self.start = _sharper(self.response, self.start)
                slope = dot(self.start.g, move)
                if slope >= 0.0:
                    break
            finite = self.response.finite(trial)
            change = trial.value - self.start.value if finite else math.inf
            found, end_slope = self._narrowed(trial, move, slope, change)
            if found is not None:
                return found
            if (self.high - self.low) * self.length <= self.shortest:
                break
            found = self._jump() if self.response.curved else None
            if found is not None:
                return found
            self.t = _next(self.low, self.high, self.t, slope, end_slope, change)
        stuck = self.best is None or self.high < math.inf
        return Found(self.best, stuck, self.start)

    def _guess(self) -> Vec:
        """The response to begin from: between known points it is almost linear, far beyond them it
        is not.
        """
        if self.last is None:
            return self.start.y
        step, y = self.last
        if not self.response.guesses or self.t > REACH * step:
            return y
        guess = self.start.y + (self.t / step) * (y - self.start.y)
        return self.response.oracle.domain_y.project(guess)

    def _narrowed(
        self, trial: Point, move: Vec, slope: float, change: float
    ) -> tuple[Found | None, float]:
        """Make the trial an end of the bracket, or the end of the search; with the slope there."""
        good, end_slope = change <= ARMIJO * slope, math.nan
        if good or change <= NOISE * abs(self.start.value):
            trial = self.response.differentiate(trial, self.start)
            self.remember((trial.x, trial.g))
            end_slope = dot(trial.g, move)
            steep = end_slope < WOLFE * slope and change <= PROMISE * slope
            if steep:
                # Where bounds hold most of x there is nothing to gain farther on the arc.
                ahead = self.domain.project(self.start.x + 2.0 * self.t * self.d) - trial.x
                steep = dot(trial.g, ahead) < AHEAD * slope
            if not steep and (good or end_slope <= -WOLFE * slope):
                return Found(trial, False, self.start), end_slope
            if steep:
                self.low, self.best = self.t, trial
            else:
                self.high, self.above = self.t, trial.value
        else:
            self.high, self.above = self.t, trial.value
            self.beyond = trial.y if trial.lower.usable and not self.looked else None
            newton = self.response.newton
            if newton is not None and math.isfinite(change):
                newton.collect(partial(self.response.differentiate, trial, self.start))
        # From a response of another valley the next one would be one of that valley, too.
        if math.isfinite(change) and (good or not self.response.curved):
            self.last = (self.t, trial.y)
        return None, end_slope

    def _jump(self) -> Found | None:
        """The end of the search before a jump of the response, in which a valley ends: F falls to
        another one there, which is often lower here, too.
        """
        base = self.start if self.best is None else self.best
        rise, width = self.above - base.value, self.high - self.low
        if not rise > CLIFF * abs(dot(self.start.g, self.d)) * width > 0.0:
            return None
        self.first = self.first or (self.high, rise)
        narrow = self.high <= NARROW * self.first[0] and rise > STAYS * self.first[1]
        if self.beyond is not None and (self.best is not None or narrow):
            better = self.response.better(base, self.beyond)
            self.beyond, self.looked = None, True
            if better is not None:
                return Found(self.best, False, self.start, better)
        return None if self.best is None else Found(self.best, False, self.start)


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
