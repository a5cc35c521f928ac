"""The response y(x) and F(x, y(x)) at any x, each time with the lower level solved anew."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from bilevelpy.errors import BackendError, UsageError
from bilevelpy.ir.types import DomainKind
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.certificate.resolve import Resolver
from bilevelpy.numerics.lower.grouped import grouped_oracle
from bilevelpy.numerics.lower.halves import halves, is_split, joined, split_oracle
from bilevelpy.numerics.programs.follower import follower_program
from bilevelpy.reductions.columns import entry_names
from bilevelpy.reductions.refusal import Refused
from bilevelpy.reductions.rows import system

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.result import Result

Array = np.ndarray[Any, np.dtype[np.float64]]
# Projected gradients up to this share of the gradient at the start count as solved.
_STATIONARY, _TINY = 1e-4, 1e-9
# Violations of upper rows up to this share of one count as met.
_FEASIBLE = 1e-6


class Response(Protocol):
    """x -> (F, y): NaN where the lower level has no solution or a row of the leader is violated."""

    names: list[str]
    lower_names: list[str]
    bounds: tuple[Array, Array]
    start: Array
    integer: np.ndarray

    def __call__(self, x: Array) -> tuple[float, Array]:
        """The value and the response at x."""
        ...


class SmoothResponse:
    """Lower levels over domains with a projection, smooth but for weighted absolute values, by
    Newton's method from the last y.
    """

    def __init__(self, bound: BoundProgram) -> None:
        self.model = o = TorchOracle(bound)
        rng = torch.Generator().manual_seed(0)
        grouped = grouped_oracle(o)
        split = split_oracle(o, o.x0, rng) if grouped is None else None
        self.oracle: Oracle = grouped or split or o
        self.start = o.x0.numpy().copy()
        self.names = _upper_names(bound)
        self.lower_names = _lower_names(bound)
        self.bounds = (o.domain_x.lower.numpy().copy(), o.domain_x.upper.numpy().copy())
        self.integer = np.zeros(o.n, dtype=bool)
        self.first = o.y0 if split is None else halves(o.y0)
        self.solver = Resolver(self.oracle, o.x0, self.first, rng)
        self.last = self.first

    def __call__(self, x: Array) -> tuple[float, Array]:
        """F with the sign of the model, and y(x)."""
        point = torch.from_numpy(np.ascontiguousarray(x))
        for begin in (self.last, self.first):
            found = self.solver.respond(point, begin)
            size = float(torch.linalg.vector_norm(self.oracle.grad_f(point, begin)))
            small = _STATIONARY * max(size, float(torch.linalg.vector_norm(found.gradient)))
            if found.usable and math.isfinite(found.f) and found.residual <= small + _TINY:
                break
        else:
            # What is not solved is a gap in the picture, never a wrong point.
            return math.nan, np.full(self.model.m, math.nan)
        self.last = found.y
        y = joined(found.y) if is_split(self.oracle) else found.y
        return self.model.F_sign * self.model.F(point, y), y.detach().numpy().copy()


class RowResponse:
    """Small models in scalar rows: every follower by the solver that its rows need."""

    def __init__(self, bound: BoundProgram) -> None:
        self.system = s = system(bound)
        if any(level.nash for level in bound.program.lowers):
            raise UsageError("followers that play a Nash game are no single lower level to draw")
        columns = s.columns
        if (columns.owner < 0).any():
            raise UsageError("the leader reads shadow prices, which a picture does not follow")
        self.up, self.down = s.upper_columns, s.lower_columns
        self.names = [columns.names[j] for j in self.up]
        self.lower_names = [columns.names[j] for j in self.down]
        self.bounds = (columns.lower[self.up], columns.upper[self.up])
        self.integer = columns.integer[self.up].astype(bool)
        self.values = np.where(np.isfinite(columns.start), columns.start, 0.0)
        self.start = self.values[self.up]
        self.rng = np.random.default_rng(0)

    def __call__(self, x: Array) -> tuple[float, Array]:
        """F with the sign of the model, and y(x)."""
        v = self.values.copy()
        v[self.up] = x
        for k in range(len(self.system.followers)):
            program = follower_program(self.system, k, v)
            answer = program.solve(self.rng)
            if answer.values is None or answer.status not in ("optimal", "local"):
                return math.nan, np.full(len(self.down), math.nan)
            v[program.free] = answer.values[program.free]
        outside = self.system.upper_rows.violation(v)
        value = self.system.sign * float(self.system.objective.value(v)[0])
        return (math.nan if outside.max(initial=0.0) > _FEASIBLE else value), v[self.down]


def response(bound: BoundProgram) -> Response:
    """The response of a bound program, by whatever solves its lower level. A linear follower over a
    simplex has a projection, but Newton's method does not find its corners: it goes by rows.
    """
    rows = any(level.constraints for level in bound.program.levels)
    smooth: SmoothResponse | None = None
    if not rows:
        try:
            smooth = SmoothResponse(bound)
            # Beside the start, too, where the numbers of a model are as even as people write them.
            step = np.random.default_rng(0).normal(size=smooth.start.size)
            beside = np.clip(smooth.start + 0.1 * (1 + abs(smooth.start)) * step, *smooth.bounds)
            if all(np.isfinite(smooth(x)[1]).all() for x in (smooth.start, beside)):
                return smooth
        except BackendError:
            pass  # integers or domains without a projection: as rows
    try:
        return RowResponse(bound)
    except Refused as error:
        if smooth is not None:  # its start alone may have no solution
            return smooth
        raise UsageError(f"the lower level cannot be drawn: {error}") from error


def shares_of(bound: BoundProgram, moving: Array) -> Array:
    """The other shares of the simplex of the one entry that moves (none elsewhere)."""
    found = np.zeros(moving.size, dtype=bool)
    if int(moving.sum()) != 1:
        return found
    at, begin = int(np.flatnonzero(moving)[0]), 0
    for v in bound.program.upper.variables:
        sizes = [bound.data.sizes[a] for a in v.axes]
        count = math.prod(sizes)
        if begin <= at < begin + count and v.domain.kind is DomainKind.SIMPLEX:
            row = begin + (at - begin) // sizes[-1] * sizes[-1]
            found[row : row + sizes[-1]] = True
            found[at] = False
        begin += count
    return found


def flat_upper(bound: BoundProgram, result: Result) -> Array:
    """The upper variables of an answer as one vector, in the order of the program."""
    return _flat([result.upper[v.name] for v in bound.program.upper.variables])


def _flat(parts: list[np.ndarray]) -> Array:
    flat = [np.asarray(p, dtype=float).ravel() for p in parts]
    return np.concatenate(flat) if flat else np.zeros(0)


def _upper_names(bound: BoundProgram) -> list[str]:
    return [n for v in bound.program.upper.variables for n in entry_names(bound, v.name, v.axes)]


def _lower_names(bound: BoundProgram) -> list[str]:
    counts: Mapping[str, int] = _counts(bound)
    found: list[str] = []
    for level in bound.program.lowers:
        for v in level.variables:
            name = v.name if counts[v.name] == 1 else f"{level.name}.{v.name}"
            found += entry_names(bound, name, v.axes)
    return found


def _counts(bound: BoundProgram) -> dict[str, int]:
    counts: dict[str, int] = {}
    for level in bound.program.levels:
        for v in level.variables:
            counts[v.name] = counts.get(v.name, 0) + 1
    return counts
