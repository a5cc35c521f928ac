"""Lower levels that are quadratic in y: the response and its adjoint by one factor, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.lowering.domains.product import WEAK, Face, ProductSet, SimplexFace
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.lower.hypergradient import Adjoint
from bilevelpy.numerics.lower.response import Accuracy, Method, Point
from bilevelpy.numerics.lower.solve import LowerSolution
from bilevelpy.numerics.qp.working_set import Factor, Program, Solution, WorkingSet

if TYPE_CHECKING:
    from bilevelpy.lowering.hessians.assembled import MovingQuadratic
    from bilevelpy.lowering.hessians.expansion import Expanded

Vec = torch.Tensor

# Simplices times lower variables: beyond, their sums are no longer a small dense matrix.
SUMS = 1_000_000
# Lower variables from which a bound of a residual is cheaper than the residual.
BOUNDED = 300
# Residuals of the adjoint system, relative to its right-hand side, that a factor must reach.
SOLVED = 1e-9


def quadratic_lower(oracle: Any, other: Method) -> QuadraticLower | None:
    """The exact solver, where the oracle keeps f as a quadratic and its domain is a product of
    boxes and simplices; the ``other`` one takes over where H is singular.
    """
    if not is_quadratic(oracle):
        return None
    kept: Expanded | MovingQuadratic = oracle.kept_quadratic
    domain: ProductSet = oracle.domain_y
    return QuadraticLower(kept, _working_set(domain), other, np.ones(domain.dim, dtype=bool))


def is_quadratic(oracle: Any) -> bool:
    """Whether there is an exact solver."""
    domain: ProductSet = oracle.domain_y
    if getattr(oracle, "kept_quadratic", None) is None:
        return False
    if not {b.kind for b in domain.blocks} <= {"free", "box", "simplex"}:
        return False
    return sum(b.count for b in domain.simplices) * domain.dim <= SUMS


def _working_set(domain: ProductSet) -> WorkingSet:
    low, high = domain.lower.numpy().copy(), domain.upper.numpy().copy()
    for b in domain.simplices:
        high[b.start : b.stop] = np.inf  # the sum bounds them
    return WorkingSet(low, high, domain.sums())


@dataclass(slots=True)
class QuadraticLower:
    """With ``f = c + b'y + y'Hy / 2`` and the working set F::

        H_FF y_F = -(b_F + H_FB y_B),     H_FF u_F = (dF/dy)_F

    and the same bordered by the sums of simplices. The answer is exact to rounding at every x, so
    no accuracy is tied to anything. One gradient per solve.
    """

    kept: Expanded | MovingQuadratic
    working: WorkingSet
    other: Method
    _all: np.ndarray
    _known: tuple[Face, np.ndarray, int] | None = None
    _size: float = 0.0
    _last: tuple[Vec, LowerSolution] | None = None
    _program: tuple[Vec, Program, float] | None = None
    _started: bool = False
    # The last large factor and the size of its matrix, once it is used again; one whose bounds are
    # too wide for the response.
    _norm: tuple[Factor, float | None] | None = None
    _doubted: Factor | None = None

    def solve_lower(
        self, oracle: Oracle, x: Vec, y: Vec, accuracy: Accuracy, scale: float
    ) -> tuple[LowerSolution, float]:
        """The response, and the size of the parts that cancel in its residual."""
        oracle.counts.lower_solves += 1
        check = getattr(oracle, "check_deadline", None)
        if check is not None:
            check()
        last = self._last
        if last is not None and torch.equal(last[0], x):
            return last[1], self._size
        program, c = self._at(x)
        with np.errstate(over="ignore"):  # tried points far out: those are for the other method
            self._size = math.sqrt(program.b.dot(program.b))
        working = self.working
        if not self._started:
            working.start(y.numpy())
            self._started = True
        known = self._trusted(program, c)
        if known is not None:
            oracle.counts.f += 1
            self._last = (x, known)
            return known, self._size
        found = working.solve(program) if math.isfinite(self._size) else None
        if found is None:
            return self.other.solve_lower(oracle, x, y, accuracy, scale)
        oracle.counts.f += 1
        oracle.counts.grad_f += 1
        value = c + 0.5 * float(found.y.dot(found.gradient + program.b))
        rest = found.multipliers
        if working.bounded:
            np.minimum(np.maximum(found.y, working.low), working.high, out=found.y)
            rest = rest[found.side == 0]
        face = self._face(oracle.domain_y, found)
        residual = math.sqrt(rest.dot(rest))
        ys, gs = torch.from_numpy(found.y), torch.from_numpy(found.gradient)
        solution = LowerSolution(ys, value, gs, residual, face, 1, "reached")
        self._last = (x, solution)
        return solution, self._size

    def solve_adjoint(
        self, oracle: Oracle, point: Point, u0: Vec | None, accuracy: Accuracy
    ) -> Adjoint:
        """The adjoint on the face of a point, its residual by one product or a bound."""
        face = point.lower.face
        program, _ = self._at(point.x)
        d = point.gF_y.numpy()
        free = self._all if face.free is None else face.free.numpy()
        factor = self.working.factor(program, free)
        if factor is None:
            return self.other.solve_adjoint(oracle, point, u0, accuracy)
        u = factor.spread(factor.solve(d), len(d))
        residual, size = self._bound(program, factor, u), math.sqrt(d.dot(d))
        if not residual <= SOLVED * size:
            oracle.counts.hvp += 1
            r, d = factor.tangent(d - program.product(u)), factor.tangent(d)
            residual, size = math.sqrt(r.dot(r)), math.sqrt(d.dot(d))
        if not residual <= SOLVED * size:
            return self.other.solve_adjoint(oracle, point, u0, accuracy)
        found = torch.from_numpy(u)
        cross = oracle.cross(point.x, point.y)(found)
        return Adjoint(found, cross, residual / size if size else 0.0, 1)

    def _trusted(self, program: Program, c: float) -> LowerSolution | None:
        """The response without bounds by a large factor that has shown what it is worth: one solve,
        whose residual is bounded instead of computed.
        """
        working, known = self.working, self._norm
        if known is None or known[1] is None or working.bounded or working.sums is not None:
            return None
        factor = working.factor(program, self._all)
        if factor is not known[0] or factor is self._doubted:
            return None
        y = factor.solve(-program.b)
        residual = self._bound(program, factor, y)
        if not residual <= SOLVED * self._size:
            self._doubted = factor
            return None
        value = c + 0.5 * float(y.dot(program.b))
        ys, face = torch.from_numpy(y), Face(len(y), None)
        return LowerSolution(ys, value, torch.zeros_like(ys), residual, face, 1, "reached")

    def _bound(self, program: Program, factor: Factor, u: np.ndarray) -> float:
        """A bound of the residual that rounding leaves in a solve with a large matrix: 50 units of
        its size times that of the solution. Infinite where a product costs no more, for small
        matrices and at the first solve with a factor.
        """
        if len(u) < BOUNDED or factor.bordered is not None:
            return math.inf
        known = self._norm
        if known is None or known[0] is not factor:
            self._norm = (factor, None)
            return math.inf
        norm = known[1]
        if norm is None:
            # The norm of Frobenius bounds the largest eigenvalue, in one pass and without a copy.
            norm = float(np.linalg.norm(program.Q))
            if program.d is not None:
                norm += float(np.abs(program.d).max())
            self._norm = (factor, norm)
        return 50.0 * float(np.finfo(np.float64).eps) * norm * math.sqrt(u.dot(u))

    def carried(self) -> dict[str, Any]:
        """The working set and the last answer; factors are computed again."""
        return {
            "side": self.working.side,
            "started": self._started,
            "size": self._size,
            "norm": None if self._norm is None else self._norm[1],
            "last": self._last,
            "other": self.other,
        }

    def restore(self, known: Mapping[str, Any], oracle: Any) -> None:
        """The same working set."""
        side, old = known["side"], self.working.side
        if side.shape != old.shape or side.dtype != old.dtype:
            raise ValueError("the working set is of another size")
        self.working.side = side
        self._started, self._size = bool(known["started"]), float(known["size"])
        self._last, self._known, self._program, self._norm = known["last"], None, None, None
        factor = None
        if known["norm"] is not None:  # of a matrix that is the same at every x
            _, _, Q, _ = self.kept.program(oracle.x0)
            factor = self.working.factor(Program(Q, None, np.zeros(oracle.m)), self._all)
        if factor is not None:
            self._norm = (factor, float(known["norm"]))

    def columns(self, mixed: np.ndarray) -> np.ndarray | None:
        """``dy/dx = -H^-1 f_yx`` where H is constant and no bound binds; None where it is
        singular.
        """
        if self._last is None:  # the other solver has taken over
            return None
        factor = self.working.factor(self._at(self._last[0])[0], self._all)
        return None if factor is None else -factor.solve(mixed)

    def columns_on(self, point: Point, mixed: np.ndarray) -> np.ndarray | None:
        """The same at a point and on its face: rows of zeros for what is held."""
        face = point.lower.face
        free = self._all if face.free is None else face.free.numpy()
        factor = self.working.factor(self._at(point.x)[0], free)
        if factor is None:
            return None
        out = np.zeros_like(mixed)
        if len(factor.L):
            out[slice(None) if factor.where is None else factor.where] = -factor.solve(mixed)
        return out

    def stays(self, x: np.ndarray) -> bool:
        """Whether the response at x has the working set of the latest one."""
        _, slope, Q, d = self.kept.program(torch.from_numpy(x))
        return self.working.stays(Program(Q, d, slope))

    def _at(self, x: Vec) -> tuple[Program, float]:
        """The program at x. Equal matrices are the same arrays, so that their factors serve."""
        if self._program is None or not torch.equal(self._program[0], x):
            c, slope, Q, d = self.kept.program(x)
            old = None if self._program is None else self._program[1].d
            if d is not None and old is not None and np.array_equal(d, old):
                d = old
            self._program = (x, Program(Q, d, slope), c)
        return self._program[1:]

    def _face(self, domain: ProductSet, found: Solution) -> Face:
        """The face of a solution, as :meth:`ProductSet.face` has it."""
        side, weak = found.side, 0
        if self.working.bounded:
            slack = WEAK * float(np.maximum.reduce(np.abs(found.gradient), initial=0.0))
            flat = (np.abs(found.multipliers) <= slack) & (side != 0)
            weak = int(np.count_nonzero(flat & self.working.movable))
        known = self._known
        if (
            known is not None
            and known[2] == weak
            and (known[1] is side or not np.count_nonzero(known[1] != side))
        ):
            return known[0]
        free = side == 0
        simplices = []
        for b in domain.simplices:
            support = free[b.start : b.stop].reshape(b.count, b.size).astype(np.float64)
            members = np.maximum(np.add.reduce(support, axis=1, keepdims=True), 1.0)
            simplices.append(SimplexFace(b, torch.from_numpy(support), torch.from_numpy(members)))
        whole = np.count_nonzero(free) == len(free)
        face = Face(
            domain.dim, None if whole else torch.from_numpy(free), tuple(simplices), weak=weak
        )
        self._known = (face, side, weak)
        return face
