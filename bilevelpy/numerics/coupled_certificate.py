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

from bilevelpy.numerics.certificate_case import tolerance
from bilevelpy.numerics.conic_meeting import derivatives
from bilevelpy.numerics.conic_upper import RowsCheck
from bilevelpy.numerics.constrained_certificate import Claim, certify_rows, follower_program
from bilevelpy.numerics.constrained_lower import RowsResolver
from bilevelpy.numerics.fitted_adjoint import ACTIVE, FittedAdjoint
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.linearised import confirmed_by_tangent
from bilevelpy.numerics.other_responses import Directions
from bilevelpy.numerics.sequential import Sample
from bilevelpy.options import SolveOptions
from bilevelpy.patience import check
from bilevelpy.reductions.refusal import Refused
from bilevelpy.reductions.rows import System, system
from bilevelpy.result import Certificate

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.lowering.oracle import TorchOracle
    from bilevelpy.numerics.smooth_program import Program

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

# A point whose slope proves its value to this fraction, and that keeps its rows so well, is a
# response.
CONFIRMED, EXACT = 1e-9, 1e-9
# F changes along other responses where its slope there is more than this part of its own.
SLOPE = 1e-6
# Radius of probes.
PROBE = 1e-3
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
        rows = system(oracle.bound, objective=False)
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
        self.adjoint = FittedAdjoint(oracle, self.affine)
        # What is declared is looked at as well.
        self.alone = structure is not None and structure.convexity.value == "strongly convex"
        self.newton = None
        if self.affine and self.convex and bool(rows.lower_objectives.trees):
            self.newton = RowsResolver(oracle)
        self.complete = True
        self.extent = max(norm(x - oracle.x0), 0.1 * norm(x)) or 1.0

    def run(self) -> tuple[Certificate, Vec | None]:
        """All checks, the cheap ones first."""
        v = self._columns(self.x, self.y)
        solved = self._respond(v)
        known = None
        if solved is not None and self.convex:  # a local solution of a convex program is global
            known = {k: float(f) for k, f in enumerate(self.rows.lower_objectives.value(solved))}
        claim = Claim(True, math.nan, 0.0)
        base = certify_rows(self.rows, v, claim, solved=known, seed=self.seed, convex=self.convex)
        if base.kind != "global" or solved is None:
            why = base.reasons if base.kind != "global" else ("the followers have no solution",)
            return replace(base, kind="none", reasons=why, details={}), None
        if self.oracle.G.size:
            return self._within_rows(base)
        reasons: list[str] = []
        h, size, weak = self._hypergradient(self.x, self.y)
        size = max(size, self._elsewhere())
        pg = norm(self.oracle.domain_x.projected_gradient(self.x, h))
        relative = pg / size if size > 0 else 0.0
        F = self.oracle.F(self.x, self._lower(solved))
        # On a plateau a slope of rounding is all that there is, here and at the start.
        stationary = relative <= self.tol or pg * self.extent <= NOISE * abs(F)
        fall, place = self._probe(h, size, F)
        if not stationary and not weak:
            reasons.append(f"the hypergradient is {pg:.2e}, {relative:.0e} of its parts")
        refused, several = self._alone()
        reasons += refused
        if place is not None:
            reasons.append(f"not locally optimal: F(x, y(x)) falls by {fall:.2e} beside x")
        notes = []
        if weak:
            notes.append(
                "constraints are weakly active: F(x, y(x)) has a kink here, probes lead uphill"
            )
        if not self.complete:
            notes.append("there was no time to look around the point")
        details = {"hypergradient_relative": relative, "probe_decrease": max(fall, 0.0)}
        found = self._told(base, reasons, [*notes, *several], pg, details)
        return found, place if place is not None and len(reasons) == 1 else None

    def _within_rows(self, base: Certificate) -> tuple[Certificate, Vec | None]:
        """Optimality within the rows of the upper level."""
        seen = RowsCheck.at(self.oracle, self.x, self.y, self.rng, self._sample)
        if seen is None:
            why = "the lower level could not be solved again at the returned x"
            return self._told(base, [why], [], math.nan, {}), None
        seen.run(self.tol, self.until)
        refused, several = self._alone()
        slope = seen.stationarity * seen.units.parts
        found = self._told(
            base, [*seen.failures, *refused], [*seen.notes, *several], slope, seen.details
        )
        found = replace(found, directional_check=seen.mismatch)
        return found, seen.place if len(seen.failures) + len(refused) == 1 else None

    def _told(
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

    def _alone(self) -> tuple[list[str], list[str]]:
        """What other responses to x refute, and what they qualify."""
        several = None if self.alone else self._several()
        if several is None:
            return [], []
        if several[0] < 0:
            return [
                "the best response is not unique, and F falls along others: this method does not "
                "choose among them as the leader would; `nlp` does"
            ], []
        if several[1] > 0:
            return [], ["the best response is not unique: F is higher at others"]
        return [], ["the best response is not unique, and F does not change along others"]

    def _several(self) -> tuple[float, float] | None:
        """The least and the greatest slope of F along other responses to x, as a part of its slope
        by y (0 where they are rounding); None where the response is the only one, or the follower
        is not one of those whose other responses can be told.
        """
        if not (self.convex and self.affine and self.oracle.domain_y.is_nearly_box):
            return None
        o, x, y = self.oracle, self.x, self.y
        close = ACTIVE * max(norm(y), 1e-3)
        values, _, A = (part.numpy() for part in derivatives(o.g, x, y))
        equal, length = o.g.equality.numpy(), np.linalg.norm(A, axis=1)
        tight = ~equal & (values > -close * np.maximum(length, 1e-300))
        floor, roof = o.domain_y.lower.numpy(), o.domain_y.upper.numpy()
        F_y = o.grad_F(x, y)[1].numpy()
        directions = Directions.at(
            o.hessian(x, y).numpy(),
            o.grad_f(x, y).numpy(),
            np.concatenate([A[equal], o.domain_y.sums()]),
            A[tight],
            y.numpy() <= floor + close,
            y.numpy() >= roof - close,
        )
        if directions.is_alone(np.random.default_rng(self.seed)):
            return None
        low, high = _slopes(directions, F_y)
        for row in derivatives(o.G, x, y)[2].numpy():
            if row.any() and _slopes(directions, row) != (0.0, 0.0):
                low, high = -math.inf, math.inf  # who chooses within the rows may choose F, too
        return low, high

    def _columns(self, x: Vec, y: Vec) -> Array:
        """The point as columns of the scalar rows."""
        upper, lower = self.oracle.unflatten_x(x), self.oracle.unflatten_y(y)
        v = np.zeros(self.rows.columns.count)
        for block in self.rows.columns.blocks:
            part = (upper if block.level == "upper" else lower[block.level])[block.name]
            v[block.offset : block.offset + block.size] = np.asarray(part).ravel()
        return v

    def _respond(self, v: Array) -> Array | None:
        """The columns with every follower solved again."""
        new, newton = v.copy(), self._by_newton(v)
        for k in range(len(self.rows.followers)):
            check()
            program = follower_program(self.rows, k, new)
            if self.convex and _is_response(program, new):
                continue
            if newton is not None:
                at = new.copy()
                at[program.free] = newton[program.free]
                if _is_response(program, at):
                    new = at
                    continue
            answer = program.solve(
                np.random.default_rng(self.seed), self.until, convex=self.convex, sharp=True
            )
            if answer.values is None:
                return None
            new[program.free] = answer.values[program.free]
        return new

    def _by_newton(self, v: Array) -> Array | None:
        """The columns with the responses of Newton's method, which nothing is claimed of; None
        where followers are quadratic, whose own solver is as accurate.
        """
        if self.newton is None:
            return None
        upper: dict[str, Any] = {}
        for block in self.rows.columns.blocks:
            if block.level == "upper":
                upper[block.name] = v[block.offset : block.offset + block.size].reshape(block.shape)
        x = self.oracle.flatten_x(upper)
        lower = self.newton.solved(x, self._lower(v))
        return None if lower is None else self._columns(x, lower.y)

    def _elsewhere(self) -> float:
        """What a hypergradient that is not small looks like: at the start."""
        x = self.oracle.domain_x.project(self.oracle.x0)
        found = self._respond(self._columns(x, self.y))
        if found is None:
            return 0.0
        h, _, _ = self._hypergradient(x, self._lower(found))
        size = norm(self.oracle.domain_x.projected_gradient(x, h))
        return size if math.isfinite(size) else 0.0

    def _lower(self, v: Array) -> Vec:
        """The lower variables of columns."""
        named: dict[str, dict[str, Any]] = {}
        for block in self.rows.columns.blocks:
            if block.level != "upper":
                part = v[block.offset : block.offset + block.size].reshape(block.shape)
                named.setdefault(block.level, {})[block.name] = part
        return self.oracle.flatten_y(named)

    def _hypergradient(self, x: Vec, y: Vec) -> tuple[Vec, float, bool]:
        """dPhi/dx at (x, y), the size of its parts, whether a row is weakly active."""
        F_x, F_y = self.oracle.grad_F(x, y)
        (cross,), (along,), weak = self.adjoint.along(x, y, F_y.numpy()[None])
        return F_x - cross - along, norm(F_x) + norm(cross) + norm(along), weak

    def _sample(self, oracle: TorchOracle, x: Vec, y: Vec) -> Sample | None:
        """F and the rows of the upper level along the response to x, solved again, with their
        derivatives.
        """
        found = self._respond(self._columns(x, y))
        if found is None:
            return None
        y = self._lower(found)
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
        return Sample(
            x, y, F, F_x - crosses[0] - alongs[0], rows, total, own, norm(y) * heights, parts, 0.0,
            weak,
        )  # fmt: skip

    def _probe(self, h: Vec, size: float, F: float) -> tuple[float, Vec | None]:
        """The largest fall of F(x, y(x)) around x, and where it was met."""
        domain, worst, place = self.oracle.domain_x, 0.0, None
        directions = [torch.randn(self.x.numel(), generator=self.rng, dtype=torch.float64)]
        directions = [d / norm(d) for d in directions]
        pg = domain.projected_gradient(self.x, h)
        if norm(pg) > 0:
            directions.append(pg / norm(pg))
        for d in directions:
            for sign in (-1.0, 1.0):
                if time.perf_counter() > self.until:
                    self.complete = False
                    return worst, place
                x = domain.project(self.x + sign * PROBE * self.extent * d)
                length = norm(x - self.x)
                found = self._respond(self._columns(x, self.y)) if length > 0 else None
                if found is None:
                    continue
                fall = F - self.oracle.F(x, self._lower(found))
                if (
                    fall > 2 * self.tol * size * length + NOISE * max(abs(F), 1e-300)
                    and fall > worst
                ):
                    worst, place = fall, x
        return worst, place


def _slopes(directions: Directions, slope: Array) -> tuple[float, float]:
    """The least and the greatest slope of a function along directions, 0 where it is rounding."""
    found, size = directions.range(slope), SLOPE * float(np.abs(slope).sum())
    low, high = (-math.inf, math.inf) if found is None else found
    return (low if low < -size else 0.0), (high if high > size else 0.0)


def _is_response(program: Program, v: Array) -> bool:
    """Whether a point of a convex follower is its response, by its rows and its slope."""
    if program.violation(v) > EXACT * max(1.0, float(np.abs(v).max(initial=0.0))):
        return False
    return confirmed_by_tangent(program, v, CONFIRMED) is not None
