"""The certificate of an answer of ``exact``: its claim, what speaks against it, and the checks that
do not read the engine's numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.certificate.prices import check_prices
from bilevelpy.backends.exact.certificate.ties import (
    ties_by_conditions,
    ties_by_values,
    worst_within,
)
from bilevelpy.backends.exact.points.local import JUMP, is_attained
from bilevelpy.backends.exact.responses.followers import BEST, FEASIBLE, Followers
from bilevelpy.numerics.certificate.constrained import Claim, Ties, examine_point, verdict
from bilevelpy.numerics.wording import wording

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bilevelpy.backends.exact.engine.outcome import Limits, Outcome
    from bilevelpy.options import SolveOptions
    from bilevelpy.reductions.optimality.conditions import KKT
    from bilevelpy.reductions.rewriting.normalize import Units
    from bilevelpy.reductions.rows import Rows, System
    from bilevelpy.result import Certificate

Array = np.ndarray[Any, np.dtype[Any]]

# Columns up to which it is asked whether a value is attained, and seconds that a response may take.
SMALL, RESPONSE = 60, 1.0
# With less than this left nothing is begun that the answer can do without.
LATE = 0.5
# A gap of this fraction of F is one that a proof of optimality may name.
NAMED = 1e-4


@dataclass(frozen=True, slots=True)
class Proof:
    """What a run of ``exact`` knows when it ends: ``program`` is in ``units``, ``given`` in those
    of the model; ``settled`` says that the conditions are the bilevel problem, ``solved`` holds the
    followers' least objectives where they are not.
    """

    program: KKT
    units: Units
    given: System
    settled: bool
    solved: Mapping[int, float] | None
    pessimistic: bool
    options: SolveOptions
    ties: bool
    limits: Callable[[float], Limits]
    seconds: float
    began: float

    @property
    def system(self) -> System:
        """The program in its units."""
        return self.units.system

    def certificate(self, found: Outcome, moved: float, beside: int = 0) -> Certificate:
        """The certificate of a point; F moves by ``moved`` (relative) with its responses solved
        again, and is lower at none of so many points ``beside``.
        """
        assert found.values is not None
        proved = found.status == "optimal" and self.is_small(found.gap, found.objective)
        notes, doubts = check_prices(self.program, found.values, self.limits(0.3), self.units)
        if proved:
            attained = self._worst_attained if self.pessimistic else self._attained
            doubts = (*doubts, *attained(found.values))
            if self.pessimistic and found.gap > 2 * self.limits(1.0).gap:
                sign, bound = self.system.sign, self.units.upper * found.bound
                limit = f"{wording(sign).limit} of {sign * bound:.6g}"
                notes = (*notes, f"the value may be {limit} that no point attains")
        if not self.is_small(moved, found.objective):
            doubts = (
                *doubts,
                f"F moves by {moved:.1e} (relative) with the response solved again: the follower's "
                "tolerance is worth that much to the leader",
            )
        F = float(self.system.objective.value(found.values[: self.system.columns.count])[0])
        if not self.pessimistic and not self.is_small(self._below(found.bound, F), F):
            doubts = (
                *doubts,
                "the point is better than the bound that is proved for all: it cannot be feasible",
            )
        unit = self.units.upper
        claim = Claim(proved, unit * found.bound, found.gap, notes, doubts, beside)
        v = found.values[: self.system.columns.count]
        told = self.units.told()
        seen = examine_point(
            told,
            v,
            ties=self._ties(found.values),
            solved=self.solved,
            seed=self.options.seed,
            pessimistic=self.pessimistic,
            deadline=self.began + max(self.seconds, 1.0),
            units=self.units.lower,
            upper_unit=unit,
            convex=self.settled,
        )
        made = verdict(told, claim, seen)
        upper, lower = violations(self.given, self.units.given(v))
        return replace(made, upper_feasibility=upper, lower_feasibility=lower)

    @staticmethod
    def _below(bound: float, F: float) -> float:
        """How far F lies below a bound, as a gap."""
        return max(bound - F, 0.0) / max(1.0, abs(F)) if math.isfinite(bound) else 0.0

    def is_small(self, gap: float, F: float) -> bool:
        """Whether a gap (relative to ``max(1, |F|)``) is one that a claim may name: about that of
        the solver, or small beside F itself.
        """
        beside = gap * max(1.0, abs(F)) / max(abs(F), 1e-3)
        return gap <= 10 * self.limits(1.0).gap or beside <= NAMED

    def _attained(self, v: Array) -> tuple[str, ...]:
        """A doubt where F jumps up at a bound or at zero that x all but lies on."""
        if self.system.columns.count > SMALL or not self.seconds > 1.0:
            return ()
        limits = replace(self.limits(0.3), feasible=FEASIBLE)
        limits = replace(limits, seconds=min(limits.seconds, RESPONSE))
        return is_attained(Followers(self.units.told(), lambda: limits), v, self.units.columns)

    def _worst_attained(self, v: Array) -> tuple[str, ...]:
        """A doubt where a pessimistic leader lives on less than the tolerance of a best response:
        x lies beside a tie that would cost her much.
        """
        if self.system.columns.count > SMALL or self.limits(1.0).seconds <= LATE:
            return ()
        limits = replace(self.limits(0.3), feasible=FEASIBLE)
        worst = worst_within(Followers(self.system, lambda: limits), v, limits)
        here = float(self.system.objective.value(v[: self.system.columns.count])[0])
        if worst is None or worst <= here + JUMP * max(1.0, abs(here)):
            return ()
        unit, sign = self.units.upper, self.system.sign
        return (
            f"responses as good as the best one within {BEST:g} of its terms give F = "
            f"{sign * unit * worst:.6g} instead of {sign * unit * here:.6g}: the value may be "
            f"{wording(sign).limit} that no point attains",
        )

    def _ties(self, v: Array) -> Ties | None:
        """F over all best responses at the returned x, in the units of the model."""
        # Writing two more programs takes its time too.
        if not self.ties or self.limits(1.0).seconds <= LATE:
            return None
        limits = self.limits(0.3)
        if self.settled:
            found = ties_by_conditions(self.program, v, limits)
        else:
            limits = replace(limits, feasible=FEASIBLE)
            inner = Followers(self.system, lambda: limits)
            found = ties_by_values(inner, v[: self.system.columns.count], self.solved or {}, limits)
        unit = self.units.upper
        return found and Ties(unit * found.optimistic, unit * found.pessimistic)


def violations(system: System, v: Array) -> tuple[float, float]:
    """How far rows and bounds of the leader and of the followers are off at a point."""
    columns = system.columns
    off = np.maximum(np.maximum(columns.lower - v, v - columns.upper), 0.0)
    off = np.where(columns.integer, np.maximum(off, np.abs(v - np.round(v))), off)

    def worst(rows: Rows, own: Array) -> float:
        inside = float(off[own].max(initial=0.0))
        return max(float(rows.violation(v).max(initial=0.0)), inside)

    return (
        worst(system.upper_rows, system.upper_columns),
        worst(system.lower_rows, system.lower_columns),
    )
