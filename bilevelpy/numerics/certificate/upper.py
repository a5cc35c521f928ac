"""The upper part of a certificate: stationarity of Phi(x) = F(x, y(x)) on scales found here."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from bilevelpy.numerics.certificate.case import Case, axes_and_diagonals
from bilevelpy.numerics.certificate.difference import MISMATCH, PROBE, Difference
from bilevelpy.numerics.certificate.kinks import is_kink
from bilevelpy.numerics.certificate.plateau import LEFT, NOISE, UNDERFLOW, Plateau, left
from bilevelpy.numerics.certificate.resolve import Answer, Resolver
from bilevelpy.numerics.extent import HARDLY, extent_of, shows_no_scale
from bilevelpy.numerics.linear_solve import norm

Vec = torch.Tensor

# A multiplier below this fraction of the gradient's typical size marks a kink of the response.
WEAK = 1e-6
# The radius of probes, relative to the size of x.
NEAR = 1e-2
# An extent so many times |x| is that of a far start or a wide domain. Down the slope F is looked at
# in these parts of |x|; so much of its size may be gained, of which a part of its curvature times
# |x|^2 is one. Beyond these parts of both a gain says that x and F tend to 0.
FAR, PARTS, GAIN = 10.0, (1.0, 0.2, 0.04, 0.008, 0.0016), 0.1
BENT, VANISHING = 1e-2, 0.5


class UpperCheck:
    """Stationarity, kinks, plateaus, a finite difference and probes around the answer ``base``."""

    def __init__(self, case: Case, solver: Resolver, base: Answer) -> None:
        self.case, self.solver, self.base = case, solver, base
        self.oracle = solver.oracle
        pg = self._projected(case.x, base.gradient)
        self.pg = norm(pg)
        # In the units of the model, where the problem is a scaled one.
        units = getattr(case.oracle, "units", None)
        self.units: Vec = torch.ones_like(case.x) if units is None else units.x
        self.shown = norm(pg / self.units)
        self.scale = math.nan
        self.weak = False
        self.fallen = 0.0  # by how much F differs from that at the start
        self._sizes: list[float] = []
        self._behind: list[Vec] = []  # projected hypergradients behind a kink
        self.beyond: list[Vec] = []  # responses around a kink that are far from that at x

    def measure(self) -> None:
        """Find what a hypergradient that is not small looks like here: at the start, and a little
        beside the point.
        """
        if not math.isfinite(self.pg):
            return
        case, o, base = self.case, self.oracle, self.base
        if case.extent < HARDLY and shows_no_scale(
            base.value, self.solver.value(o.domain_x.project(o.x0), base)
        ):
            case.extent = 1.0
        beside = self._displaced(NEAR * case.extent)
        nearby = (
            self.solver.answer(beside, base.lower.y, base, rough=True)
            if beside is not None
            else None
        )
        typical, self._sizes = 0.0, [base.size]
        if nearby is not None:
            typical = norm(self._projected(nearby.x, nearby.gradient)) / NEAR
            self._sizes.append(nearby.size)
        if norm(case.x - o.x0) > NEAR * case.extent:
            first = self.solver.answer(o.domain_x.project(o.x0), base.lower.y, base, rough=True)
            if first is not None:
                start = norm(self._projected(first.x, first.gradient))
                typical = min(start, typical) if typical > 0 else start
                self.fallen = abs(first.value - base.value)
        self.scale = max([s for s in (base.size, typical) if math.isfinite(s)] + [1e-300])

    def stationarity(self) -> None:
        """The projected hypergradient, kinks included."""
        case, base, pg, scale = self.case, self.base, self.pg, self.scale
        if not math.isfinite(pg):
            case.fail("the hypergradient is not finite")
            return
        if base.adjoint.negative_curvature or base.lower.negative_curvature:
            case.fail("the lower level has negative curvature at the re-solved response")
        case.found.details["hypergradient_scale"] = scale
        case.found.details["hypergradient_relative"] = pg / scale if scale > 0 else 0.0
        kink = level = False
        if pg > case.slope_tol * scale:
            level = self._is_level()
            kink = not level and is_kink(case, self.solver, base, self.beyond)
            if kink:
                case.note("the point is a kink of F(x, y(x)), stationary in the sense of Clarke")
            elif not level:
                case.fail(
                    f"the hypergradient is {pg:.2e}, {pg / scale:.0e} of its size elsewhere: not "
                    "stationary"
                )
        self.weak = kink or level or self._is_weak()

    def plateau(self) -> None:
        """Where Phi does not change at all around x, a vanishing gradient shows nothing: look
        farther.

        Saturated functions underflow; their gradients are zero wherever they start.
        """
        case, base = self.case, self.base
        finite = [s for s in self._sizes if math.isfinite(s)]
        if not self.oracle.n or not finite or max(finite) > UNDERFLOW:
            return
        seen = Plateau(self.oracle, case.x, base.value, case.extent)
        words = "the hypergradient vanishes on a whole neighbourhood of x (a plateau)"
        better = case.upper_words.better
        try:
            seen.look(lambda x: self.solver.value(x, base), case.rng)
        finally:  # what was found counts where the time is up
            if seen.place is not None:
                distance = norm(self.units * (seen.place - case.x))
                case.fail(f"{words}, and F(x, y(x)) is {better} at a distance of {distance:.1e}")
                case.found.downhill = seen.place
        if seen.place is not None:
            return
        if seen.rises:
            case.note(f"{words}; F(x, y(x)) is {better} nowhere that was tried")
        else:
            case.fail(
                f"{words}, and F(x, y(x)) is the same wherever it was tried: nothing shows that "
                "the point is optimal"
            )

    def difference(self) -> float | None:
        """Relative mismatch of a central difference of Phi with the hypergradient along one
        direction; a failure where it is large, and no kink beside x explains it.
        """
        if self.weak:
            return None
        found = Difference(self.case, self.solver, self.base, self.scale)
        mismatch = found.mismatch()
        if mismatch is None or mismatch <= MISMATCH:
            return mismatch
        if found.is_beside_kink():
            self._behind = [self._projected(self.case.x, g) for g in found.behind]
            self.case.note(
                f"F(x, y(x)) has a kink within {norm(self.units * found.move):.0e} of x: probes "
                f"lead {self.case.upper_words.uphill} behind it, too"
            )
            return None
        self.case.fail(
            f"a finite difference of F(x, y(x)) contradicts the hypergradient (relative "
            f"mismatch {mismatch:.1e})"
        )
        return mismatch

    def probe(self) -> None:
        """Look for descent along feasible directions with re-solved responses."""
        case, o, base = self.case, self.oracle, self.base
        worst, place = 0.0, 0.0
        # A bound may hold a slope so large that all others are nothing beside it: F itself tells.
        clear = case.slope_tol * max(abs(base.value), self.fallen)
        clear = clear if clear > 0.0 and math.isfinite(clear) else math.inf
        trials = self._trials_by_unit()
        for direction, radius in self._directions():
            x = o.domain_x.project(case.x + radius * direction)
            # One upper variable has two directions, however many are drawn.
            if any(norm(x - known) <= 1e-9 * radius for known, _ in trials):
                continue
            if norm(x - case.x) > 1e-3 * radius:
                trials.append((x, self.scale * norm(x - case.x)))
        for x, much in trials:
            value = self.solver.value(x, base)
            if value is None or math.isnan(value) or value == math.inf:
                continue
            fall = base.value - value
            least = min(2 * case.slope_tol * much + 1e-10 * abs(base.value), clear)
            if fall > max(least, worst):
                worst, place = fall, norm(self.units * (x - case.x))
                case.found.downhill = x
        if worst == 0.0:
            worst, place = self._near()
        case.found.details["probe_decrease"] = worst
        if worst > 0.0:
            case.fail(
                f"not locally optimal: F(x, y(x)) {case.upper_words.falls} by {worst:.2e} at a "
                f"distance of {place:.1e} from x"
            )

    # Pieces

    def _projected(self, x: Vec, gradient: Vec) -> Vec:
        return self.oracle.domain_x.projected_gradient(x, gradient)

    def _displaced(self, length: float) -> Vec | None:
        """A feasible point at about this distance in a random direction, or against it where that
        leads out of the domain.
        """
        o, case = self.oracle, self.case
        if not o.n:
            return None
        v = torch.randn(o.n, generator=case.rng, dtype=torch.float64)
        for way in (v, -v):
            x = o.domain_x.project(case.x + (length / norm(v)) * way)
            if bool((x != case.x).any()):
                return x
        return None

    def _near(self) -> tuple[float, float]:
        """What F loses down the slope and how far from x, on scales of x itself, where the way from
        the start hides it; zeros where that is nothing.
        """
        case, base, length = self.case, self.base, norm(self.case.x)
        if not (case.extent > FAR * length > 0.0 and 0.0 < self.pg < math.inf):
            return 0.0, 0.0
        down = -self._projected(case.x, base.gradient) / self.pg
        best, place, bent = 0.0, case.x, 0.0
        for part in PARTS:
            x = self.oracle.domain_x.project(case.x + part * length * down)
            value, way = self.solver.value(x, base), norm(x - case.x)
            if value is not None and base.value - value > best and way > 0.0:
                best, place = base.value - value, x
                bent = 2.0 * max(self.pg * way - best, 0.0) * (length / way) ** 2
        size = max(abs(base.value), BENT * bent)
        vanishing = best > max(VANISHING * abs(base.value), BENT * bent)
        if vanishing or best <= GAIN * case.slope_tol * size:
            return 0.0, 0.0
        case.found.downhill = place
        return best, norm(self.units * (place - case.x))

    def _trials_by_unit(self) -> list[tuple[Vec, float]]:
        """Where the problem is a scaled one, points down the hypergradient of the variables of one
        unit alone, on their own scales, each with what counts as a large change there: were the
        units wrong, a slope might hide behind those of the others.
        """
        case, base, domain = self.case, self.base, self.oracle.domain_x
        if bool((self.units == 1.0).all()) or not 0.0 < self.pg < math.inf:
            return []
        trials = []
        pg = self._projected(case.x, base.gradient)
        for unit in self.units.unique():
            mine = self.units == unit
            d = torch.where(mine, pg, 0.0)
            if norm(d) == 0.0:
                continue
            x = domain.project(case.x - PROBE * extent_of(self.oracle, case.x, mine) / norm(d) * d)
            free = d != 0.0
            cross = torch.where(free, base.adjoint.cross, 0.0)
            size = norm(torch.where(free, base.gradient, 0.0) + cross) + norm(cross)
            trials.append((x, size * norm(x - case.x)))
        return trials

    def _is_level(self) -> bool:
        """Whether what is left of F up to the bounds is nothing, and F is better nowhere far away:
        strengths of penalties whose best value is infinite end on slopes that fade with all others.
        """
        case, base = self.case, self.base
        most = left(self.oracle.domain_x, case.x, base.gradient)
        if not most <= min(NOISE * abs(base.value), LEFT * self.fallen):
            return False
        seen = Plateau(self.oracle, case.x, base.value, case.extent)
        seen.look(lambda x: self.solver.value(x, base), case.rng)
        if seen.place is not None or not seen.rises:
            return False
        case.note(
            f"at its slope F(x, y(x)) {case.upper_words.falls} by {most:.0e} up to the bounds, and "
            f"is {case.upper_words.better} nowhere that was tried"
        )
        return True

    def _is_weak(self) -> bool:
        """Whether the response lies on a bound that hardly holds it: y(x) has a kink there."""
        lower = self.base.lower
        g = lower.gradient
        top = float(g.abs().max()) if g.numel() else 0.0
        if lower.face.weak or top == 0.0:
            return lower.face.weak > 0
        tol = WEAK * max(self.solver.gradient_scale / top, 1.0)
        return self.oracle.domain_y.face(lower.y, g, tol).weak > 0

    def _released(self) -> Vec:
        """Descent of the F that the response would have if the bounds that hardly hold it were
        gone.

        Where they hold, the response stands still and the hypergradient does not see what lies on
        the other side of the kink.
        """
        lower, x = self.base.lower, self.case.x
        y, face = lower.y, lower.face
        released = getattr(self.oracle, "released", None)
        if released is not None:
            y, face = released(x, y, WEAK)
        elif face.only_fixes and face.free is not None:
            free = face.free | (lower.gradient.abs() <= WEAK * self.solver.gradient_scale)
            face = replace(face, free=None if bool(free.all()) else free)
        pg = self._projected(x, self.solver.hypergradient(x, y, face))
        size = norm(pg)
        return -pg / size if 0.0 < size < math.inf else torch.zeros_like(pg)

    def _directions(self) -> list[tuple[Vec, float]]:
        """Steepest descent, random directions, and for few variables the axes and diagonals, each
        with a radius.
        """
        case, o = self.case, self.oracle
        if not o.n:
            return []
        pg = self._projected(case.x, self.base.gradient)
        near, beside = PROBE * case.extent, NEAR * case.extent
        out = [(-pg / norm(pg), near)] if norm(pg) > 0 else []
        if self._is_weak():
            out.append((self._released(), near))
        out += [(-g / norm(g), near) for g in self._behind if norm(g) > 0.0]
        for _ in range(3 if case.is_small else 1):
            v = torch.randn(o.n, generator=case.rng, dtype=torch.float64)
            v = v / norm(v)
            out += [(v, near), (-v, near)]
        axes, between = axes_and_diagonals(o.n, o.m)
        ways = [(e, radius) for e in axes for radius in (near, beside)]
        for d, radius in [*ways, *((d, beside) for d in between)]:
            out += [(d, radius), (-d, radius)]
        return out
