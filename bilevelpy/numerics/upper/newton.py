"""Newton's steps on the upper level, by the second derivative of the reduced objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg.lapack import dpotrf

from bilevelpy.numerics.qp.working_set import Program, Solution, WorkingSet
from bilevelpy.numerics.quasi_newton import CURVATURE, updated
from bilevelpy.numerics.upper.shrinkage import Shrinkage

if TYPE_CHECKING:
    from bilevelpy.numerics.lower.response import Point

Array = np.ndarray[Any, np.dtype[np.float64]]
# ``(point, f_yx) -> R = -f_yy^-1 f_yx``; None where f_yy has no inverse.
Columns = Callable[["Point", Array], Array | None]

# Upper variables up to which a column of dy/dx for each is kept: where f_yy moves with y, passes
# over few data are soon less work than the eigenvalues; twice as many where f is a quadratic in as
# many lower variables. Entries of these columns.
LARGEST, LARGEST_KEPT, ENTRIES = 600, 1200, 2_000_000
# Passes over the data that one column is worth, ``f_yx s`` and ``L''(s, t)``, where f_yy moves.
COLUMN = 2.0
# The matrix must promise to save so many times its price, at the pace of so many latest steps.
WORTH, PACE = 2.0, 5
# Entries of dy/dx up to which it is cheap beside a step where f_yy is kept.
EVERY = 2_500
# Curvatures below this fraction of the largest one are taken for it.
FLAT = 1e-10
# The same in units of the diagonal, where a step in the box is not to be found with these.
STEEPER = 1e-6


def reduced_newton(
    oracle: Any, columns: Columns, tol: float, *, kept: bool = False
) -> ReducedNewton | None:
    """None where the lower level has bounds (Phi has kinks, whose curvature is no local matter),
    where there are too many variables, or where the oracle knows no second derivatives.
    """
    n, m = oracle.n, oracle.m
    if n > (LARGEST_KEPT if kept and m >= LARGEST else LARGEST) or n * m > ENTRIES:
        return None
    if not (oracle.domain_y.is_free and oracle.domain_x.is_box):
        return None
    known = getattr(oracle, "second_order", None)
    return None if known is None else ReducedNewton(oracle, columns, tol, kept)


class ReducedNewton:
    """Steps to the minimiser of ``g'd + d'Bd/2`` in the box. B is the second derivative of Phi at
    the latest point where it was computed, with the moduli of its eigenvalues in place of negative
    ones (Y. Dauphin et al., NeurIPS 2014), updated since by BFGS. Where x are the strengths of
    penalties it is that in the coordinates of :mod:`bilevelpy.numerics.upper.shrinkage`.

    It is computed where the run has taken as many passes over the data since the last time as it
    costs, 2 n, so that it is at most half of all work, or the few that the zeros of its parts leave
    where f is a quadratic in y whose matrix is ``kept``; and where at the pace of the latest five
    steps the gradient would take twice as many to fall by ``tol``, so that runs which end soon
    without it do. At every step where dy/dx is small, f_yy kept and x are penalties.
    """

    def __init__(self, oracle: Any, columns: Columns, tol: float, kept: bool) -> None:
        self.oracle, self.columns, self.tol, self.kept = oracle, columns, tol, kept
        domain = oracle.domain_x
        self._box = np.stack([domain.lower.numpy(), domain.upper.numpy()])
        self.working = WorkingSet(self._box[0], self._box[1], np.empty((0, 0)))
        self.matrix: Array | None = None
        # The coordinates of the matrix, where they are not x.
        self.shrinkage: Shrinkage | None = None
        self._is_cheap = kept and oracle.n * oracle.m <= EVERY
        self._last: Point | None = None
        self._spent = self._passes()
        self._course: list[tuple[int, float]] = []

    def step(
        self, point: Point, g: Array, free: np.ndarray[Any, np.dtype[np.bool_]] | None
    ) -> Array | None:
        """x less the minimiser of the quadratic model in the box; None before the matrix is worth
        its price.
        """
        self._course.append((self._passes(), float(np.sqrt(g.dot(g)))))
        fresh = self._is_due()
        if fresh:
            self.matrix = self._second(point)
            self._spent = self._passes()
        elif self.matrix is not None and self._last is not None:
            self._learn(self._last, point)
        self._last = point
        B = self.matrix
        if B is None:
            return None
        x, slope, working, known = point.x.numpy(), point.g.numpy(), self.working, self.shrinkage
        at = x
        if known is not None:
            at = np.zeros(len(x)) if fresh else known.coordinates(x)
            working.low, working.high = known.ends(at, self._box)
            slope = slope if fresh else slope * known.slope(x)
        found = self._minimiser(B, at, slope)
        if found is None:
            # Curvatures far apart: the flattest are rounding, with which no set of bounds agrees.
            self.matrix = steeper(B, STEEPER)
            found = None if self.matrix is None else self._minimiser(self.matrix, at, slope)
        if found is None:
            self.reset()
            return None
        end: Array = np.minimum(np.maximum(found.y, working.low), working.high)
        # By differences: coordinates end before x that are far out, which stay where they are.
        return x - end if known is None else known.point(at) - known.point(end)

    def _minimiser(self, B: Array, at: Array, slope: Array) -> Solution | None:
        """That of the model in the box."""
        self.working.start(at)
        return self.working.solve(Program(B, None, slope - B.dot(at)))

    def reset(self) -> None:
        """Forget the matrix: its step led nowhere."""
        self.matrix = None

    def collect(self, trial: Callable[[], Point]) -> None:
        """Curvature is learned from accepted steps alone."""

    def carried(self) -> dict[str, Any]:
        """The matrix and the course of the run, by which the next one is due."""
        known = self.shrinkage
        return {
            "matrix": self.matrix,
            "last": self._last,
            "spent": self._spent,
            "course": [list(pair) for pair in self._course],
            "shrinkage": None if known is None else (known.at, known.q, known.rate),
        }

    def restore(self, known: Mapping[str, Any], oracle: Any) -> None:
        """As they were."""
        self.matrix, self._last = known["matrix"], known["last"]
        if self.matrix is not None and self.matrix.shape != (self.oracle.n, self.oracle.n):
            raise ValueError("the matrix is of another size")
        self._spent = int(known["spent"])
        self._course = [(int(passes), float(size)) for passes, size in known["course"]]
        self.shrinkage = None
        if known["shrinkage"] is not None:
            at, q, rate = known["shrinkage"]
            if not at.shape == q.shape == rate.shape == (self.oracle.n,):
                raise ValueError("the coordinates of the matrix are of another size")
            self.shrinkage = Shrinkage(at, q, rate)

    def _is_due(self) -> bool:
        now, norm = self._course[-1]
        if self._is_cheap and self._rates is not None:
            return True
        if len(self._course) <= PACE or not 0.0 < norm < math.inf:
            return False
        o = self.oracle
        price = o.second_order.passes if self.kept else COLUMN * o.n
        if now - self._spent < price:
            return False
        before, larger = self._course[-1 - PACE]
        fall = math.log(max(larger, 1e-300) / norm)
        left = math.log(norm / (self.tol * max(v for _, v in self._course)))
        return bool(left * (now - before) > WORTH * price * fall)

    @cached_property
    def _rates(self) -> Array | None:
        """Those of penalties whose shrinkage is followed: minima far out, where nothing is left of
        it, are no matter for its coordinates.
        """
        rates: Array | None = self.oracle.second_order.penalty_rates
        if rates is None:
            return None
        low, high = self._box
        ends = np.isfinite(low) & (np.isfinite(high) | (rates == 0.0))
        return rates if (ends | np.isnan(rates)).all() else None

    def _passes(self) -> int:
        counts = self.oracle.counts
        return int(counts.grad_F + counts.grad_f + counts.hvp)

    def _learn(self, old: Point, new: Point) -> None:
        """The BFGS update of B by the move between two points."""
        s, d = (new.x - old.x).numpy(), (new.g - old.g).numpy()
        known = self.shrinkage
        if known is not None:
            before, after = old.x.numpy(), new.x.numpy()
            s = known.coordinates(after) - known.coordinates(before)
            d = new.g.numpy() * known.slope(after) - old.g.numpy() * known.slope(before)
        B = self.matrix
        assert B is not None
        curved = s.dot(d) > CURVATURE * math.sqrt(s.dot(s) * d.dot(d))
        if curved and s.dot(B.dot(s)) > 0.0:
            self.matrix = updated(B, s, d)

    def _second(self, point: Point) -> Array | None:
        """Phi'' at a point, made positive definite."""
        o, adjoint = self.oracle, point.adjoint
        if adjoint is None or not point.lower.face.is_whole:
            return None
        check = getattr(o, "check_deadline", lambda: None)
        found = o.second_order.at(point.x, point.y, adjoint.u, check)
        mixed = None if found is None else found.f_yx()
        R = None if mixed is None else self.columns(point, mixed)
        if found is None or R is None:
            return None
        H = found.reduced(R)
        self.shrinkage, rates = None, self._rates
        if rates is not None and mixed is not None:
            x, y, low = point.x.numpy(), point.y.numpy(), self._box[0]
            self.shrinkage = Shrinkage.of(x, y, mixed, R, rates, low)
            H.reshape(-1)[:: o.n + 1] += point.g.numpy() * self.shrinkage.bend
        return definite(0.5 * (H + H.T), FLAT)


def steeper(B: Array, flat: float) -> Array | None:
    """A positive definite matrix in the units of its diagonal: eigenvalues of ``D^-1/2 B D^-1/2``
    below the fraction ``flat`` of the largest are taken for it.
    """
    scale = np.sqrt(B.diagonal())
    if not scale.min(initial=np.inf) > 0.0:
        return None
    found = definite(B / scale / scale[:, None], flat)
    return None if found is None else found * scale * scale[:, None]


def definite(H: Array, flat: float) -> Array | None:
    """A symmetric matrix with the moduli of its eigenvalues, of which those below the fraction
    ``flat`` of the largest are taken for it; None where it is 0 or not finite.
    """
    if not np.isfinite(H).all():
        return None
    # The trace is not below the largest eigenvalue where none is negative.
    least = H.copy()
    least.reshape(-1)[:: len(H) + 1] -= flat * float(H.trace())
    if len(H) and not dpotrf(least, lower=1, clean=0, overwrite_a=1)[1]:
        return H
    values, vectors = np.linalg.eigh(H)
    sizes = np.abs(values)
    top = float(sizes.max(initial=0.0))
    if top == 0.0:
        return None
    if values[0] >= flat * top:
        return H
    found: Array = (vectors * np.maximum(sizes, flat * top)) @ vectors.T
    return found
