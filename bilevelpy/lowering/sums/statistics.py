"""Sums of squares over data in files, by their sufficient statistics.

A sum over rows that is quadratic in the variables, ``q(z) = sum_i q_i(z)``, is known from its
value, gradient and second derivative at one point, however many rows there are:

    q(z) = c + g'(z - z0) + (z - z0)'H(z - z0) / 2.

One pass over the files adds up all three at 0. A second one evaluates the rows at the minimiser z0
of the sum, which the expansion is centred at (there g is 0 and nothing cancels), and at a random
point: where values or gradients differ from what the first pass says, the sums stay with the rows.
Afterwards evaluations, derivatives and certificates touch the files no more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bilevelpy.ir.expr import Einsum, Expr, VarRef
from bilevelpy.ir.mapped import is_mapped
from bilevelpy.ir.program import BoundProgram, Level, Param
from bilevelpy.ir.walk import level_roots, params, variables
from bilevelpy.lowering.programs.derive import derivatives
from bilevelpy.lowering.programs.differentiate import batched_gradients, gradient
from bilevelpy.lowering.programs.layout import Layout
from bilevelpy.lowering.programs.memory import BLOCK
from bilevelpy.lowering.programs.named import NamedPrograms, Summary
from bilevelpy.lowering.programs.straight import inner
from bilevelpy.lowering.sums.batches import Partition
from bilevelpy.lowering.sums.sampled import Sum, candidates
from bilevelpy.lowering.sums.sampling import MARK, batch_axis, is_sum, sample, sample_terms

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder
    from bilevelpy.ir.types import Axis
    from bilevelpy.lowering.programs.layout import Piece

Array = np.ndarray[Any, np.dtype[np.float64]]

# Variables of a sum up to which its second derivative is added up: that is worth some p / 8
# gradients, methods by batches take about a hundred.
LARGEST = 500
# Rows and statistics agree to this accuracy, relative to the parts that are added up.
FAITHFUL = 1e-9
# Columns of H that are multiplied at once.
COLUMNS = 64


class _OutOfTime(Exception):
    """The deadline has passed."""


@dataclass(slots=True)
class _Found:
    """What the levels have given so far, and until when there is time."""

    deadline: float
    arrays: dict[str, Array] = field(default_factory=dict)
    params: dict[str, Param] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    error: float = 0.0


def summarised(oracle: NamedPrograms, deadline: float = math.inf) -> Summary | None:
    """The program of an oracle with statistics in the place of the quadratic sums over rows of
    files; None where there are none, or where the clock (``time.perf_counter``) reaches the
    deadline before they are added up.
    """
    try:
        return _summary(oracle, _Found(deadline))
    except _OutOfTime:
        return None


def _summary(oracle: NamedPrograms, found: _Found) -> Summary | None:
    program, data = oracle.bound.program, oracle.bound.data
    below = _axes(program.lowers)
    upper = _short(oracle, program.upper, below | _axes([program.upper]), found)
    lowers = tuple(_short(oracle, level, below, found) for level in program.lowers)
    if not found.arrays:
        return None
    short = replace(program, upper=upper, lowers=lowers, params={**program.params, **found.params})
    used = params([root for level in short.levels for root in level_roots(level)])
    kept = {n: a for n, a in data.arrays.items() if n in used or not is_mapped(a)}
    bound = BoundProgram(short, replace(data, arrays={**kept, **found.arrays}))
    numbers = sum(a.size for a in found.arrays.values())
    return Summary(bound, numbers, tuple(sorted(found.names)), found.error)


def _axes(levels: Sequence[Level]) -> frozenset[Axis]:
    return frozenset(a for level in levels for v in level.variables for a in v.axes)


def _short(oracle: NamedPrograms, level: Level, own: frozenset[Axis], found: _Found) -> Level:
    """A level with statistics in its objective."""
    if level.family:
        return level
    builder, data = oracle.bound.program.builder, oracle.bound.data
    free, sums = sample_terms(builder, level.objective, candidates(oracle, level.objective, own))
    for axis, terms in sums.items():
        squares: dict[tuple[Expr, ...], list[tuple[Expr, Expr]]] = {}
        for term in terms:
            factors, core = _factored(builder, term, axis)
            in_files = any(is_mapped(data.arrays.get(n)) for n in params(core))
            if in_files and _is_quadratic(oracle, core, axis):
                squares.setdefault(factors, []).append((term, core))
            else:
                free.append(term)
        for factors, pairs in squares.items():
            short = _statistics(oracle, axis, [core for _, core in pairs], found)
            if short is None:
                free += [term for term, _ in pairs]
            else:
                free.append(builder.mul(*factors, short))
    return replace(level, objective=builder.add(free))


def _factored(builder: Builder, term: Expr, axis: Axis) -> tuple[tuple[Expr, ...], Expr]:
    """A sum over ``axis`` without the factors in front of it that read variables, and those."""
    if not isinstance(term, Einsum) or term.contracts:
        return (), term
    moving = [o for o in term.operands if not builder.is_data(o)]
    sums = [o for o in moving if is_sum(builder, o, axis)]
    if len(moving) < 2 or len(sums) != 1:
        return (), term
    factors = tuple(o for o in moving if o is not sums[0])
    return factors, builder.mul(*(o for o in term.operands if o not in factors))


def _is_quadratic(oracle: NamedPrograms, term: Expr, axis: Axis) -> bool:
    """Whether the second derivative of a sum over ``axis`` is made of data alone."""
    builder = oracle.bound.program.builder
    value = sample(builder, [term], axis, batch_axis(axis)).value
    zs = _occurring(value, oracle)
    first = derivatives(builder, value, [z for z, _ in zs])
    if first is None:
        return False
    along = [builder.var("along", f"{z.level}.{z.name}", z.axes) for z, _ in zs]
    slope = builder.add([inner(builder, g, v) for g, v in zip(first, along, strict=True)])
    second = derivatives(builder, slope, [z for z, _ in zs])
    if second is None:
        return False
    return all(level == "along" for level, _ in variables(second))


def _occurring(value: Expr, oracle: NamedPrograms) -> list[tuple[VarRef, Piece]]:
    """The variables in an expression, with their places."""
    used = variables(value)
    pieces = (*oracle.upper.pieces, *oracle.lower.pieces)
    return [
        (variable, piece)
        for variable, piece in zip(oracle.program_variables, pieces, strict=True)
        if (variable.level, variable.name) in used
    ]


@dataclass(frozen=True, slots=True)
class _Expansion:
    """``c + g'(z - at) + (z - at)'H(z - at) / 2``."""

    at: Array
    c: float
    g: Array
    H: Array

    def difference(self, point: Array, seen: tuple[float, Array]) -> float:
        """How far value and gradient of the rows at a point are from this, relative to its parts,
        for one that was expanded at 0.
        """
        Hz = self.H @ point
        linear, square = float(self.g @ point), float(point @ Hz)
        value = abs(self.c + linear + 0.5 * square - seen[0])
        slope = float(np.linalg.norm(self.g + Hz - seen[1]))
        parts = abs(self.c) + abs(linear) + abs(square)
        norms = float(np.linalg.norm(self.g) + np.linalg.norm(Hz))
        return max(value / (parts or 1.0), slope / (norms or 1.0))


def _statistics(oracle: NamedPrograms, axis: Axis, terms: list[Expr], found: _Found) -> Expr | None:
    """The sum of ``terms`` over the rows as an expression of its statistics."""
    builder, arrays = oracle.bound.program.builder, oracle.bound.data.arrays
    zs = _occurring(builder.add(terms), oracle)
    rows = _Rows(Sum(oracle, axis, terms), oracle, [piece for _, piece in zs], found.deadline)
    if rows.size > LARGEST or 4 * rows.size**2 > rows.entries:
        return None
    first = rows.expanded()
    center: Array = np.linalg.lstsq(first.H, -first.g, rcond=1e-12)[0].astype(np.float64)
    width = float(np.linalg.norm(center)) / max(1, center.size) ** 0.5 or 1.0
    points = [center, center + width * np.random.default_rng(0).standard_normal(rows.size)]
    seen = rows.evaluated(points)
    error = max(first.difference(p, s) for p, s in zip(points, seen, strict=True))
    if not error <= FAITHFUL:
        return None
    found.error = max(found.error, error)
    found.names |= {n for n in params(terms) if is_mapped(arrays.get(n))}
    return _expression(builder, zs, found, _Expansion(center, *seen[0], first.H))


def _expression(
    builder: Builder, zs: list[tuple[VarRef, Piece]], found: _Found, known: _Expansion
) -> Expr:
    """An expansion as an expression, its numbers as params of the program."""
    number = len(found.params)

    def param(name: str, axes: tuple[Axis, ...], array: Any) -> Expr:
        key = f"{name}{MARK}sum{number}"
        found.params[key] = Param(key, axes)
        found.arrays[key] = np.array(array, dtype=np.float64, order="C")
        return builder.param(key, axes)

    terms = [param("value", (), known.c)]
    ends = np.cumsum([0, *(prod(piece.shape) for _, piece in zs)])
    cut = [slice(int(low), int(high)) for low, high in pairwise(ends)]
    away: list[Expr] = []
    for (z, piece), own in zip(zs, cut, strict=True):
        name = f"{z.level}.{z.name}"
        away.append(builder.sub(z, param(f"at.{name}", z.axes, known.at[own].reshape(piece.shape))))
        slope = param(f"slope.{name}", z.axes, known.g[own].reshape(piece.shape))
        terms.append(inner(builder, slope, away[-1]))
    for i, (a, first) in enumerate(zs):
        for j, (b, second) in enumerate(zs):
            block = known.H[cut[i], cut[j]]
            if not block.any():
                continue
            name = f"H.{a.level}.{a.name}.{b.level}.{b.name}"
            H = param(name, (*a.axes, *b.axes), block.reshape((*first.shape, *second.shape)))
            labels = tuple(range(a.rank + b.rank))
            factors = [(H, labels), (away[i], labels[: a.rank]), (away[j], labels[a.rank :])]
            square = builder.product(factors, (), dict(enumerate(H.axes)))
            terms.append(builder.scale(0.5, square))
    return builder.add(terms)


class _Rows:
    """A sum over rows as a function of the variables in it, block by block."""

    def __init__(
        self, total: Sum, oracle: NamedPrograms, pieces: list[Piece], deadline: float
    ) -> None:
        self._sum, self._deadline = total, deadline
        everything = (*oracle.upper.pieces, *oracle.lower.pieces)
        self._fixed = [torch.zeros(p.shape, dtype=oracle.dtype) for p in everything]
        self._places = [k for k, p in enumerate(everything) if p in pieces]
        ends = np.cumsum([0, *(prod(p.shape) for p in pieces)]).tolist()
        cut = zip(pieces, pairwise(ends), strict=True)
        self._layout = Layout(
            tuple(replace(p, start=low, stop=high) for p, (low, high) in cut), ends[-1]
        )
        self.size = self._layout.dim
        self.entries = total.size * total.source.row_bytes // 8
        self._cut = Partition(total.size, max(1, BLOCK // total.source.row_bytes))

    def _blocks(self, points: Sequence[Tensor]) -> Iterator[tuple[int, list[Tensor], Tensor]]:
        """(number of the point, leaves, value) for every block and point."""
        for j in range(len(self._cut)):
            function = self._sum.at(self._cut.rows(j))
            if time.perf_counter() > self._deadline:
                raise _OutOfTime
            for k, point in enumerate(points):
                leaves, values = self._layout.leaves(point), list(self._fixed)
                for place, leaf in zip(self._places, leaves, strict=True):
                    values[place] = leaf
                yield k, leaves, function(*values)

    def expanded(self) -> _Expansion:
        """Value, gradient and second derivative at 0, in one pass."""
        layout, zero = self._layout, torch.zeros(self.size, dtype=torch.float64)
        c, g, H = 0.0, zero, torch.zeros(self.size, self.size, dtype=torch.float64)
        units = torch.eye(self.size, dtype=torch.float64).split(COLUMNS)
        for _, leaves, value in self._blocks([zero]):
            first = gradient(value, leaves, create=True)
            c += value.item()
            g = g + layout.join([None if p is None else p.detach() for p in first], zero)
            parts = [batched_gradients(first, leaves, layout.split_rows(u)) for u in units]
            H += torch.cat([layout.join_rows(p, u) for p, u in zip(parts, units, strict=True)])
        return _Expansion(zero.numpy(), c, g.numpy(), (0.5 * (H + H.T)).numpy())

    def evaluated(self, points: Sequence[Array]) -> list[tuple[float, Array]]:
        """Value and gradient at points, in one pass for all."""
        at = [torch.from_numpy(point) for point in points]
        values, slopes = [0.0] * len(at), [torch.zeros_like(p) for p in at]
        for k, leaves, value in self._blocks(at):
            values[k] += value.item()
            slopes[k] += self._layout.join(gradient(value, leaves), at[k])
        return [(value, slope.numpy()) for value, slope in zip(values, slopes, strict=True)]
