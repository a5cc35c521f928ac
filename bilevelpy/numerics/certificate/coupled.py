"""A local certificate where the lower level has constraints: first-order methods prove no bounds.

The followers are solved again at the returned x by solvers of their own (linear, quadratic or
smooth programs in scalar rows); the hypergradient comes from the KKT adjoint there, with
multipliers fitted to the active set, and F(x, y(x)) is probed by further solves.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.numerics.certificate.case import axes_and_diagonals, make_case, tolerance
from bilevelpy.numerics.certificate.constrained import FEASIBLE, Claim, verdict
from bilevelpy.numerics.certificate.followers import Followers
from bilevelpy.numerics.certificate.free_below import FreeFollowers, is_free_below
from bilevelpy.numerics.certificate.other_responses import along_others
from bilevelpy.numerics.certificate.plateau import UNDERFLOW, Plateau
from bilevelpy.numerics.certificate.prices import refused_prices
from bilevelpy.numerics.certificate.upper_rows import RowsCheck
from bilevelpy.numerics.cones.nearest_feasible import derivatives
from bilevelpy.numerics.cones.sample import kinds
from bilevelpy.numerics.cones.sequential import Sample
from bilevelpy.numerics.extent import HARDLY, extent_of, shows_no_scale
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.rows.feasibility_cuts import Cut, cut_at
from bilevelpy.numerics.rows.fitted_adjoint import ACTIVE, FittedAdjoint
from bilevelpy.numerics.rows.sample import kinds_with_cuts, with_cuts
from bilevelpy.numerics.wording import wording
from bilevelpy.options import SolveOptions
from bilevelpy.reductions.columns import without_prices
from bilevelpy.reductions.refusal import Refused
from bilevelpy.reductions.rows import System, system
from bilevelpy.result import Certificate

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.lowering.oracle import TorchOracle

Vec = torch.Tensor

# Radii of probes; how far the size of hypergradients is looked up.
PROBE, BESIDE, NEAR = 1e-3, 1e-2, 1e-2
# Rows that hold x at the edge, at most.
EDGES = 20
# Lower solutions are known to about this fraction of F.
NOISE = 1e-7


def examine_rows(
    oracle: TorchOracle,
    x: Vec,
    y: Vec,
    structure: Structure | None,
    options: SolveOptions,
    rng: torch.Generator,
    *,
    seconds: float = math.inf,
) -> tuple[Certificate, Vec | None]:
    """The certificate of ``(x, y)``, and a lower point where all that is wrong is that a probe
    found one. Probes begin only within ``seconds`` of wall time, and are named where they are left
    out.
    """
    try:
        free = is_free_below(oracle, structure)
        rows = system(without_prices(oracle.bound), objective=False, lower=not free)
    except Refused as error:
        reason = f"the constraints cannot be checked: {error}"
        nothing = (math.nan,) * 6
        return Certificate("none", *nothing, None, (reason,), {}), None
    return _Check(oracle, rows, x, y, structure, options, rng, seconds).run()


class _Check:
    """One certification."""

    def __init__(
        self,
        oracle: TorchOracle,
        rows: System,
        x: Vec,
        y: Vec,
        structure: Structure | None,
        options: SolveOptions,
        rng: torch.Generator,
        seconds: float,
    ) -> None:
        self.until = time.perf_counter() + seconds
        self.oracle, self.rows, self.x, self.y = oracle, rows, x, y
        self.tol, self.seed, self.rng = tolerance(options), options.seed, rng
        shape = "nonconvex" if structure is None else structure.lower.constraints.value
        self.convex = structure is not None and structure.is_known_convex and shape != "nonconvex"
        self.affine = shape in ("none", "bounds", "linear")
        # Where F itself has kinks, its slope at one of them says little.
        self.kinked = structure is not None and not structure.upper.smooth.value
        self.adjoint = FittedAdjoint(oracle, self.affine)
        # What is declared is looked at as well.
        self.alone = structure is not None and structure.convexity.value == "strongly convex"
        self.followers = Followers(
            oracle, rows, self.seed, self.until, convex=self.convex, affine=self.affine
        )
        if is_free_below(oracle, structure):
            case = make_case(oracle, x, y, structure, options, rng)
            self.followers = FreeFollowers(case, rows, self.seed, self.until)
        self.complete = True
        # Rows in x that the lower rows imply, which hold x.
        self.cuts: list[Cut] = []
        self.extent = extent_of(oracle, x)

    def run(self) -> tuple[Certificate, Vec | None]:
        """All checks, the cheap ones first."""
        v = self.followers.columns(self.x, self.y)
        seen, solved = self.followers.examined(v)
        base = verdict(self.rows, Claim(True, math.nan, 0.0), seen)
        if base.kind != "global" or solved is None:
            why = base.reasons if base.kind != "global" else ("the followers have no solution",)
            return replace(base, kind="none", reasons=why, details={}), None
        tied = refused_prices(self.oracle, self.x, self.y)
        if tied:
            return replace(base, kind="none", reasons=tied, details={}), None
        if self.oracle.G.size:
            return self._within_rows(base)
        reasons, says = list[str](), wording(self.oracle.F_sign)
        F = self.oracle.F(self.x, self.followers.lower(solved))
        if self.extent < HARDLY and shows_no_scale(
            F, self._along(self.oracle.domain_x.project(self.oracle.x0))
        ):
            self.extent = 1.0
        h, size, weak = self._hypergradient(self.x, self.y)
        flat, size = size <= UNDERFLOW, max(size, self._typical_slope())
        pg = norm(self.oracle.domain_x.projected_gradient(self.x, h))
        relative = pg / size if size > 0 else 0.0
        if relative > self.tol and (self.kinked or self._find_cuts()):
            return self._within_rows(base)
        # On a plateau a slope of rounding is all that there is, here and at the start; over a short
        # way, so is any slope beside a large constant in F.
        stationary = relative <= self.tol or pg * max(self.extent, 1.0) <= NOISE * abs(F)
        fall, place = self._probe(h, size, F)
        if not stationary and not weak:
            reasons.append(f"the hypergradient is {pg:.2e}, {relative:.0e} of its parts")
        refused, several = self._other_responses()
        reasons += refused
        if place is not None:
            reasons.append(f"not locally optimal: F(x, y(x)) {says.falls} by {fall:.2e} beside x")
        elif flat:
            place = self._beyond_plateau(F, reasons)
        notes = []
        if weak:
            notes.append(
                "constraints are weakly active: F(x, y(x)) has a kink here, probes lead "
                f"{says.uphill}"
            )
        if not self.complete:
            notes.append("there was no time to look around the point")
        details = {"hypergradient_relative": relative, "probe_decrease": max(fall, 0.0)}
        found = self._certificate(base, reasons, [*notes, *several], pg, details)
        return found, place if place is not None and len(reasons) == 1 else None

    def _within_rows(self, base: Certificate) -> tuple[Certificate, Vec | None]:
        """Optimality within the rows of the upper level, and within those that the lower rows imply
        where x lies on the edge of what followers can meet.
        """
        self._find_cuts()
        seen = self._rows_check()
        if seen is None:
            why = "the lower level could not be solved again at the returned x"
            return self._certificate(base, [why], [], math.nan, {}), None
        seen.run(self.tol, self.until)
        if seen.is_flat and not seen.failures:
            seen.place = self._beyond_plateau(seen.here.F, seen.failures)
        refused, several = self._other_responses()
        slope = seen.stationarity * seen.units.parts
        found = self._certificate(
            base, [*seen.failures, *refused], [*seen.notes, *several], slope, seen.details
        )
        found = replace(found, directional_check=seen.mismatch)
        return found, seen.place if len(seen.failures) + len(refused) == 1 else None

    def _rows_check(self) -> RowsCheck | None:
        known = kinds_with_cuts(kinds(self.oracle), len(self.cuts))
        return RowsCheck.at(self.oracle, self.x, self.y, self.rng, self._sample, known)

    def _find_cuts(self) -> bool:
        """Whether x lies on the edge of what followers can meet: rows from points without a
        response in the directions in which F falls.
        """
        while len(self.cuts) < EDGES and time.perf_counter() < self.until:
            check = self._rows_check()
            d = None if check is None else check.downhill()
            if check is None or d is None:
                break
            length = PROBE * check.units.extent
            x = self.oracle.domain_x.project(self.x + length * torch.from_numpy(d))
            cut = cut_at(self.oracle, x)
            if cut is None:
                break
            slope = norm(cut.slope(self.oracle, self.x))
            if abs(cut.value(self.oracle, self.x)) > ACTIVE * slope * check.units.extent:
                break
            self.cuts.append(cut)
        return bool(self.cuts)

    def _certificate(
        self,
        base: Certificate,
        failures: list[str],
        notes: list[str],
        slope: float,
        details: dict[str, Any],
    ) -> Certificate:
        """The certificate with all that was found."""
        reasons = failures or [
            "the followers are solved and first-order conditions of the upper level hold",
            *notes,
        ]
        if not failures and not self.convex:
            reasons.append("the lower level is not known to be convex: other responses may be")
        kind = "none" if failures else "local"
        return replace(
            base, kind=kind, hypergradient_norm=slope, reasons=tuple(reasons), details=details
        )

    def _other_responses(self) -> tuple[list[str], list[str]]:
        """What other responses to x refute, and what they qualify."""
        several = self._slopes_of_others()
        if several is None:
            return [], []
        says = wording(self.oracle.F_sign)
        if several[0] < 0:
            return [
                f"the best response is not unique, and F {says.falls} along others: this method "
                "does not choose among them as the leader would; `nlp` does"
            ], []
        if several[1] > 0:
            return [], [f"the best response is not unique: F is {says.worse} at others"]
        return [], ["the best response is not unique, and F does not change along others"]

    def _slopes_of_others(self) -> tuple[float, float] | None:
        """The least and the greatest slope of F along other responses to x; None where there are
        none, or that cannot be told.
        """
        told = self.convex and self.affine and self.oracle.domain_y.is_nearly_box
        if self.alone or not told:
            return None
        return along_others(self.oracle, self.x, self.y, np.random.default_rng(self.seed))

    def _beyond_plateau(self, F: float, failures: list[str]) -> Vec | None:
        """A point far away with a lower F, which is a failure of one on a plateau."""
        seen = Plateau(self.oracle, self.x, F, self.extent)
        seen.look(lambda x: self._along(x) if time.perf_counter() < self.until else None, self.rng)
        if seen.place is None or seen.lowest >= F - NOISE * abs(F):
            return None
        failures.append(
            "the hypergradient vanishes at x (a plateau), and F(x, y(x)) is "
            f"{wording(self.oracle.F_sign).better} at a distance of {norm(seen.place - self.x):.1e}"
        )
        return seen.place

    def _typical_slope(self) -> float:
        """What a hypergradient that is not small looks like: at the start, or, where that is the
        point itself, at a distance that it vanishes along.
        """
        domain, start = self.oracle.domain_x, self.oracle.x0
        if norm(domain.project(start) - self.x) > NEAR * self.extent:
            return self._slope(domain.project(start))
        d = torch.randn(self.x.numel(), generator=self.rng, dtype=torch.float64)
        return self._slope(domain.project(self.x + NEAR * self.extent * d / norm(d))) / NEAR

    def _along(self, x: Vec) -> float | None:
        """F(x, y(x)) at another point; None where no response meets the rows of the upper level."""
        found = self.followers.respond(self.followers.columns(x, self.y))
        y = self.y if found is None else self.followers.lower(found)
        off = self.oracle.G.violation(x, y).max() if self.oracle.G.size else 0.0
        return None if found is None or off > FEASIBLE else self.oracle.F(x, y)

    def _slope(self, x: Vec) -> float:
        """The length of the projected hypergradient at another point; 0 where it is not known."""
        found = self.followers.respond(self.followers.columns(x, self.y))
        if found is None:
            return 0.0
        h, _, _ = self._hypergradient(x, self.followers.lower(found))
        size = norm(self.oracle.domain_x.projected_gradient(x, h))
        return size if math.isfinite(size) else 0.0

    def _hypergradient(self, x: Vec, y: Vec) -> tuple[Vec, float, bool]:
        """dPhi/dx at (x, y), the size of its parts, whether a row is weakly active."""
        F_x, F_y = self.oracle.grad_F(x, y)
        (cross,), (along,), weak = self.adjoint.along(x, y, F_y.numpy()[None])
        return F_x - cross - along, norm(F_x) + norm(cross) + norm(along), weak

    def _sample(self, oracle: TorchOracle, x: Vec, y: Vec) -> Sample | None:
        """F and the rows of the upper level along the response to x, solved again, with their
        derivatives.
        """
        found = self.followers.respond(self.followers.columns(x, y))
        if found is None:
            return None
        y = self.followers.lower(found)
        F, F_x, F_y = oracle.value_grad_F(x, y)
        rows, C_x, C_y = derivatives(oracle.G, x, y)
        read = np.flatnonzero(C_y.numpy().any(axis=1))
        slopes = np.concatenate([F_y.numpy()[None], C_y.numpy()[read]])
        crosses, alongs, weak = self.adjoint.along(x, y, slopes)
        total = C_x.clone()
        for k, cross, along in zip(read.tolist(), crosses[1:], alongs[1:], strict=True):
            total[k] -= cross + along
        parts = norm(F_x) + norm(crosses[0]) + norm(alongs[0])
        own, heights = (torch.linalg.vector_norm(C, dim=1) for C in (C_x, C_y))
        made = Sample(
            x, y, F, F_x - crosses[0] - alongs[0], rows, total, own, norm(y) * heights, parts, 0.0,
            weak,
        )  # fmt: skip
        return with_cuts(oracle, made, self.cuts)

    def _probe(self, h: Vec, size: float, F: float) -> tuple[float, Vec | None]:
        """The largest fall of F(x, y(x)) around x, and where it was met."""
        domain, worst, place = self.oracle.domain_x, 0.0, None
        directions = [torch.randn(self.x.numel(), generator=self.rng, dtype=torch.float64)]
        directions = [d / norm(d) for d in directions]
        pg = domain.projected_gradient(self.x, h)
        if norm(pg) > 0:
            directions.append(pg / norm(pg))
        ways = [(PROBE, d) for d in directions]
        axes, between = axes_and_diagonals(self.x.numel(), self.y.numel() + self.oracle.g.size)
        ways += [(BESIDE, d) for d in (*between, *(axes if between else ()))]
        # A bound may hold a slope so large that all others are nothing beside it: F itself tells.
        start = F - self.oracle.F(self.oracle.x0, self.oracle.y0)
        clear = self.tol * max(abs(F), abs(start)) or math.inf
        for radius, d in ways:
            for sign in (-1.0, 1.0):
                if time.perf_counter() > self.until:
                    self.complete = False
                    return worst, place
                x = domain.project(self.x + sign * radius * self.extent * d)
                length = norm(x - self.x)
                there = self._along(x) if length > 0 else None
                if there is None:
                    continue
                fall = F - there
                least = 2 * self.tol * size * length + NOISE * max(abs(F), 1e-300)
                if fall > max(min(least, clear), worst):
                    worst, place = fall, x
        return worst, place
