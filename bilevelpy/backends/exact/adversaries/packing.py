"""Followers who pack one knapsack from what binaries of the leader leave them: interdiction.

    min_x  h'x + max { sum_j p_j(x_i) y_j :  w'y <= C,  0 <= y_j <= u_j(x_i),  y whole }

Every ``y_j`` is read with one binary ``x_i`` at most, which changes its price or what there is of
it, so both levels fall apart into a sequence of stages: a binary and the items that it rules. What
the leader loses is what the follower gains (:func:`~bilevelpy.backends.exact.zero_sum.is_opposed`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.backends.exact.adversaries.zero_sum import is_opposed
from bilevelpy.reductions.integer.multiples import common_unit
from bilevelpy.reductions.trees import linear_terms, quadratic_terms

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

ROUNDING = 1e-9
# Items with their copies, and units of weight, beyond which tables take too long.
COPIES, WEIGHTS = 3_000, 100_000


@dataclass(frozen=True, slots=True)
class Item:
    """So many copies of one weight (in units) and price."""

    weight: int
    price: float
    copies: int


@dataclass(frozen=True, slots=True)
class Option:
    """One value of a stage's binary: what F loses by it alone, and the items that it leaves."""

    value: float
    loss: float
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """A column of the leader (-1: none) and what she may choose; the most efficient items first."""

    column: int
    options: tuple[Option, ...]

    @property
    def efficiency(self) -> float:
        """The best price of a unit of weight."""
        items = [item for option in self.options for item in option.items]
        return max((i.price / i.weight if i.weight else math.inf for i in items), default=0.0)


@dataclass(frozen=True, slots=True)
class Packing:
    """The stages, how much may be packed (in units of weight), the constant of F."""

    stages: tuple[Stage, ...]
    capacity: int
    constant: float

    @classmethod
    def of(cls, system: System) -> Packing | None:
        """A model of this kind; None where it is another one."""
        columns = system.columns
        leader = system.upper_columns
        low, high = columns.lower[leader], columns.upper[leader]
        binary = columns.integer[leader] & (low >= 0.0) & (high <= 1.0)
        if not (binary | (low == high)).all() or not is_opposed(system):
            return None
        nothing = columns.lower[system.lower_columns] == 0.0
        if not nothing.all() or system.upper_rows.functions.degree > 1:
            return None
        found = _Reader(system)
        return found.packing() if found.read() else None


