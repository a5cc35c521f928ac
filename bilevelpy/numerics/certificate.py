"""The certificate: residuals of a point recomputed from the oracle alone, and the final status
that follows.

Nothing of a backend enters. The lower level is re-solved from the returned y and from other
starts; the hypergradient is computed at the re-solved response by an adjoint of its own, compared
with a finite difference, and Phi is probed along feasible directions. All tests are relative to
scales found here, so units do not matter.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from bilevelpy.analysis.structure import Evidence
from bilevelpy.numerics.driver import RunResult
from bilevelpy.numerics.kink import shortest_in_hull
from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.resolve import Answer, Resolver
from bilevelpy.options import SolveOptions
from bilevelpy.result import Certificate, Status

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.lowering.protocol import Oracle

Vec = torch.Tensor

# A response known to this fraction of its own size is known to rounding.
ROUNDING = 1e-12
# A multiplier below this fraction of the gradient's typical size marks a kink of the response.
WEAK = 1e-6
# A certificate allows this multiple of the run's tolerance: its scales are its own.
SLACK = 100.0
# Mismatch of finite difference and hypergradient that is still taken for rounding and curvature.
MISMATCH = 1e-3
FEASIBLE = 1e-8
# Relative distance of two lower solutions that counts as different.
APART = 1e-3
# Radii of probes, relative to the size of x.
NEAR, PROBE, TINY = 1e-2, 1e-3, 1e-6
SMALL = 2000
# Gradients a tiny step apart that agree to this fraction belong to a smooth point.
SMOOTH = 0.01


def certify(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    structure: Structure | None,
    options: SolveOptions,
    rng: torch.Generator,
    *,
    thorough: bool = True,
) -> Certificate:
    """Check the point (x, y) of a bilevel problem.

    Parameters
    ----------
    oracle, x, y, structure, options, rng
        The problem, the point, what is known of it, the options (their tolerance), and the source
        of randomness.
    thorough
        False skips the re-solves from other starts and all probes but steepest descent.

    Returns
    -------
    Certificate
        ``kind`` "local" where all first-order checks hold, else "none"; ``reasons`` says why in
        words.
    """
    return _Check(oracle, x, y, structure, options, rng, thorough).run()


def examine(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    structure: Structure | None,
    options: SolveOptions,
    rng: torch.Generator,
) -> tuple[Certificate, Vec | None]:
    """The certificate, and a lower point where all that is wrong is that a probe found one.

    Such a point lies beside a maximum, a saddle or a kink at which every first-order method
    stands still; it is where to go on from.
    """
    check = _Check(oracle, x, y, structure, options, rng, True)
    certificate = check.run()
    return certificate, check.downhill if len(check.failures) == 1 else None


def settle(run: RunResult, certificate: Certificate) -> RunResult:
    """The run with its final status: "converged" only where the certificate supports it."""
    local = certificate.kind in ("local", "global")
    if run.status is Status.CONVERGED and not local:
        why = "; ".join(certificate.reasons) or "the certificate fails"
        return replace(run, status=Status.STALLED, message=f"the backend stopped, but {why}")
    if run.status is Status.STALLED and local:
        return replace(
            run, status=Status.CONVERGED, message=f"{run.message}; the certificate holds there"
        )
    if run.status is Status.STALLED and certificate.reasons:
        return replace(run, message=f"{run.message}; {'; '.join(certificate.reasons)}")
    return run


class _Check:
    """One certification; collects failures and the numbers behind them."""

    def __init__(
        self,
        oracle: Oracle,
        x: Vec,
        y: Vec,
        structure: Structure | None,
        options: SolveOptions,
        rng: torch.Generator,
        thorough: bool,
    ) -> None:
        self.oracle = oracle
        self.thorough = thorough
        self.x, self.y = x, y
        self.rng = rng
        self.tol = SLACK * options.tol
        self.convex = structure is not None and (
            structure.convexity.value in ("convex", "strongly convex")
            and structure.convexity.evidence is not Evidence.OBSERVED
        )
        self.proved = (
            structure is not None
            and structure.unique.value is True
            and (structure.unique.evidence is Evidence.PROVED)
        )
        self.small = oracle.m * max(oracle.n, 1) <= SMALL**2 and oracle.m <= SMALL
        self.failures: list[str] = []
        self.notes: list[str] = []
        self.details: dict[str, float] = {}
        self.downhill: Vec | None = None
        self.extent = self._extent()

    def run(self) -> Certificate:
        o = self.oracle
        feasible_x, feasible_y = o.domain_x.violation(self.x), o.domain_y.violation(self.y)
        self._feasible("upper", feasible_x, self.x)
        self._feasible("lower", feasible_y, self.y)
        f_here, gradient = o.value_grad_f(self.x, self.y)
        stationarity = o.domain_y.projected_gradient_norm(self.y, gradient)
        gap = relative_gap = hyper = math.nan
        mismatch: float | None = None
        if not (math.isfinite(f_here) and math.isfinite(stationarity)):
            self.failures.append("the lower objective is not finite at the returned point")
        else:
            self.solver = Resolver(o, self.x, self.y, self.rng)
            base = self.solver.answer(self.x, self.y)
            if base is None:
                self.failures.append("the lower level has no finite solution at the returned x")
            else:
                pg = norm(o.domain_x.projected_gradient(self.x, base.gradient))
                scale = self._gradient_scale(base) if math.isfinite(pg) else math.nan
                gap, relative_gap = self._lower(base, f_here, scale)
                hyper, mismatch = self._upper(base, pg, scale)
        kind = "none" if self.failures else "local"
        if not self.failures:
            self.notes.insert(
                0, "the lower level is solved and first-order conditions of the upper level hold"
            )
            if not self.convex:
                self.notes.append(
                    "the lower level is not known to be convex: a better response that no re-solve "
                    "has found cannot be excluded"
                )
        return Certificate(
            kind,
            gap,
            relative_gap,
            stationarity,
            feasible_y,
            feasible_x,
            hyper,
            mismatch,
            tuple(self.failures or self.notes),
            self.details,
        )

    def _feasible(self, level: str, violation: float, z: Vec) -> None:
        size = float(z.abs().max()) if z.numel() else 0.0
        if violation > FEASIBLE * max(size, 1e-3):
            self.failures.append(f"{level} variables leave their domain by {violation:.1e}")

    # The lower level

    def _lower(self, base: Answer, f_here: float, scale: float) -> tuple[float, float]:
        """Gap over all re-solves, uniqueness of the response, and the effect of the difference on
        F.
        """
        o = self.oracle
        found = [base.lower]
        for start in self._starts():
            other = self.solver.respond(self.x, start)
            if other.ended == "unbounded":
                self.failures.append("the lower level is unbounded at the returned x")
            # A value below is below, whether or not the solve came to an end.
            if math.isfinite(other.f) and (other.usable or other.f < base.lower.f):
                found.append(other)
        best = min(s.f for s in found)
        gap = max(f_here - best, 0.0)
        spread = max(abs(o.f(self.x, o.y0) - best), abs(best), 1e-300)
        relative = gap / max(abs(best), 1e-12 * spread, 1e-300)
        self.details["lower_solves"] = float(len(found))
        noise = max(
            1e-13 * abs(best), self.solver.bend * (ROUNDING * self._response_size(base)) ** 2
        )
        if gap > max(self.tol * 1e-2 * spread, noise):
            self.failures.append(
                f"the lower objective still falls by {gap:.2e} when the lower level is re-solved"
            )
        F_here, F_base = o.F(self.x, self.y), base.F
        # F may be 0 at its optimum: then what a step across the extent would change is the scale.
        size = max(
            abs(F_base), abs(F_here), scale * self.extent if math.isfinite(scale) else 0.0, 1e-300
        )
        self.details["F_at_resolved"] = o.F_sign * F_base
        if abs(F_here - F_base) > self.tol * size:
            self.failures.append(
                f"F changes from {o.F_sign * F_here:.6g} to {o.F_sign * F_base:.6g} when the lower "
                "level is re-solved"
            )
        local = max(abs(F_base), abs(F_here), abs(o.F(self.x, o.y0)), 1e-300)
        if base.lower.f - best <= 1e-9 * spread:
            self._unique(base, [s.y for s in found if s.f - best <= 1e-9 * spread], local)
        return gap, relative

    def _response_size(self, base: Answer) -> float:
        """A size of y: here, at the start, or on the way from the start of x to here.

        An optimum at 0 that is reached from far away has a y and an f that are nothing but
        rounding of what was subtracted.
        """
        o = self.oracle
        sizes = [norm(base.lower.y), norm(o.y0)]
        if max(sizes) < 1e-3 * self.extent and norm(self.x - o.x0) >= 1e-3 * self.extent:
            first = self.solver.respond(o.domain_x.project(o.x0), base.lower.y)
            size = norm(first.y)
            if first.usable and math.isfinite(size):
                sizes.append(size)
        return max(sizes)

    def _starts(self) -> list[Vec]:
        """Other starts for the lower level: the given one, and random ones unless uniqueness is
        proved.
        """
        o = self.oracle
        if not self.thorough:
            return []
        starts = [o.y0]
        if not self.proved and o.m:
            size = max(norm(self.y), norm(o.y0)) / math.sqrt(o.m) or 1.0
            for _ in range(2 if self.small else 1):
                noise = torch.randn(o.m, generator=self.rng, dtype=torch.float64)
                starts.append(o.domain_y.project(self.y + size * noise))
        return starts

    def _unique(self, base: Answer, responses: list[Vec], size: float) -> None:
        """Different minimisers: a failure where F tells them apart, else a note."""
        o = self.oracle
        scale = max(norm(base.lower.y), 1e-300)
        worst = 0.0
        for other in responses:
            distance = norm(other - base.lower.y)
            far = distance > APART * max(scale, norm(other))
            if far and (self.solver.is_flat(self.x, base.lower.y, other) or distance > scale):
                worst = max(worst, abs(o.F(self.x, other) - base.F))
                self.details["lower_distance"] = max(
                    self.details.get("lower_distance", 0.0), distance
                )
        if "lower_distance" not in self.details:
            return
        if worst > 1e-6 * size:
            self.failures.append(
                f"the lower solution is not unique: F differs by {worst:.2e} between equally good "
                "responses"
            )
        else:
            self.notes.append(
                "the lower solution is not unique, but F is the same at all that were found"
            )

    # The upper level

    def _upper(self, base: Answer, pg: float, scale: float) -> tuple[float, float | None]:
        """Projected hypergradient, directional check and probes."""
        if not math.isfinite(pg):
            self.failures.append("the hypergradient is not finite")
            return pg, None
        if base.adjoint.negative_curvature or base.lower.negative_curvature:
            self.failures.append("the lower level has negative curvature at the re-solved response")
        self.details["hypergradient_scale"] = scale
        self.details["hypergradient_relative"] = pg / scale if scale > 0 else 0.0
        kink = False
        if pg > self.tol * scale:
            kink = self._is_kink(base)
            if kink:
                self.notes.append(
                    "the point is a kink of F(x, y(x)), stationary in the sense of Clarke"
                )
            else:
                self.failures.append(
                    f"the hypergradient is {pg:.2e}, {pg / scale:.0e} of its size elsewhere: not "
                    "stationary"
                )
        weak = kink or self._is_weak(base)
        mismatch = None if weak else self._directional(base, scale)
        if mismatch is not None and mismatch > MISMATCH:
            self.failures.append(
                f"a finite difference of F(x, y(x)) contradicts the hypergradient (relative "
                f"mismatch {mismatch:.1e})"
            )
        self._probe(base, scale)
        return pg, mismatch

    def _extent(self) -> float:
        """A length of x: the way from the start, a part of its size, a part of its bounded
        domain.
        """
        o = self.oracle
        width = o.domain_x.upper - o.domain_x.lower
        bounded = width[width < math.inf]
        sizes = [norm(self.x - o.x0), 0.1 * norm(self.x)]
        if bounded.numel() and bounded.numel() == o.n:
            sizes.append(1e-2 * norm(bounded))
        return max(sizes) or 1.0

    def _gradient_scale(self, base: Answer) -> float:
        """What a hypergradient that is not small looks like here: at the start, and a little
        beside the point.
        """
        o = self.oracle
        beside = self._displaced(NEAR * self.extent)
        sizes = [base.size]
        nearby = (
            self.solver.answer(beside, base.lower.y, base, rough=True)
            if beside is not None
            else None
        )
        typical = (
            norm(o.domain_x.projected_gradient(nearby.x, nearby.gradient)) / NEAR
            if nearby is not None
            else 0.0
        )
        if norm(self.x - o.x0) > NEAR * self.extent:
            first = self.solver.answer(o.domain_x.project(o.x0), base.lower.y, base, rough=True)
            if first is not None:
                start = norm(o.domain_x.projected_gradient(first.x, first.gradient))
                typical = min(start, typical) if typical > 0 else start
        sizes.append(typical)
        return max([s for s in sizes if math.isfinite(s)] + [1e-300])

    def _displaced(self, length: float) -> Vec | None:
        """A feasible point at about this distance in a random direction."""
        o = self.oracle
        if not o.n:
            return None
        v = torch.randn(o.n, generator=self.rng, dtype=torch.float64)
        x = o.domain_x.project(self.x + (length / norm(v)) * v)
        return x if bool((x != self.x).any()) else None

    def _is_kink(self, base: Answer) -> bool:
        """Whether 0 lies (almost) in the hull of the hypergradients around the point."""
        o = self.oracle
        radius = TINY * self.extent
        gradients = [base.gradient]
        pg = o.domain_x.projected_gradient(self.x, base.gradient)
        direction = pg / max(norm(pg), 1e-300)
        face = o.domain_x.face(self.x, base.gradient)
        for _ in range(min(2 * o.n, 30) + 2):
            rows = torch.stack([face.project(g) for g in gradients])
            h = shortest_in_hull(rows)
            longest = max(norm(g) for g in rows)
            if norm(h) <= 1e-2 * longest:
                return True
            direction = h / norm(h)
            there = self.solver.answer(
                o.domain_x.project(self.x - radius * direction), base.lower.y, base
            )
            if there is None:
                return False
            if len(gradients) == 1 and norm(there.gradient - base.gradient) <= SMOOTH * norm(pg):
                return False
            gradients.append(there.gradient)
        return False

    def _released(self, base: Answer) -> Vec:
        """Descent of the F that the response would have if the bounds that hardly hold it were
        gone.

        Where they hold, the response stands still and the hypergradient does not see what lies on
        the other side of the kink.
        """
        o, y, g = self.oracle, base.lower.y, base.lower.gradient
        face = base.lower.face
        if face.only_fixes and face.free is not None:
            free = face.free | (g.abs() <= WEAK * self.solver.gradient_scale)
            face = replace(face, free=None if bool(free.all()) else free)
        gradient = self.solver.hypergradient(self.x, y, face)
        pg = o.domain_x.projected_gradient(self.x, gradient)
        size = norm(pg)
        return -pg / size if 0.0 < size < math.inf else torch.zeros_like(pg)

    def _is_weak(self, base: Answer) -> bool:
        """Whether the response lies on a bound that hardly holds it: y(x) has a kink there."""
        g = base.lower.gradient
        top = float(g.abs().max()) if g.numel() else 0.0
        if base.lower.face.weak or top == 0.0:
            return base.lower.face.weak > 0
        tol = WEAK * max(self.solver.gradient_scale / top, 1.0)
        return self.oracle.domain_y.face(base.lower.y, g, tol).weak > 0

    def _directional(self, base: Answer, scale: float) -> float | None:
        """Relative mismatch of a central difference of Phi with the hypergradient along one
        direction.
        """
        o = self.oracle
        if not o.n:
            return None
        face = o.domain_x.face(self.x, base.gradient)
        v = torch.randn(o.n, generator=self.rng, dtype=torch.float64)
        v = face.project(v / norm(v) + base.gradient / max(norm(base.gradient), 1e-300))
        size = norm(v)
        if size < 1e-8:
            return None
        v = v / size
        step = min(PROBE * 0.1 * self.extent, 0.5 * o.domain_x.longest_step(self.x, v))
        step = min(step, 0.5 * o.domain_x.longest_step(self.x, -v))
        if step <= 1e-9 * self.extent:
            return None
        up, down = (
            self.solver.value(self.x + step * v, base),
            self.solver.value(self.x - step * v, base),
        )
        if up is None or down is None:
            return None
        slope, expected = (up - down) / (2 * step), dot(base.gradient, v)
        noise = 1e-11 * abs(base.value) / step
        error = max(abs(slope - expected) - noise, 0.0)
        return error / max(abs(slope), abs(expected), 0.1 * scale)

    def _probe(self, base: Answer, scale: float) -> None:
        """Look for descent along feasible directions with re-solved responses."""
        o = self.oracle
        worst, place = 0.0, 0.0
        for direction, radius in self._directions(base):
            x = o.domain_x.project(self.x + radius * direction)
            length = norm(x - self.x)
            if length <= 1e-3 * radius:
                continue
            value = self.solver.value(x, base)
            if value is None or not math.isfinite(value):
                continue
            fall = base.value - value
            allowed = 2 * self.tol * scale * length + 1e-10 * abs(base.value)
            if fall > allowed and fall > worst:
                worst, place = fall, length
                self.downhill = x
        self.details["probe_decrease"] = worst
        if worst > 0.0:
            self.failures.append(
                f"not locally optimal: F(x, y(x)) falls by {worst:.2e} at a distance of "
                f"{place:.1e} from x"
            )

    def _directions(self, base: Answer) -> list[tuple[Vec, float]]:
        """Steepest descent, random directions, and for few variables the coordinate axes, each
        with a radius.
        """
        o = self.oracle
        if not o.n:
            return []
        pg = o.domain_x.projected_gradient(self.x, base.gradient)
        out = [(-pg / norm(pg), PROBE * self.extent)] if norm(pg) > 0 else []
        if not self.thorough:
            return out
        if self._is_weak(base):
            out.append((self._released(base), PROBE * self.extent))
        for _ in range(3 if self.small else 1):
            v = torch.randn(o.n, generator=self.rng, dtype=torch.float64)
            v = v / norm(v)
            out += [(v, PROBE * self.extent), (-v, PROBE * self.extent)]
        if o.n <= 4:
            for e in torch.eye(o.n, dtype=torch.float64):
                for radius in (PROBE, NEAR):
                    out += [(e, radius * self.extent), (-e, radius * self.extent)]
        return out
