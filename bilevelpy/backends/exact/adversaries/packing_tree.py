"""Interdiction of a knapsack by branch and bound over stages, with bounds by dynamic programming.

A follower who chooses items as the leader goes along, knowing what she has decided so far and
nothing of what comes, gains no more than the real one, who sees all of it (Weninger and Fukasawa
2023). What he gains from stage g on, with budget b and capacity k left, is a table ::

    W_g(b, k) = min over x of  h_g(x) + max over items of stage g of  p + W_{g+1}(b - c_g(x), k - w)

Where stages up to g are decided, with ``P(k)`` the most that their items are worth in capacity k,
no choice for the others has a value below ``max_k P(k) + W_g(b, C - k)``. Stages go by what a unit
of weight is worth; the bound is then mostly within some units of the value. The table falls in b,
so budgets between those that are kept take the next larger one. One row of the leader is the
budget, rounded in her favour where its units are too many; all her rows are looked at in the tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.adversaries.packing_nodes import LeaderRows, Node, Open
from bilevelpy.backends.exact.engine.outcome import Limits, Outcome
from bilevelpy.backends.exact.engine.scip import LEAST
from bilevelpy.backends.exact.responses.followers import FEASIBLE, Followers
from bilevelpy.backends.exact.responses.judge import answers
from bilevelpy.backends.exact.responses.progress import Progress
from bilevelpy.reductions.integer.multiples import common_unit
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from bilevelpy.backends.exact.adversaries.packing import Item, Option, Packing
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Entries of the table that are kept, of one of its layers, and how many are computed in a second.
KEPT, LAYER, PACE = 100_000_000, 30_000_000, 2_000_000_000
# Units of a budget; real numbers have no other ones.
UNITS = 10_000
# Part of the time for the table, and the most seconds.
TABLE, SECONDS = 0.4, 60.0
# Values in whole steps up to these have two bytes; without a step there are so many in all.
SHORT, LONG = 30_000, 1_000_000_000
# Bytes of the arrays of nodes that wait.
WORTHS = 200_000_000
# Nodes between two looks at the clock; rows may be off by this, relative to their terms.
NODES, ROUNDING = 256, 1e-9


@dataclass(frozen=True, slots=True)
class Budget:
    """A row ``sum of costs <= most`` of the leader: of every stage what its options cost."""

    costs: tuple[tuple[float, ...], ...]
    most: float


@dataclass(frozen=True, slots=True)
class Table:
    """Layers of ``W_g(b, k)`` at some budgets, and at every ``stride``-th k from C down; which
    budget stands for another one; what options cost, and the whole budget.
    """

    values: Array
    standing: Array
    stride: int
    costs: list[tuple[int, ...]]
    most: int

    def bound(self, stage: int, left: int, worth: Array) -> int:
        """``max_k P(k) + W(b, C - k)`` from a stage on, with the worth P of what is decided."""
        rest = self.values[stage, self.standing[left]]
        return int((worth[:: self.stride] + rest).max())


@dataclass(slots=True)
class PackingTree:
    """One run: ``state`` has the best point, and may stop."""

    system: System
    packing: Packing
    limits: Callable[[], Limits]
    state: Progress
    # Of F in the table: the size of a step, and whether all values are whole multiples of it.
    step: float = 1.0
    exact: bool = False

    def solve(self) -> Outcome:
        """Nodes until none is left, or the time is up."""
        state, stages = self.state, self.packing.stages
        self._scale()
        table, rows = self._table(self._budget()), self._rows()
        run = Followers(self.system, lambda: replace(self.limits(), feasible=FEASIBLE))
        nothing = np.zeros(self.packing.capacity + 1, dtype=table.values.dtype)
        root = table.bound(0, table.most, nothing)
        open_ = Open(
            [Node(root, 0, table.most, nothing, 0, rows.start, ())], WORTHS // nothing.nbytes
        )
        count, status = 0, "optimal"
        state.bound = max(state.bound, self._value(root))
        while open_:
            count += 1
            if count % NODES == 0 and (self.limits().seconds <= LEAST or state.stopped):
                status = "time_limit"
                break
            node = open_.take()
            if self._is_settled(node.bound):
                continue
            if node.stage == len(stages):
                if not self._confirm(run, node):
                    open_.put([node])
                    status = "stuck"
                    break
                continue
            children = []
            for n, option in enumerate(stages[node.stage].options):
                g, left = node.stage + 1, node.left - table.costs[node.stage][n]
                activity = node.activity + rows.moves[node.stage][n]
                if left < 0 or not rows.allow(g, activity):
                    continue
                worth = node.worth
                for item in option.items:
                    worth = self._packed(worth, item)
                loss = node.loss + self._steps(option.loss)
                bound = loss + table.bound(g, left, worth)
                bound, chosen = max(bound, node.bound), (*node.chosen, n)
                if not self._is_settled(bound):
                    children.append(Node(bound, g, left, worth, loss, activity, chosen))
            open_.put(children)
        state.nodes += count
        if status == "optimal" and state.best is None:
            return Outcome("infeasible", None, math.inf, math.inf, state.nodes, 0.0)
        least = self._value(open_.least) if open_ else math.inf
        room = 0.0 if self.exact else self._room()
        state.bound = max(state.bound, min(least, state.objective - room))
        return Outcome(status, state.best, state.objective, state.bound, state.nodes, 0.0)

    # --- values in steps ------------------------------------------------------------------------

    def _scale(self) -> None:
        """Steps of which prices and losses are multiples; a fine grid, rounded down, else."""
        options = [o for stage in self.packing.stages for o in stage.options]
        prices = [i.price for o in options for i in o.items] + [o.loss for o in options]
        unit = common_unit(np.array(prices))
        total = self._total()
        self.exact = unit is not None and total <= LONG * unit
        self.step = unit if unit is not None and self.exact else max(total, 1e-9) / LONG

    def _total(self) -> float:
        """The largest size of a value."""
        return sum(
            max(abs(o.loss) + sum(i.price * i.copies for i in o.items) for o in stage.options)
            for stage in self.packing.stages
        )

    def _steps(self, value: float) -> int:
        return math.floor(value / self.step + (0.5 if self.exact else 0.0))

    def _value(self, steps: int) -> float:
        return steps * self.step + self.packing.constant

    def _room(self) -> float:
        """What a better value is better by at least."""
        return 0.5 * self.limits().gap * max(1.0, abs(self.state.objective))

    def _is_settled(self, bound: int) -> bool:
        """Whether a node has no better point, or none that the gap asks for."""
        if self.state.best is None:
            return False
        known, value = self.state.objective, self._value(bound)
        if self.exact and value > known - (1.0 - 1e-3) * self.step:
            return True
        return value >= known - self._room()

    def _packed(self, worth: Array, item: Item) -> Array:
        """The most that stages are worth, with one more item: over the last axis, capacity."""
        price, w = self._steps(item.price), item.weight
        if w == 0:
            return np.asarray(worth + worth.dtype.type(price * item.copies))
        for _ in range(min(item.copies, (worth.shape[-1] - 1) // w)):
            better = worth.copy()
            np.maximum(
                worth[..., w:], worth[..., :-w] + worth.dtype.type(price), out=better[..., w:]
            )
            worth = better
        return worth

    # --- the table ------------------------------------------------------------------------------

    def _budget(self) -> Budget | None:
        """The row of the leader that leaves her least, with costs that are not negative."""
        rows, best, tightest = self.system.upper_rows, None, 1.0
        A = self._slopes()
        for r in range(rows.count):
            for sign, end in ((1.0, rows.upper[r]), (-1.0, -rows.lower[r])):
                base = sign * float(rows.functions.constant[r])
                if not math.isfinite(end):
                    continue
                moved = [
                    [sign * a * o.value for o in stage.options]
                    for a, stage in zip(A[r], self.packing.stages, strict=True)
                ]
                least = [min(part) for part in moved]
                most = float(end) - base - sum(least)
                total = sum(max(p) - c for p, c in zip(moved, least, strict=True))
                if total > 0.0 and most < tightest * total:
                    tightest = max(most, 0.0) / total
                    costs = (tuple(v - c for v in p) for p, c in zip(moved, least, strict=True))
                    best = Budget(tuple(costs), max(most, 0.0))
        return best

    def _slopes(self) -> Array:
        """The leader's rows over the stages."""
        rows = self.system.upper_rows
        full = rows.functions.linear.toarray()
        columns = np.array([stage.column for stage in self.packing.stages], dtype=np.int64)
        return np.where(columns >= 0, full[:, columns], 0.0).reshape(rows.count, columns.size)

    def _table(self, budget: Budget | None) -> Table:
        """Layer by layer, from the last stage on."""
        stages, width = self.packing.stages, self.packing.capacity + 1
        copies = sum(1 + sum(i.copies for o in s.options for i in o.items) for s in stages)
        work = PACE * min(TABLE * self.limits().seconds, SECONDS)
        cells = max(int(min(work / (copies * width), LAYER / width, UNITS)), 2)
        costs: list[tuple[int, ...]] = [(0,) * len(s.options) for s in stages]
        most = 0
        if budget is not None and budget.most == 0.0:
            costs = [tuple(int(c > 0.0) for c in part) for part in budget.costs]
        elif budget is not None:
            unit = common_unit(np.array([c for part in budget.costs for c in part])) or 0.0
            unit = max(unit, budget.most / (cells - 1))
            costs = [tuple(math.floor(c / unit + ROUNDING) for c in p) for p in budget.costs]
            most = math.floor(budget.most / unit + ROUNDING)
        stride = math.ceil(math.sqrt(max((len(stages) + 1) * width * (most + 1) / KEPT, 1.0)))
        kept = most - np.arange(0, most + 1, stride)[::-1]
        short = self._total() <= SHORT * self.step
        layer = np.zeros((most + 1, width), dtype=np.int16 if short else np.int32)
        values = np.zeros((len(stages) + 1, kept.size, -(-width // stride)), dtype=layer.dtype)
        for g in range(len(stages) - 1, -1, -1):
            check()
            made: Array | None = None
            # The option without costs is one at every budget.
            for option, cost in sorted(zip(stages[g].options, costs[g], strict=True), key=_cost):
                after = layer[: max(most + 1 - cost, 0)]
                for item in option.items:
                    after = self._packed(after, item)
                if option.loss:
                    after = after + layer.dtype.type(self._steps(option.loss))
                if made is None:
                    made = after.copy() if after.base is layer else after
                else:
                    np.minimum(made[cost:], after, out=made[cost:])
            assert made is not None
            layer = made
            values[g] = layer[kept, ::-stride]
        standing = np.searchsorted(kept, np.arange(most + 1))
        return Table(values, standing, stride, costs, most)

    # --- points ---------------------------------------------------------------------------------

    def _rows(self) -> LeaderRows:
        rows, A = self.system.upper_rows, self._slopes()
        moves = [
            [A[:, g] * option.value for option in stage.options]
            for g, stage in enumerate(self.packing.stages)
        ]
        count = len(moves)
        least, most = np.zeros((count + 1, rows.count)), np.zeros((count + 1, rows.count))
        for g in range(count - 1, -1, -1):
            least[g] = least[g + 1] + np.min(moves[g], axis=0)
            most[g] = most[g + 1] + np.max(moves[g], axis=0)
        start = rows.functions.constant.copy()
        room = ROUNDING * np.maximum(1.0, np.abs(A).sum(axis=1))
        return LeaderRows(moves, start, least, most, rows.lower - room, rows.upper + room)

    def _confirm(self, run: Followers, node: Node) -> bool:
        """The point of a node without stages left, with best responses; whether they were found."""
        columns = self.system.columns
        v = np.clip(columns.start, columns.lower, columns.upper)
        for stage, n in zip(self.packing.stages, node.chosen, strict=True):
            if stage.column >= 0:
                v[stage.column] = stage.options[n].value
        found = answers(run, v, self.state)
        if found is None:
            return False
        for k, answer in enumerate(found):
            assert answer.values is not None
            own = columns.owner == k + 1
            v[own] = answer.values[own]
        v[columns.integer] = np.round(v[columns.integer])
        solved = {k: answer.objective for k, answer in enumerate(found)}
        self.state.keep(v, float(self.system.objective.value(v)[0]), solved)
        return True


def _cost(one: tuple[Option, int]) -> int:
    return one[1]
