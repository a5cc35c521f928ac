"""Responses of lower levels with rows, and their derivatives: Newton's method on the KKT system.

With rows ``c(x, y)`` that are affine in y, equations or ``<= 0``, every Newton step is a quadratic
program at the present Hessian (sequential quadratic programming; J. Nocedal and S. Wright,
Numerical Optimization, 2006, chapter 18); where f is quadratic in y one program is the answer.
With the rows A that push, on the variables that no bound holds, and ``L = f + l'c``::

    [ f_yy  A' ] [u]   [ dF/dy ]
    [ A     0  ] [r] = [   0   ]      dPhi/dx = dF/dx - L_xy u - A_x' r

(S. Gould et al., "On differentiating parameterized argmin and argmax problems", 2016; B. Amos and
J. Z. Kolter, "OptNet", ICML 2017).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from bilevelpy.lowering.domains.product import Face, ProductSet
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.hypergradient import Adjoint
from bilevelpy.numerics.lower.response import Accuracy, Point, Response
from bilevelpy.numerics.lower.solve import LowerSolution
from bilevelpy.numerics.qp.rows import Held, Nothing, Rows, Sides, Tally, solve
from bilevelpy.numerics.qp.saddle import saddle

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

# Newton steps, halvings of one, and the part of the predicted fall that it has to reach.
STEPS, HALVINGS, ARMIJO = 100, 40, 1e-4
# Newton steps below this fraction of y are rounding.
FINEST = 1e-12
# Curvature in every direction, relative to the largest, of a model that would have none.
SHIFT = 1e-4
# Changes of f below this fraction of it are rounding.
NOISE = 1e-13


@dataclass
class ConstrainedLower:
    """Lower and adjoint solver in one, with what holds the last response.

    ``constant``: f_yy depends on neither level; ``quadratic``: not on y. ``tol`` is the Newton
    step, relative to y, at which the level counts as solved.
    """

    oracle: Any
    tol: float
    constant: bool
    quadratic: bool
    sides: Sides | None = None
    size: float = 0.0
    # What programs have taken so far.
    tally: Tally = field(default_factory=Tally)
    _A: Array | None = None
    _H: Array | None = None
    _sums: Array = field(init=False)
    _bounds: tuple[Array, Array] = field(init=False)
    # x and y of the last response, with its multipliers and Hessian.
    _last: tuple[Vec, Held, Array] | None = None
    # The latest x whose rows could not be met.
    unmet: Vec | None = None
    _rows: tuple[Vec, Rows] | None = None

    def __post_init__(self) -> None:
        domain: ProductSet = self.oracle.domain_y
        low, high = domain.lower.numpy().copy(), domain.upper.numpy().copy()
        for b in domain.simplices:
            high[b.start : b.stop] = np.inf  # the sum bounds them
        self._sums = domain.sums()
        self._bounds = low, high

    def rows(self, x: Vec) -> Rows:
        """The rows at x: ``c(x, 0) + A y``, and the sums of simplices."""
        if self._rows is not None and torch.equal(self._rows[0], x):
            return self._rows[1]
        g, still = self.oracle.g, torch.zeros_like(self.oracle.y0)
        A = self._A
        if A is None and not g.size:
            A = self._A = np.zeros((0, len(still)))
        if A is None:
            matrix, moves = g.jacobian_y(x, still)
            A = matrix.numpy()
            if not moves:
                self._A = A
        high = -g.values(x, still).numpy() if g.size else np.zeros(0)
        low = np.where(g.equality.numpy(), high, -np.inf)
        if len(self._sums):
            ones = np.ones(len(self._sums))
            A = np.concatenate([A, self._sums])
            low, high = np.concatenate([low, ones]), np.concatenate([high, ones])
        made = Rows(A, low, high, *self._bounds, self.tally)
        self._rows = (x, made)
        return made

    @cached_property
    def is_affine(self) -> bool:
        """Whether the rows are affine in both levels together."""
        return bool(self.oracle.g.affine.all())

    @cached_property
    def straight(self) -> Mask:
        """Which rows of the upper level are."""
        found: Mask = self.oracle.G.affine
        return found

    @property
    def rows_move(self) -> bool:
        """Whether the coefficients of rows depend on x (known once rows were made)."""
        return self._A is None

    def hessian(self, x: Vec, y: Vec) -> Array:
        """f_yy."""
        if self._H is not None:
            return self._H
        H: Array = self.oracle.hessian(x, y).numpy()
        if self.constant:
            self._H = H
        return H

    def respond(self, x: Vec, y: Vec, accuracy: Accuracy) -> LowerSolution:
        """The response at x, from y."""
        o = self.oracle
        o.counts.lower_solves += 1
        check = getattr(o, "check_deadline", None)
        if check is not None:
            check()
        rows = self.rows(x)
        floor, roof = self._bounds
        now = np.clip(y.numpy(), floor, roof)
        f, g = o.value_grad_f(x, torch.from_numpy(now))
        feasible, first, count = False, 0.0, 0
        if not math.isfinite(f) or not np.isfinite(rows.A).all():
            return self._ended(x, now, f, g, 0, "nonfinite")
        while True:
            H = self.hessian(x, torch.from_numpy(now))
            if not np.isfinite(H).all():
                return self._ended(x, now, f, g, count, "nonfinite")
            left = getattr(o, "deadline", math.inf) - time.perf_counter()
            found = solve(H, g.numpy() - H @ now, rows, self.sides, left)
            if found is Nothing.UNBOUNDED and not self.quadratic:
                # It is the model that falls for ever, where f has little curvature.
                near = H + SHIFT * float(np.abs(H).max(initial=1e-12)) * np.eye(len(now))
                found = solve(near, g.numpy() - near @ now, rows, self.sides, left)
            if check is not None:
                check()  # it may be the time that has ended it
            if isinstance(found, Nothing):
                return self._ended(x, now, f, g, count, _end(found, feasible))
            self.sides = found.sides
            p = found.y - now
            step = float(np.sqrt(p.dot(p)))
            self.size = max(self.size, float(np.sqrt(found.y.dot(found.y))))
            first = first or step
            goal = max(min(self.tol * self.size, accuracy.change * first), FINEST * self.size)
            settled = feasible and step <= goal
            if settled or count >= STEPS:
                ended = "reached" if settled else "limit"
                return self._packed(x, now, f, g, found, H, count, ended)
            moved = self._moved(x, now, f, g, p, feasible)
            if moved is None:
                ended = "rounding" if feasible else "nonfinite"
                return self._packed(x, now, f, g, found, H, count, ended)
            now, f, g, length = moved
            feasible = feasible or length == 1.0
            count += 1
            if self.quadratic and feasible:
                return self._packed(x, now, f, g, found, H, count, "reached")
            if f < -1e300 or not np.isfinite(now).all():
                return self._ended(x, now, f, g, count, "unbounded")

    def _moved(
        self, x: Vec, now: Array, f: float, g: Vec, p: Array, feasible: bool
    ) -> tuple[Array, float, Vec, float] | None:
        """The point after a step with its value, gradient and length: as far as f falls, or, where
        the rows are not met yet, as far as f has a slope.
        """
        slope, t = float(g.numpy().dot(p)), 1.0
        for _ in range(HALVINGS):
            at = np.clip(now + t * p, *self._bounds)
            value, gradient = self.oracle.value_grad_f(x, torch.from_numpy(at))
            if math.isfinite(value) and bool(torch.isfinite(gradient).all()):
                rise, steep = value - f, abs(float(gradient.numpy().dot(p)))
                flat = rise <= NOISE * abs(f) and steep <= abs(slope)
                if not feasible or flat or rise <= ARMIJO * t * slope:
                    return at, value, gradient, t
            t *= 0.5
        return None

    def _packed(
        self, x: Vec, y: Array, f: float, g: Vec, found: Held, H: Array, count: int, ended: str
    ) -> LowerSolution:
        """A response, with the rest of its stationarity."""
        rows = self.rows(x)
        rest = g.numpy() + rows.A.T @ found.rows + found.bounds
        held = Held(y, found.rows, found.bounds, found.sides)
        self._last = (x, held, H)
        face = Face(len(y), None, weak=held.weak)
        gradient = torch.from_numpy(rest)
        return LowerSolution(
            torch.from_numpy(y), f, gradient, norm(gradient), face, count, ended, started=norm(g)
        )

    def _ended(self, x: Vec, y: Array, f: float, g: Vec, count: int, ended: str) -> LowerSolution:
        self.sides = None
        if ended == "infeasible":
            self.unmet = x
        return LowerSolution(
            torch.from_numpy(y), f if ended in ("limit", "unbounded") else math.nan, g, norm(g),
            Face(len(y), None), count, ended,
        )  # fmt: skip

    def solve_lower(
        self, oracle: Oracle, x: Vec, y: Vec, accuracy: Accuracy, scale: float
    ) -> tuple[LowerSolution, float]:
        """The response, and the size of the gradient that multipliers cancel."""
        found = self.respond(x, y, accuracy)
        return found, found.started

    def solve_adjoint(
        self, oracle: Oracle, point: Point, u0: Vec | None, accuracy: Accuracy
    ) -> Adjoint:
        """The KKT adjoint at a response."""
        found, cross = self.along(point.x, point.y, point.gF_y.numpy()[None])
        return Adjoint(torch.from_numpy(found[0].copy()), cross[0], 0.0, 1)

    def along(self, x: Vec, y: Vec, slopes: Array) -> tuple[Array, list[Vec]]:
        """``u`` and ``L_xy u + A_x' r`` at a response, for every row of ``slopes`` (k, m) in the
        place of dF/dy: what such a function changes by as y follows x is minus the latter.
        """
        o = self.oracle
        held, H = self.held_at(x, y)
        rows = self.rows(x)
        # What holds without pushing has a kink, and this is one side of it.
        free = np.flatnonzero(held.sides.bounds == 0)
        active = np.flatnonzero((held.sides.rows != 0) | rows.equal)
        still = np.zeros((active.size, len(slopes)))
        solved = saddle(H, rows.A, free, active, slopes[:, free].T, still, nearest=True)
        assert solved is not None
        u = np.zeros_like(slopes)
        u[:, free] = solved[0].T
        size = o.g.size  # sums of simplices do not depend on x
        weights = np.zeros((len(slopes), len(rows.low)))
        weights[:, active] = solved[1].T
        cross, parts = o.cross(x, y), []
        prices = torch.from_numpy(held.rows[:size].copy())
        twice = o.g.twice(x, y, prices) if size and self.rows_move else None
        back = o.g.vjp(x, y) if size else None
        for one, weight in zip(u, weights, strict=True):
            v = torch.from_numpy(one)
            part = cross(v)
            if twice is not None:
                part = part + twice(v)
            if back is not None:
                part = part + back(torch.from_numpy(weight[:size].copy()))[0]
            parts.append(part)
        return u, parts

    def held_at(self, x: Vec, y: Vec) -> tuple[Held, Array]:
        """What holds a response, and f_yy there."""
        last = self._last
        if last is None or not torch.equal(last[0], x) or not np.array_equal(last[1].y, y.numpy()):
            self.respond(x, y, Accuracy(change=1.0))
        assert self._last is not None
        return self._last[1], self._last[2]

    def carried(self) -> dict[str, Any]:
        """What held the last response, and the work so far; matrices are computed again."""
        sides = self.sides
        return {
            "rows": None if sides is None else sides.rows,
            "bounds": None if sides is None else sides.bounds,
            "size": self.size,
            "systems": self.tally.systems,
        }

    def restore(self, known: Mapping[str, Any], oracle: Any) -> None:
        """The same."""
        rows, bounds = known["rows"], known["bounds"]
        self.size = float(known["size"])
        self.tally.systems = int(known["systems"])
        if rows is not None:
            if bounds.shape != (oracle.m,) or rows.shape != (oracle.g.size + len(self._sums),):
                raise ValueError("what holds the response has another size")
            self.sides = Sides(rows, bounds)


def _end(found: Nothing, feasible: bool) -> str:
    """How a solve ends at a model without a solution; one that has met the rows has not lost
    them.
    """
    if found is Nothing.UNBOUNDED:
        return "unbounded"
    if feasible:
        return "limit"
    return "infeasible" if found is Nothing.INFEASIBLE else "nonfinite"


# The finest accuracies that solves are asked for.
FLOOR = Accuracy(level=1e-10, change=1e-4, floor=1e-10)


def constrained_lower(oracle: Oracle, tol: float) -> ConstrainedLower:
    """The solver of a problem with rows below; ``tol`` as in :class:`ConstrainedLower`."""
    constant = bool(getattr(oracle, "hessian_is_constant", False))
    form = getattr(oracle, "quadratic", None)
    quadratic = constant or (form is not None and not form.reads_y)
    return ConstrainedLower(oracle, tol, constant, quadratic)


def rows_response(oracle: Oracle, tol: float) -> Response:
    """Phi of a problem with rows below, by one solver for responses and adjoints."""
    return Response(oracle, constrained_lower(oracle, tol), replace(FLOOR), correct=False)
