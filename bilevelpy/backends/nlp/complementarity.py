"""Local solutions of the followers' conditions with relaxed complementarity, from many starts.

With ``s`` the slack and ``lam`` the multiplier of every pair (Scholtes 2001)::

    min F   s.t.   G <= 0,   stationarity,   0 <= s,   0 <= lam,   lam s <= eps,   eps -> 0

Each program is solved by an interior-point method from the solution of the one before. The last
point decides which side of every pair is zero; with that pinned the program is smooth, and its
solution meets the conditions exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.backends.nlp.branches import Branch, extension
from bilevelpy.numerics.programs.interior_point import InteriorPoint, Local
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rewriting.intervals import column_ranges, propagated
from bilevelpy.reductions.rows import Functions, Rows, join_rows
from bilevelpy.reductions.tables import free_rows
from bilevelpy.reductions.trees import tree_of
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Products of multiplier and slack, from one program to the next.
WIDE = (1e-1, 1e-2, 1e-4, 1e-6, 1e-8)
STEEP = (1e-1, 1e-3, 1e-6, 1e-8)
# Near a point of the conditions.
NEAR = (1e-6, 1e-8)
EXACT = WIDE[-1]
# Entries beyond this are the trace of an unbounded relaxation.
HUGE = 1e8
# What a pinned point may lose in F against the relaxed one (relative) before it is not the same.
SAME = 1e-3


class Complementarity:
    """One KKT program, compiled, with rows from better responses.

    Parameters
    ----------
    program
        Conditions of the followers with their pairs.
    branches
        Responses that the followers must not do worse than.
    """

    def __init__(self, program: KKT, branches: Sequence[Branch] = ()) -> None:
        self.program = program
        self.width = program.columns.count
        self.further = extension(program.system, branches, self.width)
        total = self.width + self.further.start.size
        parts = [program.rows.widened(total), product_rows(program).widened(total)]
        self.rows = join_rows([*parts, self.further.rows], total)
        self.own = program.rows.count
        self.pairs = len(program.pairs)
        self.comparing = ~self.further.rows.is_equation
        self.run = InteriorPoint(program.objective.widened(total), self.rows)
        low, high = ranges(program)
        self.lower = np.concatenate([low, self.further.lower])
        self.upper = np.concatenate([high, self.further.upper])

    @property
    def compiled(self) -> float:
        """Seconds that compiling the program has taken."""
        return self.run.compiled

    @property
    def refused(self) -> bool:
        """Whether there was no time to compile it."""
        return self.run.refused

    def settled(self, start: Array, seconds: float = 60.0) -> Array | None:
        """A point of the followers' conditions with the leader's part of ``start``; rows of the
        leader may be broken there.
        """
        chosen = self.program.system.upper_columns
        lower, upper = self.lower.copy(), self.upper.copy()
        below = self.program.system.lower_columns
        lower[below] = self.program.columns.lower[below]
        upper[below] = self.program.columns.upper[below]
        lower[chosen] = upper[chosen] = np.clip(start[chosen], lower[chosen], upper[chosen])
        high = self.rows.upper.copy()
        high[self.own : self.own + self.pairs] = NEAR[0]
        low = self.rows.lower.copy()
        leaders = [r for r, kind in enumerate(self.program.kinds) if kind == "upper"]
        low[leaders], high[leaders] = -math.inf, math.inf
        at = np.concatenate([start, self.further.start])
        found = self.run.solve(at, lower, upper, low, high, seconds=seconds)
        if found is None or not found.is_feasible:
            return None
        return found.values[: self.width]

    def solve(
        self, start: Array, seconds: float = 60.0, products: tuple[float, ...] = WIDE
    ) -> Local | None:
        """The relaxed programs with these ``products`` one after another, then the pinned one; None
        without a point.

        The point has the columns of the program.
        """
        found: Local | None = None
        at = np.concatenate([start, self.further.start])
        failed, end = 0, time.perf_counter() + seconds
        # Near a point of the conditions its own piece is the first to be searched.
        piece = self.pinned(at, seconds) if products is NEAR else None
        at = at if piece is None else piece.values
        for product in products:
            high = self.rows.upper.copy()
            high[self.own : self.own + self.pairs] = product
            # Rows of branches that the solution lies on have no interior either.
            high[self.own + self.pairs :] += np.where(self.comparing, product, 0.0)
            left = end - time.perf_counter()
            if left < 0.0 and found is not None:
                break
            found = self.run.solve(at, self.lower, self.upper, self.rows.lower, high, seconds=left)
            if found is None or np.abs(found.values).max(initial=0.0) > HUGE:
                found = None
                break
            failed = 0 if found.is_feasible else failed + 1
            if failed == 2:
                break
            if not failed:
                at = found.values
        if found is not None and not failed:
            pinned = self.pinned(found.values, end - time.perf_counter())
            limit = found.objective + SAME * max(1.0, abs(found.objective))
            found = pinned if pinned is not None and pinned.objective <= limit else found
        else:
            found = piece
        if found is None:
            return None
        if piece is not None and piece.objective < found.objective:
            found = piece
        return replace(found, values=found.values[: self.width])

    def answers(self, full: Array, seconds: float = 60.0) -> Array | None:
        """The point of least F among those of the conditions with the leader's part of ``full``;
        None where no start from there leads to one.
        """
        chosen = self.program.system.upper_columns
        lower, upper = self.lower.copy(), self.upper.copy()
        lower[chosen] = upper[chosen] = full[chosen]
        at = np.concatenate([full, self.further.start])
        end = time.perf_counter() + seconds
        for product in WIDE:
            high = self.rows.upper.copy()
            high[self.own : self.own + self.pairs] = product
            left = end - time.perf_counter()
            found = self.run.solve(at, lower, upper, self.rows.lower, high, seconds=left)
            if left < 0.0 or found is None or not found.is_feasible:
                return None
            at = found.values
        last = self.pinned(at, end - time.perf_counter(), chosen)
        return None if last is None else last.values[: self.width]

    def pinned(self, v: Array, seconds: float = 60.0, fixed: Array | None = None) -> Local | None:
        """The solution with the smaller side of every pair at zero, and the columns ``fixed`` as
        they are.
        """
        program = self.program
        lower, upper = self.lower.copy(), self.upper.copy()
        if fixed is not None:
            lower[fixed] = upper[fixed] = v[fixed]
        low, high = self.rows.lower.copy(), self.rows.upper.copy()
        high[self.own : self.own + self.pairs] = math.inf
        high[self.own + self.pairs :] += np.where(self.comparing, EXACT, 0.0)
        try:
            value = program.rows.functions.value(v[: self.width])
        except (ValueError, ArithmeticError):  # a function or its derivative has no value there
            return None
        for pair in program.pairs:
            ends = (program.columns.lower, program.columns.upper)
            here = v[pair.column] if pair.row is None else value[pair.row]
            place = pair.column if pair.row is None else pair.row
            assert place is not None
            if pair.row is not None:
                ends = (program.rows.lower, program.rows.upper)
            end = ends[1][place] if pair.side == "upper" else ends[0][place]
            if v[pair.multiplier] <= abs(end - here):
                upper[pair.multiplier] = 0.0
            elif pair.row is None:
                lower[place] = upper[place] = end
            else:
                low[place] = high[place] = end
        found = self.run.solve(v, lower, upper, low, high, seconds=seconds)
        return found if found is not None and found.is_feasible else None

    def random(self, rng: np.random.Generator) -> Array:
        """A start: anywhere between finite bounds, or at one of them (responses often lie there),
        about the given start elsewhere.
        """
        start = self.program.columns.start
        lower, upper = self.lower[: self.width].copy(), self.upper[: self.width].copy()
        first = self.program.system.columns.count
        lower[:first], upper[:first] = propagated(self.program.system)
        size = 10.0 ** rng.uniform(-1.0, 1.0)
        v = start + size * rng.standard_normal(start.size)
        inside = np.isfinite(lower) & np.isfinite(upper)
        low, high = lower[inside], upper[inside]
        share = rng.random(int(inside.sum()))
        v[inside] = low + (high - low) * (np.round(share) if rng.random() < 0.5 else share)
        return np.asarray(np.clip(v, lower, upper))


def ranges(program: KKT) -> tuple[Array, Array]:
    """Bounds of all columns, with those that rows of a single column imply."""
    low, high = program.columns.lower.copy(), program.columns.upper.copy()
    first = program.system.columns.count
    tight_low, tight_high = column_ranges(program.system)
    # Where a row and a bound of a follower contradict each other, the program itself says so.
    fine = tight_low <= tight_high
    low[:first] = np.where(fine, np.maximum(low[:first], tight_low), low[:first])
    high[:first] = np.where(fine, np.minimum(high[:first], tight_high), high[:first])
    return low, high


def product_rows(program: KKT) -> Rows:
    """``multiplier * slack <= small`` of every pair."""
    count, width = len(program.pairs), program.columns.count
    linear = sp.lil_array((count, width))
    quadratic: dict[int, Any] = {}
    trees: dict[int, sc.Scalar] = {}
    functions = program.rows.functions
    for k, pair in enumerate(program.pairs):
        check()
        sign = -1.0 if pair.side == "upper" else 1.0
        m = pair.multiplier
        if pair.row is None:
            assert pair.column is not None
            ends = program.columns.upper if pair.side == "upper" else program.columns.lower
            terms, end = [(pair.column, 1.0)], float(ends[pair.column])
        else:
            ends = program.rows.upper if pair.side == "upper" else program.rows.lower
            end = float(ends[pair.row])
            if pair.row in functions.trees or pair.row in functions.quadratic:
                body = sc.add(tree_of(functions, pair.row), sc.Num(-end))
                trees[k] = sc.mul(sc.Num(sign), sc.Col(m), body)
                continue
            span = slice(functions.linear.indptr[pair.row], functions.linear.indptr[pair.row + 1])
            terms = list(
                zip(
                    functions.linear.indices[span].tolist(),
                    functions.linear.data[span].tolist(),
                    strict=True,
                )
            )
            end -= float(functions.constant[pair.row])
        linear[k, m] = -sign * end
        columns = [j for j, _ in terms]
        weights = [sign * c for _, c in terms]
        half = sp.csr_array((weights, ([m] * len(columns), columns)), shape=(width, width))
        quadratic[k] = sp.csr_array(half + half.T)
    names = [f"product.{pair.name}" for pair in program.pairs]
    made = Functions(np.zeros(count), sp.csr_array(linear), quadratic, trees)
    return free_rows(names, made, np.full(count, -math.inf), np.full(count, EXACT))


def stationary_program(system: System) -> KKT:
    """The conditions of Karush, Kuhn and Tucker, also where they are only necessary.

    Raises
    ------
    Refused
        Where a function has kinks or a follower whole numbers.
    """
    from bilevelpy.reductions.optimality.kkt import kkt

    return kkt(system, "local solutions", force=True, norms=True)
