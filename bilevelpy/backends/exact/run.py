"""One solve of the backend ``exact``: program, proof, good points, certificate."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

from bilevelpy.backends.exact.certificate.infeasible import NO_RESPONSE, Why, explain_infeasible
from bilevelpy.backends.exact.certificate.prices import beyond_bounds, open_prices
from bilevelpy.backends.exact.certificate.proof import Proof
from bilevelpy.backends.exact.certificate.status import end_of, end_without_point, is_close
from bilevelpy.backends.exact.engine.outcome import Outcome
from bilevelpy.backends.exact.leaders.demands import demands_of
from bilevelpy.backends.exact.points.beside import points_beside
from bilevelpy.backends.exact.points.polish import polish
from bilevelpy.backends.exact.responses.resolve import resolved
from bilevelpy.backends.exact.ways import Ways
from bilevelpy.backends.whole import ProgramAnswer
from bilevelpy.numerics.certificate.constrained import without_point
from bilevelpy.reductions.optimality.prices import shadow_prices
from bilevelpy.result import Status
from bilevelpy.system.deadline import TooLong, until

Array = np.ndarray[Any, np.dtype[Any]]

# Seconds, and part of the time, left for the certificate after points beside x are compared.
BESIDE, LAST = 0.5, 0.05
# What keeps a proof from being one where F moves with responses solved again.
TOLERANCES = "the followers' tolerances are worth more to the leader than the gap"
# Seconds that the certificate takes after an interruption.
CHECKED = 1.0


# The reason where rows of a pessimistic leader read responses, and no choice will do.
NOT_ALL = Why("at no x are there best responses that meet the leader's constraints, all of them")
# There may be best responses, and F without a bound over them.
NO_WORST = Why("at no x that the leader may choose is there a worst one of the best responses")


class Run(Ways):
    """One solve: a way to a point and a bound, and the certificate of what it leads to."""

    def answer(self) -> ProgramAnswer:
        """The answer, whatever it is."""
        try:
            with until(self.began + self.seconds):
                found = self._found()
        except (KeyboardInterrupt, TooLong) as error:
            best, why = self.state, "time_limit" if isinstance(error, TooLong) else "interrupted"
            found = Outcome(why, best.best, best.objective, best.bound, best.nodes, 0.0)
        if self.state.stopped:
            found = replace(found, status="interrupted")
        if found.status == "interrupted":  # who has interrupted a run does not wait much longer
            self.seconds = min(self.seconds, time.perf_counter() - self.began + CHECKED)
        if found.status in ("stuck", "time_limit", "hopeless") and is_close(
            found, self.limits().gap
        ):
            found = replace(found, status="optimal")
        solved = time.perf_counter()
        if found.values is None:
            try:
                return self._without_point(found)
            except KeyboardInterrupt:  # while it was explained
                return self._without_point(replace(found, status="interrupted"))
        v, certificate, moved, beside = found.values, None, 0.0, 0
        if self.settled and not self.pessimistic and v.size == self.program.columns.count:
            v = polish(self.program, v)
        plain = self.settled and not self.pessimistic
        try:
            if not self.pessimistic:
                v, moved = self._resolved(v)
            off = max(moved, self._at(v, found).gap) if plain else moved
            small = self._proof(False).is_small(off, found.objective)
            if plain and found.status == "optimal" and not small:
                # What tolerances are worth is more than what sets points apart.
                found, self.why = replace(found, status="trouble"), TOLERANCES
            if self.verify and plain and found.status in ("time_limit", "trouble"):
                left = min(BESIDE, LAST * self.seconds)
                v, beside = points_beside(
                    self.system, v, self.options.seed, self.began + self.seconds - left
                )
                moved = 0.0 if beside else moved  # responses beside are solved again, too
            v = self._in_whole_numbers(v)
            if self.verify:
                ties = self.settings.ties and not self.told and found.status != "hopeless"
                certificate = self._proof(ties).certificate(self._at(v, found), moved, beside)
        except KeyboardInterrupt:
            found = replace(found, status="interrupted")
        status, message = end_of(self._at(v, found), certificate, self.seconds, self.why)
        return ProgramAnswer(
            self.stated,
            self.units.given(v)[: self.stated.columns.count],
            shadow_prices(self.program, v, self.units)
            if self.settled and v.size > self.system.columns.count
            else {},
            status,
            message,
            certificate,
            found.nodes,
            (*self.program.warnings,),
            solved - self.began,
        )

    def _at(self, v: Array, found: Outcome) -> Outcome:
        """The outcome with other values of the columns."""
        F = float(self.system.objective.value(v[: self.system.columns.count])[0])
        return replace(found, values=v, objective=F)

    def _resolved(self, v: Array) -> tuple[Array, float]:
        """The point with its responses solved again, and by how much that moves F (relative)."""
        count = self.system.columns.count
        here = float(self.system.objective.value(v[:count])[0])
        point, there = resolved(self.system, v[:count])
        full = v.copy()
        full[:count] = point
        return full, abs(there - here) / max(1.0, abs(here))

    def _proof(self, ties: bool) -> Proof:
        return Proof(
            self.program, self.units, self.given, self.settled, self.solved, self.pessimistic,
            self.options, ties, self.limits, self.seconds, self.began,
        )  # fmt: skip

    def _asks_all(self) -> bool:
        """Whether all best responses have to meet rows of a pessimistic leader."""
        rows = self.system.upper_rows
        every = np.ones(rows.count, dtype=bool)
        return bool(demands_of(rows, every, self.system.upper_columns))

    def _without_point(self, found: Outcome) -> ProgramAnswer:
        empty = np.full(self.stated.columns.count, math.nan)
        solved = time.perf_counter() - self.began
        said = open_prices(self.program) if found.status == "unbounded" else self.why
        status, message = end_without_point(found.status, said)
        certificate = None
        tight = ""
        if status is Status.INFEASIBLE and self.settled:
            tight = beyond_bounds(self.program, self.limits(0.5), self.units)
        if tight:
            status, message = Status.STALLED, tight
        if status is Status.INFEASIBLE:
            why = NOT_ALL
            if self.choices is None or not self._asks_all():
                why = explain_infeasible(self.program, self.limits(0.9), self.units)
            if self.pessimistic and why is NO_RESPONSE:
                why = NO_WORST
            message = why.text
            if self.verify:
                certificate = without_point(message, why.details, why.proved)
        elif self.verify:
            certificate = without_point(message, {}, False)
        return ProgramAnswer(
            self.stated, empty, {}, status, message, certificate, found.nodes,
            self.program.warnings, solved,
        )  # fmt: skip
