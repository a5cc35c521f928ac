"""A compiled model for people who bring their own solver: NumPy vectors in, NumPy vectors out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.errors import BackendError, UsageError
from bilevelpy.expectations import environment
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.ir.expr import Expr, VarRef
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.absolute import shows_kinks
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.certificate.examine import on_support
from bilevelpy.numerics.certificate.resolve import Resolver
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.lower.halves import joined
from bilevelpy.numerics.lower.solve import LowerSolution
from bilevelpy.numerics.rows.resolver import RowsResolver

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.lowering.programs.constraints import ConstraintFunction

NO_SOLUTION = "the lower level has no finite solution at this x"
NOT_FOUND = "the lower solve from `y0` ended at no solution at this x"
# What may be left of the lower gradient at a solution (`Resolver.unsolved`).
SOLVED = 1e-6
# The same where a solve has reached its tolerance, which is one of steps.
STOOD = 1e-2
NO_GRADIENT = "no hypergradient follows from this lower solution"
# Steps to both sides of a solution, relative to y; a change of gradients between them that f_yy
# does not account for to a tenth is a jump, unless it is rounding beside the gradient at the start.
BESIDE, JUMP, ROUNDING = 1e-6, 0.1, 1e-12
Vector = np.ndarray[Any, np.dtype[np.float64]]


class Oracle:
    """The model as functions of ``x`` in R^n (upper variables) and ``y`` in R^m (lower ones).

    Both levels are minimisations here: a level that maximises has its sign turned. ``bounds_x`` and
    ``bounds_y`` are pairs of vectors; simplices and balls show there as the box around them.
    ``G`` and ``g`` are the rows of the upper and of the lower level. ``counts`` counts every
    evaluation.
    """

    def __init__(self, oracle: TorchOracle, structure: Callable[[], Structure]) -> None:
        self._oracle = oracle
        self._structure = structure
        self.G = Constraints(oracle.G, oracle.n, oracle.m)
        self.g = Constraints(oracle.g, oracle.n, oracle.m)
        self.n = oracle.n
        self.m = oracle.m
        self.x0: Vector = _out(oracle.x0)
        self.y0: Vector = _out(oracle.y0)
        self.bounds_x = (_out(oracle.domain_x.lower), _out(oracle.domain_x.upper))
        self.bounds_y = (_out(oracle.domain_y.lower), _out(oracle.domain_y.upper))

    def __repr__(self) -> str:
        return (
            f"<Oracle of {self._bound.program.name}: n = {self.n}, m = {self.m}, "
            f"{self.G.size} upper and {self.g.size} lower rows>"
        )

    @property
    def counts(self) -> dict[str, int]:
        """Evaluations so far, by kind."""
        return self._oracle.counts.as_dict()

    def F(self, x: Any, y: Any) -> float:
        """The upper objective."""
        return self._oracle.F(_in(x, self.n), _in(y, self.m))

    def f(self, x: Any, y: Any) -> float:
        """The lower objective."""
        return self._oracle.f(_in(x, self.n), _in(y, self.m))

    def grad_F(self, x: Any, y: Any) -> tuple[Vector, Vector]:
        """(dF/dx, dF/dy)."""
        by_x, by_y = self._oracle.grad_F(_in(x, self.n), _in(y, self.m))
        return _out(by_x), _out(by_y)

    def grad_f(self, x: Any, y: Any) -> Vector:
        """df/dy."""
        return _out(self._oracle.grad_f(_in(x, self.n), _in(y, self.m)))

    def pullback(self, x: Any, y: Any) -> Callable[[Any], tuple[Vector, Vector]]:
        """``v -> (f_yy v, f_xy v)``, built once at (x, y)."""
        product = self._oracle.pullback(_in(x, self.n), _in(y, self.m))

        def call(v: Any) -> tuple[Vector, Vector]:
            by_y, by_x = product(_in(v, self.m))
            return _out(by_y), _out(by_x)

        return call

    def hessian(self, x: Any, y: Any) -> Vector:
        """f_yy as a dense matrix."""
        return _out(self._oracle.hessian(_in(x, self.n), _in(y, self.m)))

    def response(self, x: Any) -> Vector:
        """The lower solution y(x), solved tightly from ``y0``.

        Raises
        ------
        BackendError
            Where there is none or none was found, where the lower level is a game or follows given
            steps, and where it has rows that only whole programs take.
        """
        point = _in(x, self.n)
        solver, start = self._solver(point)
        y = _found(solver, solver.solved(point, start)).y
        return _out(joined(y) if y.numel() > self.m else y)

    def hypergradient(self, x: Any) -> Vector:
        """The gradient of F(x, y(x)), with lower and adjoint problem solved to rounding level;
        raises as :meth:`response` does, and where y(x) is one solution of several or may sit on a
        kink.
        """
        point = _in(x, self.n)
        solver, start = self._solver(point)
        absent = self._absent()
        if absent:
            raise BackendError(
                f"{NO_GRADIENT}: `{absent}` does not occur in the lower objective, every value is "
                "a solution"
            )
        answer = solver.answer(point, start)
        lower = _found(solver, answer.lower if answer is not None else None)
        if answer is None or answer.gradient is None:
            raise BackendError(NO_SOLUTION)
        if self._kinked and lower.y.numel() == self.m and self._on_kink(point, lower):
            raise BackendError(f"{NO_GRADIENT}, which lies on a kink of the lower objective")
        return _out(answer.gradient)

    @cached_property
    def _kinked(self) -> bool:
        """Whether the text of the lower objective has kinks; analyses cost more than a solution."""
        root = getattr(self._oracle, "f_expr", None)
        return isinstance(root, Expr) and shows_kinks(root)

    def _absent(self) -> str | None:
        """A lower variable of models without rows that the lower objective does not read."""
        root = getattr(self._oracle, "f_expr", None)
        if self.g.size or not isinstance(root, Expr):
            return None
        read = {(n.level, n.name) for n in postorder([root]) if isinstance(n, VarRef)}
        every = ((v.name, u.name) for v in self._bound.program.lowers for u in v.variables)
        return next((name for level, name in every if (level, name) not in read), None)

    def _on_kink(self, x: torch.Tensor, lower: LowerSolution) -> bool:
        """Whether f has a kink at a solution: gradients to both sides, within the face, do not
        differ by what f_yy says.
        """
        rng = torch.Generator().manual_seed(0)
        v = lower.face.project(torch.randn(self.m, generator=rng, dtype=torch.float64))
        v = v * (BESIDE * (norm(lower.y) or 1.0) / (norm(v) or 1.0))
        o, face = self._oracle, lower.face
        before, behind = (face.project(o.grad_f(x, lower.y + s * v)) for s in (-1.0, 1.0))
        change = behind - before
        noise = ROUNDING * max(norm(o.grad_f(x, o.y0)), norm(before))
        expected = face.project(o.hvp(x, lower.y + v)(2.0 * v))
        return norm(change - expected) > max(noise, JUMP * norm(change))

    def unflatten(self, x: Any, y: Any) -> tuple[Mapping[str, Vector], Mapping[str, Any]]:
        """Upper variables by name, lower ones by follower and name."""
        vectors = _in(x, self.n), _in(y, self.m)
        return self._oracle.unflatten_x(vectors[0]), self._oracle.unflatten_y(vectors[1])

    def reports(self, x: Any, y: Any) -> dict[str, Vector]:
        """The values of the model's reports, by name."""
        upper, lower = self.unflatten(x, y)
        bound = self._bound
        run = Interpreter(bound.data, environment(upper, lower), bound.program.externs)
        return {n: np.asarray(run.value(r.value)) for n, r in bound.program.reports.items()}

    @property
    def _bound(self) -> BoundProgram:
        return (self._oracle.by_rows or self._oracle).bound

    def _solver(self, point: torch.Tensor) -> tuple[Resolver | RowsResolver, torch.Tensor]:
        """What solves the lower level and the adjoint tightly at a point, and from where: with
        halves in the place of variables whose absolute values have weights.
        """
        for level in self._bound.program.lowers:
            steps = any(fact.name == "steps" for fact in level.assumptions)
            if level.nash or steps:
                what = "follows given steps" if steps else "plays a Nash game"
                raise BackendError(
                    f"responses to x are minimisers of the lower objective here; `{level.name}` "
                    f"{what}"
                )
        if self.g.size:
            facts = self._structure()
            lower = facts.lower
            if not facts.is_known_convex or lower.form.value == "linear":
                fact = lower.form if facts.is_known_convex else facts.convexity
                raise BackendError(
                    "responses to x are solved here where a lower level with rows is convex and "
                    f"not linear; {fact.reason}"
                )
            if lower.constraints.value not in ("none", "bounds", "linear"):
                raise BackendError(
                    "responses to x are solved here where lower rows are affine in the lower "
                    f"variables; {lower.constraints.reason}"
                )
            if not lower.smooth.value:
                raise BackendError(
                    "responses to x are solved here with rows where the lower objective is "
                    f"smooth; {lower.smooth.reason}"
                )
            if lower.domains.value - {"free", "box", "simplex"}:
                raise BackendError(
                    "responses to x are solved here with rows over free, box and simplex variables "
                    f"only; {lower.domains.reason}"
                )
            return RowsResolver(self._oracle), self._oracle.y0
        rng = torch.Generator().manual_seed(0)
        oracle, start = on_support(self._oracle, point, self._oracle.y0, rng)
        return Resolver(oracle, point, start, rng), start


