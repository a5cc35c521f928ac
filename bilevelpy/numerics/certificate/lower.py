"""The lower part of a certificate: is y a solution of the lower level, and the one that F wants?"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch

from bilevelpy.numerics.certificate.case import Case
from bilevelpy.numerics.certificate.resolve import NEARLY, Answer, Resolver
from bilevelpy.numerics.certificate.ties import EQUAL, NoBest, choose
from bilevelpy.numerics.cones.semidefinite import conic_response
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.grouped import grouped_noise, is_grouped
from bilevelpy.numerics.lower.halves import RELEASED, is_split
from bilevelpy.numerics.lower.solve import LowerSolution, finish
from bilevelpy.numerics.programs.far import far_points, is_lower

Vec = torch.Tensor

# A response known to this fraction of its own size is known to rounding.
ROUNDING = 1e-12
# How far beside x responses show their size, in parts of the extent.
BESIDE = 1e-2
# Relative distance of two lower solutions that counts as different.
APART = 1e-3
# How far beyond the response f is looked at, in distances from the start.
OUTWARD = 2.0
# Differences of f that are rounding of its differences elsewhere.
RESOLVED = 1e-15
# Where the least f is small beside what f falls by from the start, so much of that is its scale.
BEYOND = 1e-2
# Differences of F between responses that count as none, relative to the size of F.
SAME = 1e-6
# Entries of semidefinite lower variables up to which a conic solver is affordable.
CONIC = 1000


class LowerCheck:
    """Re-solves of the lower level at x: the gap of f, and ties.

    ``base`` is the answer at x from the returned y; ``solver`` made it. Where the lower level has
    several solutions with different F both are replaced by those of the optimistic response.
    """

    def __init__(self, case: Case, solver: Resolver, base: Answer, f_here: float) -> None:
        self.case, self.solver, self.base, self.f_here = case, solver, base, f_here
        self.found: list[LowerSolution] = [base.lower]
        self.outward: Vec | None = None
        self.far: LowerSolution | None = None
        self.tied = self.falls = False

    def search(self) -> None:
        """Solve the lower level from other starts."""
        for start in self._starts():
            other = self.solver.respond(self.case.x, start, NEARLY)
            if other.ended == "unbounded":
                self.case.fail("the lower level is unbounded at the returned x")
                self.falls = True
                return
            # A value below is below, whether or not the solve came to an end.
            if math.isfinite(other.f) and (other.usable or other.f < self.base.lower.f):
                self.found.append(other)
        self._look_outward()  # before f is known where it is far lower, which would be the scale
        self._look_far()

    def compare(self, responses: list[Vec]) -> None:
        """Solve the lower level from responses to other x that lie far from that to x.

        Where a minimiser of an f that is not convex vanishes on the other side of x, F jumps there
        to that of a lower one, and what looks like a kink is none: the lower one was there before.
        """
        for y in responses:
            other = self.solver.respond(self.case.x, y, NEARLY)
            if math.isfinite(other.f) and other.ended not in ("unbounded", "nonfinite"):
                self.found.append(other)

    def _look_far(self) -> None:
        """Where f is not known to be convex, the lowest of its values far away."""
        case, o = self.case, self.case.oracle
        if case.convex or not o.m or not case.is_small:
            return
        seed = int(torch.randint(1 << 31, (), generator=case.rng))
        best, place = self.best, None
        for _, point in far_points(self.base.lower.y.numpy(), np.random.default_rng(seed)):
            y = o.domain_y.project(torch.from_numpy(point))
            f = o.f(case.x, y)
            if is_lower(f, best):
                best, place = f, y
        if place is not None:
            self.far = finish(o.domain_y, place, *o.value_grad_f(case.x, place), 0, "limit")
            self.found.append(self.far)
            beyond = self.solver.respond(case.x, place, NEARLY)
            if beyond.usable and beyond.f <= best:
                self.found.append(beyond)

    def _look_outward(self) -> None:
        """A point beyond the response, as seen from the start, with the same f: the least value of
        an f such as that of separable data without a penalty lies at infinity, and any response is
        one only in floating point.
        """
        case, o, base = self.case, self.case.oracle, self.base.lower
        if case.quadratic:
            return
        far = base.y + OUTWARD * (base.y - o.y0)
        if norm(far - o.domain_y.project(far)) > 0.0 or norm(far - base.y) <= APART * norm(base.y):
            return
        f = o.f(case.x, far)
        if abs(f - base.f) <= EQUAL * self.spread():
            self.outward = far
            self.found.append(finish(o.domain_y, far, *o.value_grad_f(case.x, far), 0, "reached"))

    def conic(self) -> None:
        """Solve a quadratic lower level over semidefinite matrices once more by a conic solver."""
        case, o = self.case, self.case.oracle
        if not (case.quadratic and o.domain_y.matrices and o.m <= CONIC):
            return
        y = conic_response(o, case.x, self.base.lower.y)
        if y is None:
            case.note("a conic solver did not come to an end on the lower level")
            return
        other = finish(o.domain_y, y, *o.value_grad_f(case.x, y), 0, "reached")
        case.found.details["conic_gap"] = self.base.lower.f - other.f
        if other.f < self.base.lower.f:
            self.found.append(other)

    @property
    def best(self) -> float:
        """The least f found."""
        return min(s.f for s in self.found)

    def spread(self) -> float:
        """What changes of f are compared with."""
        o, best = self.case.oracle, self.best
        return max(abs(o.f(self.case.x, o.y0) - best), abs(best), 1e-300)

    def gap(self) -> tuple[float, float]:
        """How far f still falls, absolute and relative; a failure where that is not rounding."""
        if self.falls:
            return math.inf, math.inf
        case, best, spread = self.case, self.best, self.spread()
        gap = max(self.f_here - best, 0.0)
        relative = gap / max(abs(best), 1e-12 * spread, 1e-300)
        case.found.details["lower_solves"] = float(len(self.found))
        rounding = ROUNDING * self._response_size
        noise = max(1e-13 * abs(best), self.solver.bend * rounding * rounding)
        allowed = 1e-2 * case.tol * max(abs(best), BEYOND * spread)
        if gap > max(allowed, noise):
            case.fail(
                f"the lower objective still {case.lower_words.falls} by {gap:.2e} when the lower "
                "level is re-solved"
            )
            # A re-solve that came to no end is as good a start as one that did; a point far away,
            # where f may fall on and on, is none.
            met = (s for s in self.found if s.usable or s is not self.far)
            lower = min(met, key=lambda s: s.f)
            if not case.convex and self.f_here - lower.f > 0.5 * gap:
                case.found.better = lower.y
        return gap, relative

    def ties(self) -> None:
        """Different minimisers: F may differ between them, and then the leader's choice counts."""
        spread = max(self.spread(), RESOLVED / EQUAL * self._spread_at_start())
        if self.base.lower.f - self.best > EQUAL * spread:
            return
        equal = [s.y for s in self.found if s.f - self.best <= EQUAL * spread]
        differing = self._apart(equal)
        case, o = self.case, self.case.oracle
        if not differing:
            return
        base, x = self.base, case.x
        here = o.F(x, case.y)
        local = max(abs(base.F), abs(here), abs(o.F(x, o.y0)), 1e-300)
        if all(abs(o.F(x, y) - base.F) <= SAME * local for y in differing):
            case.note("the lower solution is not unique, but F is the same at all that were found")
            return
        if self.outward is not None and any(y is self.outward for y in differing):
            far, says = norm(self.outward - base.lower.y), case.lower_words
            case.fail(
                f"the lower objective becomes no {says.worse} over a distance of {far:.1e} beyond "
                f"the response, and F changes there: its {says.least} value is at infinity, or at "
                "many points; a penalty on the lower variables makes it one"
            )
            self.tied = True
            return
        self._choose(equal, spread, here, local)

    def _spread_at_start(self) -> float:
        """How far f at the start of x tells apart what was found here, where f may have all but
        vanished; 0 where nothing else was found.
        """
        o, base = self.case.oracle, self.base.lower.y
        if all(norm(s.y - base) <= APART * max(norm(base), norm(s.y)) for s in self.found):
            return 0.0
        values = [o.f(o.domain_x.project(o.x0), s.y) for s in self.found]
        finite = [v for v in values if math.isfinite(v)]
        return max(finite) - min(finite) if finite else 0.0

    def _choose(self, equal: list[Vec], spread: float, here: float, local: float) -> None:
        """Compare F with that of the optimistic response, and continue with the latter."""
        case = self.case
        says = case.upper_words
        sign = says.sign
        self.tied = True
        try:
            choice = choose(case.oracle, case.x, equal, spread, self.solver.bend, case.rng)
        except NoBest as none:
            if none.unbounded:
                case.found.details["F_optimistic"] = -sign * math.inf
                case.fail(
                    f"the lower solution is not unique, and F {says.falls} without bound among its "
                    "solutions"
                )
            else:
                case.fail(
                    f"the lower solution is not unique, and F could not be {says.minimised} over "
                    "its solutions"
                )
            return
        lowest, highest = choice.lowest, choice.highest
        case.found.details["F_optimistic"] = sign * lowest
        case.found.details["F_pessimistic"] = sign * highest
        between = f"F lies between {sign * lowest:.6g} (optimistic) and {sign * highest:.6g}"
        size = max(local, abs(highest)) if math.isfinite(highest) else local
        if case.pessimistic:
            case.fail(
                f"the lower solution is not unique: {between} among equally good responses at "
                "this x; the leader is pessimistic, and the methods here take one response"
            )
        elif abs(here - lowest) > case.tol * size:
            case.fail(
                f"the lower solution is not unique: {between} among equally good responses at "
                f"this x, and the returned y has {sign * here:.6g}"
            )
        else:
            case.note(
                f"the lower solution is not unique: {between} among equally good responses at "
                "this x; the answer is the optimistic one"
            )
        self.base, self.solver = choice.answer, choice.solver

    def agreement(self, scale: float) -> None:
        """F must be the same at the returned y and at the re-solved one."""
        case, o, base = self.case, self.case.oracle, self.base
        case.found.details["F_at_resolved"] = o.F_sign * base.F
        if self.tied:  # compared already
            return
        here = o.F(case.x, case.y)
        # F may be 0 at its optimum: then what changes of the response, but at most what a step of x
        # across the extent would change is the scale.
        moved = base.by_y * self._response_size
        moved = min(moved, scale * case.extent if math.isfinite(scale) else 0.0)
        size = max(abs(base.F), abs(here), 0.1 * moved, 1e-300)
        if abs(here - base.F) > case.tol * size:
            case.fail(
                f"F changes from {o.F_sign * here:.6g} to {o.F_sign * base.F:.6g} when the lower "
                "level is re-solved"
            )

    def _apart(self, responses: list[Vec]) -> list[Vec]:
        """The responses that differ from the base one."""
        case, base = self.case, self.base.lower.y
        scale, differing = max(norm(base), 1e-300), []
        for other in responses:
            distance = norm(other - base)
            far = distance > APART * max(scale, norm(other))
            if far and (self.solver.is_flat(case.x, base, other) or distance > scale):
                differing.append(other)
                known = case.found.details.get("lower_distance", 0.0)
                case.found.details["lower_distance"] = max(known, distance)
        return differing

    @cached_property
    def _response_size(self) -> float:
        """A size of y: here, at the start, or on the way from the start of x to here; a little
        beside x where that has not moved.

        An optimum at 0 that is reached from far away, or never left, has a y and an f that are
        nothing but rounding of what was subtracted.
        """
        case, o, y = self.case, self.case.oracle, self.base.lower.y
        sizes = [norm(y), norm(o.y0)]
        if not o.n or max(sizes) >= 1e-3 * case.extent:
            return max(sizes)
        places, part = [o.domain_x.project(o.x0)], 1.0
        if norm(case.x - o.x0) < 1e-3 * case.extent:
            part = BESIDE
            step = torch.full_like(case.x, BESIDE * case.extent / math.sqrt(o.n))
            places = [o.domain_x.project(case.x + sign * step) for sign in (1.0, -1.0)]
        for place in places:
            other = self.solver.respond(place, y)
            size = norm(other.y) / part
            if other.usable and math.isfinite(size):
                sizes.append(size)
        return max(sizes)

    def _starts(self) -> list[Vec]:
        """Other starts for the lower level: the given one, and random ones unless uniqueness is
        proved.
        """
        case, o = self.case, self.case.oracle
        starts = [o.y0]
        if not case.unique and o.m:
            size = max(norm(case.y), norm(o.y0)) / math.sqrt(o.m) or 1.0
            for _ in range(2 if case.is_small else 1):
                noise = torch.randn(o.m, generator=case.rng, dtype=torch.float64)
                if is_split(o):  # starts as sparse as the response: their matrices are as small
                    few = max(RELEASED, int(case.y.count_nonzero()))
                    noise[torch.randperm(o.m, generator=case.rng)[few:]] = 0.0
                elif is_grouped(o):
                    noise = grouped_noise(o, noise, case.y, case.rng)
                starts.append(o.domain_y.project(case.y + size * noise))
        return starts