class _Reader:
    """The rows and the objective of a model, taken apart."""

    def __init__(self, system: System) -> None:
        self.system = system
        own = system.lower_columns.tolist()
        self.owner = system.columns.owner
        self.weight = dict.fromkeys(own, 0.0)
        self.capacity = math.inf
        # Of every item: the binary that rules it, and at both values of that price and amount.
        self.ruler = dict.fromkeys(own, -1)
        self.price = {j: np.zeros(2) for j in own}
        self.most = {j: np.full(2, system.columns.upper[j]) for j in own}
        self.loss = dict.fromkeys(system.upper_columns.tolist(), 0.0)

    def read(self) -> bool:
        """Whether everything is of the kind."""
        rows = self.system.lower_rows
        if rows.functions.degree > 1:
            return False
        return all(self._row(r) for r in range(rows.count)) and self._objective()

    def _row(self, r: int) -> bool:
        rows = self.system.lower_rows
        terms = {j: c for j, c in linear_terms(rows.functions, r) if c}
        base = float(rows.functions.constant[r])
        low, high = float(rows.lower[r]) - base, float(rows.upper[r]) - base
        own = [j for j in terms if self.owner[j] > 0]
        others = [i for i in terms if self.owner[i] == 0]
        if len(own) + len(others) < len(terms) or len(others) > 1:
            return False
        if len(own) == 1:
            return self._limit(own[0], terms, others, low, high)
        if others or math.isfinite(self.capacity) or not own:
            return False
        if math.isfinite(low):  # the other way round
            low, high, terms = -high, -low, {j: -c for j, c in terms.items()}
        if math.isfinite(low) or not high >= 0.0 or min(terms.values()) < 0.0:
            return False
        self.capacity = high
        self.weight.update(terms)
        return True

    def _limit(
        self, j: int, terms: dict[int, float], others: list[int], low: float, high: float
    ) -> bool:
        """A row of one item, perhaps with a binary: nothing of it must always be allowed."""
        if others and not self._ruled(j, others[0]):
            return False
        a = terms[j]
        for value in (0, 1):
            moved = terms[others[0]] * value if others else 0.0
            ends = sorted(((low - moved) / a, (high - moved) / a))
            if ends[0] > ROUNDING or ends[1] < -ROUNDING:
                return False
            self.most[j][value] = min(self.most[j][value], max(ends[1], 0.0))
        return True

    def _ruled(self, j: int, i: int) -> bool:
        known = self.ruler[j]
        self.ruler[j] = i
        return known in (-1, i)

    def _objective(self) -> bool:
        F = self.system.objective
        for j, c in linear_terms(F, 0):
            if self.owner[j] > 0:
                self.price[j] += c
            else:
                self.loss[j] += c
        for i, j, c in quadratic_terms(F, 0):
            if self.owner[i] > 0:
                i, j = j, i
            if self.owner[i] != 0 or self.owner[j] <= 0 or not self._ruled(j, i):
                return False
            self.price[j][1] += c
        return True

    def packing(self) -> Packing | None:
        """What was read, in units of weight; None where weights have none, or it is too much."""
        heavy = np.array([w for w in self.weight.values() if w > 0.0])
        unit = common_unit(heavy) if heavy.size else 1.0
        if unit is None:
            return None
        total, capacity, copies = 0, self.capacity / unit, 0
        ruled: dict[int, list[list[Item]]] = {i: [[], []] for i in self.loss}
        free: list[Item] = []
        for j, w in self.weight.items():
            whole = bool(self.system.columns.integer[j])
            if w > 0.0 and not whole:
                return None
            weight, i = round(w / unit), self.ruler[j]
            made = [self._item(j, value, weight, whole, capacity) for value in (0, 1)]
            if any(item is None for item in made):
                return None
            most = max((item.copies for item in made if item is not None), default=0)
            copies, total = copies + most, total + most * weight
            places = [free] if i < 0 else ruled[i]
            for place, item in zip(places, made, strict=False):
                if item is not None and item.copies:
                    place.append(item)
        units = total if total <= capacity else math.floor(capacity * (1.0 + ROUNDING) + ROUNDING)
        if copies > COPIES or units > WEIGHTS:
            return None
        stages = [Stage(-1, (Option(0.0, 0.0, (item,)),)) for item in free]
        columns = self.system.columns
        for i, parts in ruled.items():
            values = sorted({float(columns.lower[i]), float(columns.upper[i])})
            if not set(values) <= {0.0, 1.0}:
                if any(parts):
                    return None
                parts = [[], []]
            stages.append(
                Stage(
                    i,
                    tuple(Option(v, self.loss[i] * v, tuple(parts[round(v) % 2])) for v in values),
                )
            )
        stages.sort(key=lambda stage: -stage.efficiency)
        return Packing(tuple(stages), units, float(self.system.objective.constant[0]))

    def _item(self, j: int, value: int, weight: int, whole: bool, capacity: float) -> Item | None:
        """The item at one value of its binary; None where there is any amount of it."""
        price, most = float(self.price[j][value]), float(self.most[j][value])
        if price <= 0.0:
            return Item(weight, 0.0, 0)
        if weight:
            most = min(most, capacity / weight)
        if not math.isfinite(most):
            return None
        if not whole:
            return Item(0, price * most, 1)
        return Item(weight, price, math.floor(most + 1e-6))
