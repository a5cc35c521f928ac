"""Pessimistic leaders from the optimistic side: its optimum bounds theirs, and near it lies an x at
which the response that she wants is the only one.

At the optimistic optimum the follower is mostly indifferent, and the worst response costs the
pessimistic leader much. A little aside, multipliers of all rows and bounds that hold his response
are positive::

    min F(x, y)   s.t.   the followers' conditions with the sides of their pairs fixed,
                         lam_p >= eps  for the pairs p that can have it

so that nothing else is as good. What F loses there is in proportion to eps. Where no x attains the
value (that is the rule where she lives on the goodwill of the follower), such points come as near
as one likes, and the bound tells how near.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.engine.outcome import Limits, Outcome
from bilevelpy.backends.exact.relaxations.duality import write_duality
from bilevelpy.backends.exact.relaxations.relax import Relaxed, Side

if TYPE_CHECKING:
    from bilevelpy.backends.exact.engine.scip import Model
    from bilevelpy.backends.exact.responses.progress import Progress
    from bilevelpy.reductions.linearization.integer_duality import Whole
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.optimality.pessimistic import Worst

Array = np.ndarray[Any, np.dtype[Any]]

# Multipliers that hold a response, in the units of the program: the last ones are a few times what
# a best response may be worse by.
MARGINS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
# Slacks and multipliers up to this are 0.
ZERO = 1e-6
# Shares of the time: the optimistic program, and what looks beside its optimum.
OPTIMISTIC, BESIDE = 0.4, 0.5
# A gap (relative to F) with which the search for better points ends; what follows may be slow.
ENOUGH = 1e-4


@dataclass(frozen=True, slots=True)
class Pessimist:
    """``conditions``: the followers' conditions with their pairs, for a leader who has their
    goodwill, and the same as a ``whole`` where there is strong duality; ``worst`` is the
    pessimistic program; ``limits`` has a share of the time that is left.
    """

    conditions: KKT
    whole: Whole | None
    worst: Worst
    limits: Callable[[float], Limits]
    # The best point so far is kept there.
    state: Progress

    def solve(self) -> Outcome:
        """The best point and the bound; "optimal" where these meet within a gap that a claim may
        name.
        """
        began = time.perf_counter()
        written = self.conditions if self.whole is None else self.whole.program
        optimistic = Relaxed(written, extra=lambda model: write_duality(written, model))
        first = optimistic.solve(self.limits(OPTIMISTIC))
        if first.status in ("infeasible", "interrupted"):
            return replace(first, values=None)
        best = Outcome("time_limit", None, np.inf, first.bound, first.nodes, 0.0)
        if first.values is not None:
            v = first.values[: self.conditions.columns.count]
            best = self._better(best, v)
            for eps in MARGINS:
                if self._gap(best) <= ENOUGH:
                    break
                aside = self._aside(v, eps)
                best = best if aside is None else self._better(best, aside)
        if self._gap(best) > ENOUGH:
            found = Relaxed(self.worst.program).solve(self.limits(1.0))
            if found.status == "infeasible" and best.values is None:
                return found
            values = found.values
            if values is not None and found.objective < best.objective:
                whole = self.worst.values(self.conditions.system, values)
                best = replace(best, values=whole, objective=found.objective)
            # A bound above a point in hand says that rows were met by tolerances only.
            status = found.status if found.bound <= best.objective + self._room(best) else "stuck"
            bound = max(best.bound, min(found.bound, best.objective))
            best = replace(best, status=status, bound=bound, nodes=best.nodes + found.nodes)
        if self._gap(best) <= ENOUGH:
            best = replace(best, status="optimal")
        return replace(best, time=time.perf_counter() - began)

    def _room(self, best: Outcome) -> float:
        return 10.0 * self.limits(1.0).gap * max(1.0, abs(best.objective))

    @staticmethod
    def _gap(best: Outcome) -> float:
        """Distance of objective and bound relative to F; infinite without a point."""
        if best.values is None:
            return math.inf
        return best.gap * max(1.0, abs(best.objective)) / max(abs(best.objective), 1e-3)

    def _better(self, best: Outcome, v: Array) -> Outcome:
        """The better one of a point and the worst response to the x of another."""
        system = self.conditions.system
        fixed = {int(j): float(v[j]) for j in system.upper_columns}
        found = Relaxed(self.worst.program, fixed).solve(self.limits(BESIDE))
        if found.status != "optimal" or found.values is None:
            return best
        values = self.worst.values(system, found.values)
        # The engine leaves fixed columns within its tolerance.
        values[list(fixed)] = list(fixed.values())
        F = float(system.objective.value(values)[0])
        if best.objective <= F:
            return best
        self.state.keep(values, F, {})
        if self.state.stopped:
            raise KeyboardInterrupt
        return replace(best, values=values, objective=F, nodes=best.nodes + found.nodes)

    def _aside(self, v: Array, eps: float) -> Array | None:
        """A point at which multipliers of at least ``eps`` hold the response, where they can."""
        sides, tight = [], []
        for k, pair in enumerate(self.conditions.pairs):
            held = self.conditions.slack(pair, v) <= ZERO
            sides.append(Side(k, "slack" if held else "multiplier"))
            if held:
                tight.append(pair.multiplier)
        if not tight:
            return None

        most = Relaxed(self.conditions, sides=tuple(sides)).model(None)
        parts = [most.scip.addVar(f"margin.{j}", "C", lb=0.0, ub=eps) for j in tight]
        for j, part in zip(tight, parts, strict=True):
            most.scip.addCons(part <= most.variables[j])
        most.scip.setObjective(-sum(parts[1:], parts[0] + 0.0), "minimize")
        reached = most.solve(self.limits(BESIDE)).values
        if reached is None:
            return None
        able = [j for j in tight if reached[j] >= (1.0 - ZERO) * eps]

        def least(model: Model) -> None:
            for j in able:
                model.scip.addCons(model.variables[j] >= eps)

        aside = Relaxed(self.conditions, sides=tuple(sides), extra=least)
        return aside.solve(self.limits(BESIDE)).values
