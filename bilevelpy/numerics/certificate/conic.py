"""A local certificate where semidefinite lower variables stand beside rows.

The lower level is solved again by Clarabel alone, without the steps on the face that the backend
takes; F is compared with that at the response found from scratch, and along feasible directions
with responses of their own, against which the hypergradient is held as a difference, too.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.numerics.certificate.case import tolerance
from bilevelpy.numerics.certificate.upper_rows import RowsCheck
from bilevelpy.numerics.cones.nearest_feasible import derivatives
from bilevelpy.numerics.cones.newton import response_pair
from bilevelpy.numerics.cones.response import conic_adjoint, solve_conic
from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.upper.kink import shortest_in_hull
from bilevelpy.numerics.wording import wording
from bilevelpy.options import SolveOptions
from bilevelpy.result import Certificate

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.lowering.oracle import TorchOracle

Vec = torch.Tensor

# Radius of probes, and what rows and objectives may be off by, relative to their terms.
PROBE = 1e-3
FEASIBLE, LOWER_GAP = 1e-7, 1e-6
# Distance at which derivatives belong to a kink at x, how many are taken, and the part of the
# longest that a combination of them may leave.
BESIDE, MOST, STATIONARY = 1e-6, 30, 1e-2
# Mismatch of a difference and the hypergradient that is no rounding; F is known to this fraction.
MISMATCH, NOISE = 1e-2, 1e-9


def applies(oracle: TorchOracle) -> bool:
    """Whether a model has semidefinite matrices beside rows: what :class:`ConicCheck` is for."""
    matrices = oracle.domain_y.matrices or oracle.domain_x.matrices
    return bool(matrices and (oracle.g.size or oracle.G.size))


class ConicCheck:
    """One certification of (x, y); probes begin only within ``seconds``."""

    def __init__(
        self,
        oracle: TorchOracle,
        x: Vec,
        y: Vec,
        structure: Structure | None,
        options: SolveOptions,
        rng: torch.Generator,
        seconds: float,
    ) -> None:
        self.until = time.perf_counter() + seconds
        self.oracle: Any = oracle
        self.x, self.y, self.rng = x, y, rng
        self.tol = tolerance(options)
        self.convex = structure is not None and structure.is_known_convex
        self.extent = max(norm(x - oracle.x0), 0.1 * norm(x)) or 1.0
        self.failures: list[str] = []
        self.notes: list[str] = []
        self.details: dict[str, Any] = {}

    def run(self) -> tuple[Certificate, Vec | None]:
        """All checks; a lower point where all that is wrong is that a probe found one."""
        o, x, y = self.oracle, self.x, self.y
        outside_x, outside_y = o.domain_x.violation(x), o.domain_y.violation(y)
        size = max(norm(y), 1e-3)
        broken = float(o.g.violation(x, y).max()) if o.g.size else 0.0
        if outside_x > FEASIBLE * max(norm(x), 1e-3):
            self.failures.append(f"upper variables leave their domain by {outside_x:.1e}")
        if max(outside_y, broken) > FEASIBLE * size:
            self.failures.append(
                f"lower rows or domains are violated by {max(outside_y, broken):.1e}"
            )
        if o.G.size:
            outside_x = max(outside_x, self._upper_rows())
        gap, relative = self._gap()
        h, pg, place = math.nan, math.nan, None
        if o.G.size:
            return self._along_rows(gap, relative, (outside_x, max(outside_y, broken)))
        answer = None if self.failures else self._answer(x)
        if answer is None and not self.failures:
            self.failures.append("the lower level could not be solved again at the returned x")
        mismatch: float | None = None
        if answer is not None:
            F, gradient, parts, weak = answer
            self._same(F)
            pg = norm(o.domain_x.projected_gradient(x, gradient))
            h = pg / parts if parts > 0 else 0.0
            self.details["hypergradient_relative"] = h
            if h > self.tol and not weak:
                weak = self._is_kink(gradient)
            if h > self.tol and not weak:
                self.failures.append(f"the hypergradient is {pg:.2e}, {h:.0e} of its parts")
            before = len(self.failures)
            mismatch, place = self._look(F, gradient, parts, weak)
            place = place if before == 0 and len(self.failures) == 1 else None
        return self._found(gap, relative, outside_x, max(outside_y, broken), pg, mismatch), place

    def _found(
        self,
        gap: float,
        relative: float,
        outside_x: float,
        outside_y: float,
        slope: float,
        mismatch: float | None,
    ) -> Certificate:
        """Everything that was found."""
        reasons = self.failures or [
            "the lower level, solved again by a conic solver, and first-order conditions of the "
            "upper level hold",
            *self.notes,
        ]
        if not self.failures and not self.convex:
            reasons.append("the lower level is not known to be convex: other responses may be")
        kind = "none" if self.failures else "local"
        return Certificate(
            kind, gap, relative, math.nan, outside_y, outside_x, slope, mismatch, tuple(reasons),
            self.details,
        )  # fmt: skip

    def _upper_rows(self) -> float:
        """The largest violation of an upper row, told where it is more than rounding."""
        o = self.oracle
        off = o.G.violation(self.x, self.y)
        _, C_x, C_y = derivatives(o.G, self.x, self.y)
        size = norm(self.x) * torch.linalg.vector_norm(C_x, dim=1)
        size = size + norm(self.y) * torch.linalg.vector_norm(C_y, dim=1)
        for part in o.G.rows:
            own = slice(part.start, part.stop)
            if bool((off[own] > FEASIBLE * size[own].clamp(min=1e-3)).any()):
                worst = float(off[own].max())
                self.failures.append(
                    f"upper constraint `{part.constraint.name}` is violated by {worst:.1e}"
                )
        return float(off.max())

    def _along_rows(
        self, gap: float, relative: float, outside: tuple[float, float]
    ) -> tuple[Certificate, Vec | None]:
        """Optimality within upper rows, by :class:`RowsCheck`."""
        o, check = self.oracle, None
        if not self.failures:
            check = RowsCheck.at(o, self.x, self.y, self.rng)
            if check is None:
                self.failures.append("the lower level could not be solved again at the returned x")
        if check is None:
            return self._found(gap, relative, *outside, math.nan, None), None
        self._same(check.here.F)
        before = len(self.failures)
        check.run(self.tol, self.until)
        self.failures += check.failures
        self.notes += check.notes
        self.details.update(check.details)
        place = check.place if before == 0 and len(self.failures) == 1 else None
        slope = check.stationarity * check.units.parts
        return self._found(gap, relative, *outside, slope, check.mismatch), place

    def _gap(self) -> tuple[float, float]:
        """How far f still falls by the conic solver, absolute and relative to its terms."""
        o = self.oracle
        again = response_pair(o, self.x, None) or response_pair(o, self.x, self.y)
        if again is None:
            self.failures.append("a conic solver finds no solution of the lower level at this x")
            return math.nan, math.nan
        f, g = o.value_grad_f(self.x, self.y)
        scale = max(abs(f), norm(g) * norm(self.y), 1e-12)
        gap = max(f - o.f(self.x, again.y), 0.0)
        if gap > LOWER_GAP * scale:
            self.failures.append(
                f"the lower objective still {wording(o.f_sign).falls} by {gap:.2e} when the lower "
                "level is re-solved"
            )
        return gap, gap / scale

    def _same(self, F: float) -> None:
        here = self.oracle.F(self.x, self.y)
        sign = self.oracle.F_sign
        self.details["F_at_resolved"] = sign * F
        if abs(here - F) > self.tol * max(abs(F), abs(here), 1e-6):
            self.failures.append(
                f"F changes from {sign * here:.6g} to {sign * F:.6g} when the lower level is "
                "re-solved"
            )

    def _answer(self, x: Vec) -> tuple[float, Vec, float, bool] | None:
        """F, its derivative, the size of the parts of that, and whether there is a kink."""
        o = self.oracle
        found = solve_conic(o, x, self.y)
        if found is None or not found.lower.usable:
            return None
        F, F_x, F_y = o.value_grad_F(x, found.lower.y)
        adjoint = conic_adjoint(o, x, found, F_y)
        prices = found.multipliers[found.active & ~o.g.equality] if o.g.size else found.multipliers
        top = max(float(found.multipliers.abs().max()) if found.multipliers.numel() else 0.0, 1e-12)
        weak = found.lower.face.weak > 0 or bool((prices <= 1e-6 * top).any())
        return F, F_x - adjoint.cross, norm(F_x) + norm(adjoint.cross), weak

    def _bends(self, ends: list[Vec], values: list[float], parts: float) -> bool:
        """Whether the mean of the derivatives at two points fits the difference between them: the
        response has a kink between.
        """
        answers = [self._answer(x) for x in ends]
        move = ends[1] - ends[0]
        mean = sum((0.5 * a[1] for a in answers if a is not None), torch.zeros_like(move))
        error = abs(values[1] - values[0] - dot(mean, move))
        return None not in answers and error <= MISMATCH * parts * norm(move)

    def _is_kink(self, gradient: Vec) -> bool:
        """Whether 0 lies (almost) in the hull of derivatives just beyond x: runs end beside kinks,
        at a distance that the response does not show.
        """
        o, x = self.oracle, self.x
        face = o.domain_x.face(x, gradient)
        rows = [face.project(gradient)]
        for _ in range(min(2 * o.n, MOST) + 2):
            h = shortest_in_hull(torch.stack(rows))
            if norm(h) <= STATIONARY * max(norm(g) for g in rows):
                return True
            beyond = self._answer(o.domain_x.project(x - BESIDE * self.extent * h / norm(h)))
            if beyond is None or time.perf_counter() > self.until:
                return False
            rows.append(face.project(beyond[1]))
        return False

    def _value(self, x: Vec) -> float | None:
        found = solve_conic(self.oracle, x, self.y)
        return None if found is None else float(self.oracle.F(x, found.lower.y))

    def _look(
        self, F: float, gradient: Vec, parts: float, weak: bool
    ) -> tuple[float | None, Vec | None]:
        """Points beside x: descent, and the difference along the first direction."""
        o, worst, place, mismatch = self.oracle, 0.0, None, None
        directions = [torch.randn(o.n, generator=self.rng, dtype=torch.float64) for _ in range(3)]
        directions.append(o.domain_x.projected_gradient(self.x, gradient))
        tried = 0
        for d in directions:
            if norm(d) == 0.0:
                continue
            values, ends = [], []
            for sign in (-1.0, 1.0):
                if time.perf_counter() > self.until:
                    break
                x = o.domain_x.project(self.x + sign * PROBE * self.extent * d / norm(d))
                value = self._value(x) if norm(x - self.x) > 0 else None
                if value is None:
                    continue
                tried += 1
                values.append(value)
                ends.append(x)
                fall = F - value
                room = 2 * self.tol * parts * norm(x - self.x) + NOISE * max(abs(F), 1e-300)
                if fall > room and fall > worst:
                    worst, place = fall, x
            if len(values) == 2 and mismatch is None and not weak:
                move = ends[1] - ends[0]
                expected = dot(gradient, move)
                error = max(abs(values[1] - values[0] - expected) - NOISE * abs(F), 0.0)
                mismatch = error / max(parts * norm(move), 1e-300)
                if mismatch > MISMATCH and self._bends(ends, values, parts):
                    weak, mismatch = True, None
        self.details["probed"], self.details["probe_decrease"] = tried, worst
        says = wording(o.F_sign)
        if not tried and o.n:
            self.failures.append("no point could be compared beside x: optimality is not shown")
        if place is not None:
            self.failures.append(
                f"not locally optimal: F(x, y(x)) {says.falls} by {worst:.2e} at a distance of "
                f"{norm(place - self.x):.1e} from x"
            )
        elif mismatch is not None and mismatch > MISMATCH:
            self.failures.append(
                f"a difference of F(x, y(x)) contradicts the hypergradient by {mismatch:.1e}"
            )
        if weak:
            self.notes.append(
                f"the response has a kink at x; probes lead {says.uphill} on both sides"
            )
        return mismatch, place
