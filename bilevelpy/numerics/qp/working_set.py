"""Strictly convex quadratic programs over boxes and simplices, with a factor on the working set.

    min_y  b'y + y'Hy / 2,   low <= y <= high,   E y = 1

The rows of E are the sums of simplices. Variables are free or held at one of their bounds; with
the set known, one Cholesky factor solves for the free ones. Wrong members are exchanged all at
once as long as their number falls, else one at a time (J. J. Judice and F. M. Pires, Computers &
Operations Research 21, 1994): from the set of the program before, whose data differ little, one or
two factors suffice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from bilevelpy.numerics.linear_solve import by_factor

Array = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

# Bounds and multipliers count as respected up to this fraction of the largest entry: rounding.
EXACT = 1e-12
# Pivots below this fraction of the largest diagonal entry have no correct digit.
PIVOT = 1e-15
# Exchanges of all wrong members without fewer of them, before single ones.
PATIENCE = 3
# Working sets whose factors are kept.
KEPT = 4


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """``H_FF = L L'`` on the free variables ``where`` (all: None); ``bordered`` by their sums: E_F,
    ``Z = H_FF^-1 E_F'``, the inverse of ``E_F Z``, and what takes the means of the simplices.
    """

    where: np.ndarray | None
    L: Array
    bordered: tuple[Array, Array, Array, Array] | None = None

    def solve(self, r: Array, total: Array | float = 0.0) -> Array:
        """The free part v of ``H v = r`` with the sums ``E v = total`` (r in their normal space
        does not count).
        """
        if not len(self.L):
            return np.zeros(0)
        v: Array = by_factor(self.L, r if self.where is None else r[self.where])
        if self.bordered is not None:
            sums, Z, inverse, _ = self.bordered
            v += Z.dot(inverse.dot(total - sums.dot(v)))
        return v

    def tangent(self, r: Array) -> Array:
        """The free part of r that changes no sum."""
        v = r if self.where is None else r[self.where]
        if self.bordered is not None:
            sums, _, _, means = self.bordered
            v = v - means.dot(v).dot(sums)
        return v

    def spread(self, v: Array, size: int) -> Array:
        """A free part with zeros in the other places."""
        if self.where is None:
            return v
        out = np.zeros(size)
        out[self.where] = v
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """One quadratic program: slope b, and ``H = Q + diag d`` (d: None for nothing)."""

    Q: Array
    d: Array | None
    b: Array

    def product(self, v: Array) -> Array:
        """``H v``."""
        out: Array = self.Q.dot(v)
        if self.d is not None:
            out += self.d * v
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """The minimiser, ``gradient = H y + b`` there, ``side`` (-1, 0, 1: held below, free, held
    above) and the multipliers of the bounds (0 on free variables but for rounding).
    """

    y: Array
    gradient: Array
    side: np.ndarray
    multipliers: Array


class WorkingSet:
    """Solves one program after another from the working set of the last one."""

    def __init__(self, low: Array, high: Array, sums: Array) -> None:
        self.low, self.high = low, high
        self.sums = sums if len(sums) else None
        self.side = np.zeros(len(low), dtype=np.int8)
        self.side[low >= high] = -1
        self.movable = low < high
        self.bounded = bool(np.isfinite(low).any() or np.isfinite(high).any())
        self.free = np.ones(len(low), dtype=bool)
        self._factors: dict[bytes, Factor] = {}
        self._of: tuple[Array, Array | None] | None = None

    def start(self, y: Array) -> None:
        """Take the working set of a point: what lies on a bound is held."""
        below, above = y <= self.low, y >= self.high
        self.side = (above & ~below).astype(np.int8) - below

    def factor(self, program: Program, free: Mask) -> Factor | None:
        """The factor on a working set; None where H is singular there to working accuracy."""
        if self._of is None or self._of[0] is not program.Q or self._of[1] is not program.d:
            self._factors.clear()
            self._of = (program.Q, program.d)
        key = free.tobytes()
        found = self._factors.get(key)
        if found is None:
            found = self._new_factor(program, free)
            if found is None:
                return None
            if len(self._factors) >= KEPT:
                self._factors.pop(next(iter(self._factors)))
            self._factors[key] = found
        return found

    def _new_factor(self, program: Program, free: Mask) -> Factor | None:
        whole = not self.bounded or np.count_nonzero(free) == len(free)
        where = None if whole else free.nonzero()[0]
        H = program.Q if where is None else program.Q[where[:, None], where]
        if program.d is not None:
            H = H.copy() if where is None else H
            H.reshape(-1)[:: len(H) + 1] += program.d if where is None else program.d[where]
        if not len(H):
            return Factor(where, H)
        # LAPACK reads columns: the transpose of a symmetric matrix is the matrix itself.
        top = float(np.maximum.reduce(H.diagonal()))
        L, info = dpotrf(H.T, lower=1, clean=0, overwrite_a=where is not None)
        least = float(np.minimum.reduce(L.diagonal()))
        if info or not least**2 > PIVOT * top or not top < math.inf:
            return None
        if self.sums is None:
            return Factor(where, L)
        sums = self.sums if where is None else self.sums[:, where]
        Z = dpotrs(L, np.asfortranarray(sums.T), lower=1)[0]
        inner, sizes = sums.dot(Z), np.add.reduce(sums, axis=1)
        inverse = 1.0 / inner if len(inner) == 1 else np.linalg.inv(inner)
        return Factor(where, L, (sums, Z, inverse, sums / sizes[:, None]))

    def solve(self, program: Program) -> Solution | None:
        """The minimiser; None where H is singular, or no set is found in a reasonable time."""
        fewest, patience = len(self.low) + 1, PATIENCE
        side = self.side
        for _ in range(2 * len(self.low) + 20):
            found = self._on(program, side)
            if found is None:
                return None
            wrong = self._wrong(found) if self.bounded else None
            if wrong is None:
                self.side = side
                return found
            count = len(wrong)
            patience = PATIENCE if count < fewest else patience - 1
            fewest = min(fewest, count)
            side = self._exchanged(found, side, wrong if patience > 0 else wrong[-1:])
        return None

    def stays(self, program: Program) -> bool:
        """Whether a program has its minimiser on the working set of the last one."""
        found = self._on(program, self.side)
        return found is not None and self._wrong(found) is None

    def _on(self, program: Program, side: np.ndarray) -> Solution | None:
        """The minimiser on a working set."""
        factor = self.factor(program, side == 0 if self.bounded else self.free)
        if factor is None:
            return None
        if factor.where is None:
            y = factor.solve(-program.b, 1.0)
            g = program.product(y)
        else:
            y = np.where(side < 0, self.low, self.high)
            y[factor.where] = 0.0
            rest = program.b
            if np.count_nonzero(y):
                rest = rest + program.product(y)
            # The held members of a simplex are 0: its free ones have the whole sum.
            y[factor.where] = factor.solve(-rest, 1.0)
            g = program.product(y)
        g += program.b
        multipliers = g
        if factor.bordered is not None and self.sums is not None:
            means, inner = factor.bordered[3], g if factor.where is None else g[factor.where]
            multipliers = g - means.dot(inner).dot(self.sums)
        return Solution(y, g, side, multipliers)

    def _wrong(self, found: Solution) -> np.ndarray | None:
        """Free variables outside their bounds and held ones that would move inside."""
        y, held, m = found.y, found.side, found.multipliers
        slack = EXACT * float(np.maximum.reduce(np.abs(y), initial=0.0))
        wrong = (held == 0) & ((y < self.low - slack) | (y > self.high + slack))
        force = EXACT * float(np.maximum.reduce(np.abs(found.gradient), initial=0.0))
        wrong |= (held * m > force) & self.movable
        return wrong.nonzero()[0] if np.count_nonzero(wrong) else None

    def _exchanged(self, found: Solution, side: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        """Another set: what is outside is held at the bound, what pushes inside is freed."""
        new = side.copy()
        below = found.y[wrong] < self.low[wrong]
        new[wrong] = np.where(side[wrong] != 0, 0, np.where(below, -1, 1))
        if self.sums is not None:  # a simplex keeps a member
            for row in self.sums[(self.sums @ (new == 0)) == 0]:
                members = row.nonzero()[0]
                new[members[found.y[members].argmax()]] = 0
        return new