def _found(solver: Resolver | RowsResolver, lower: LowerSolution | None) -> LowerSolution:
    """The same, if it is a solution."""
    if lower is None:
        raise BackendError(NO_SOLUTION)
    if isinstance(solver, Resolver):
        # Newton's method stands still, too, where f has slope and no curvature.
        scale = max(solver.gradient_scale, solver.bend * (norm(lower.y) + ROUNDING))
        if solver.unsolved(lower) > SOLVED or lower.residual > STOOD * scale:
            raise BackendError(NOT_FOUND)
    return lower


class Constraints:
    """The rows of a level as one vector function ``c(x, y)`` in R^size, by calling it: entries are
    ``<= 0``, or ``== 0`` where ``equality`` is true.

    ``places`` says by name (``"fit.cap"``) which entries belong to a constraint; one with two
    comparisons has those of the first before those of the second.
    """

    def __init__(self, rows: ConstraintFunction, n: int, m: int) -> None:
        self._rows, self._n, self._m = rows, n, m
        self.size = rows.size
        self.equality = rows.equality.numpy().copy()
        self.places: dict[str, slice] = {}
        for r in rows.rows:
            name = f"{r.level}.{r.constraint.name}"
            first = self.places.get(name, slice(r.start, r.stop)).start
            self.places[name] = slice(first, r.stop)

    def __repr__(self) -> str:
        return f"<Constraints: {self.size} rows, {', '.join(self.places) or 'none'}>"

    def __call__(self, x: Any, y: Any) -> Vector:
        """c(x, y)."""
        return _out(self._rows.values(*self._point(x, y)))

    def jacobian(self, x: Any, y: Any) -> tuple[Vector, Vector]:
        """(dc/dx, dc/dy) as dense matrices (size, n) and (size, m)."""
        by_x, by_y = self._rows.jacobian(*self._point(x, y))
        return _out(by_x), _out(by_y)

    def vjp(self, x: Any, y: Any) -> Callable[[Any], tuple[Vector, Vector]]:
        """``u -> ((dc/dx)' u, (dc/dy)' u)``, built once at (x, y)."""
        if not self.size:
            return lambda u: (np.zeros(self._n), np.zeros(self._m))
        product = self._rows.vjp(*self._point(x, y))

        def call(u: Any) -> tuple[Vector, Vector]:
            by_x, by_y = product(_in(u, self.size))
            return _out(by_x), _out(by_y)

        return call

    def jvp(self, x: Any, y: Any) -> Callable[[Any, Any], Vector]:
        """``(dx, dy) -> dc/dx dx + dc/dy dy``, built once at (x, y)."""
        if not self.size:
            return lambda dx, dy: np.zeros(0)
        product = self._rows.jvp(*self._point(x, y))
        return lambda dx, dy: _out(product(_in(dx, self._n), _in(dy, self._m)))

    def _point(self, x: Any, y: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return _in(x, self._n), _in(y, self._m)


def _in(values: Any, size: int) -> torch.Tensor:
    """A vector of a caller's as a tensor of its own."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    try:
        vector = np.array(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise UsageError(f"expected a vector of length {size}, found {values!r:.80}") from None
    if vector.size != size or values is None:
        found = "None" if values is None else f"one of length {vector.size}"
        raise UsageError(f"expected a vector of length {size}, found {found}")
    return torch.from_numpy(vector)


def _out(tensor: torch.Tensor) -> Vector:
    """A tensor as an array of its own."""
    return tensor.detach().cpu().numpy().copy()
