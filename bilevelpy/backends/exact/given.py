"""A point that the caller gives, as an answer of ``exact``: is it feasible, and is it the best one?

Followers are solved to their global optima at x, and compared with the responses of the point. What
stands is then given to a solve as its start: that ends where it finds something better, or proves
that there is nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.backend import Exact
from bilevelpy.backends.exact.certificate.prices import check_prices
from bilevelpy.backends.exact.certificate.proof import violations
from bilevelpy.backends.exact.certificate.ties import ties_by_values
from bilevelpy.backends.exact.engine.outcome import Limits
from bilevelpy.backends.exact.relaxations.at_point import by_conditions
from bilevelpy.backends.exact.responses.followers import FEASIBLE, Followers
from bilevelpy.backends.exact.responses.kinks import kink_columns
from bilevelpy.backends.exact.responses.leader import leaders_best
from bilevelpy.backends.exact.responses.resolve import resolved
from bilevelpy.backends.whole import Hooks, ProgramAnswer, parts_of, start_from, writing
from bilevelpy.errors import BackendError, UsageError
from bilevelpy.ir.types import Stance
from bilevelpy.numerics.certificate.constrained import (
    Claim,
    Ties,
    examine_point,
    verdict,
    without_point,
)
from bilevelpy.numerics.programs.follower import follower_program
from bilevelpy.numerics.wording import wording
from bilevelpy.reductions.refusal import Refused
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rewriting.normalize import normalize
from bilevelpy.reductions.rows import system
from bilevelpy.result import Status

if TYPE_CHECKING:
    from bilevelpy.backends.exact.options import ExactOptions
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.options import SolveOptions
    from bilevelpy.reductions.rewriting.normalize import Units
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Share of a time limit for followers at the point, and seconds of each where there is no limit.
SHARE, EACH = 0.3, 60.0
# F better by more than this (relative) refutes a point; so far rows and gaps of engines reach.
BETTER = 1e-5
# What F may move by (relative) with the responses solved again.
SETTLED = 1e-4
# Numbers up to which a better point is told, and its leader's part in words.
SHOWN, FEW = 200, 10
# Seconds that the search gets however late it is.
LEAST = 0.1

NOTHING = Claim(False, -math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Compared:
    """What a search from a point claims of it, its nodes, and a ``better`` point."""

    claim: Claim
    nodes: int
    better: Mapping[str, Any] = field(default_factory=dict)
    interrupted: bool = False


class Given:
    """``solve`` answers with the values in ``hooks.start``, which have to be those of all
    variables, and the certificate that they deserve.

    ``responds``: those of the followers are not given; the best responses to x take their place,
    the one that the leader's stance picks where they tie. ``searches`` is False where no global
    search takes the model: then nothing is proved beside feasibility. ``convex``: the followers
    are known to be, so that a local method solves them.
    """

    def __init__(self, *, searches: bool, responds: bool, convex: bool) -> None:
        self.searches, self.responds, self.convex = searches, responds, convex

    def solve(
        self,
        bound: BoundProgram,
        options: SolveOptions,
        settings: ExactOptions,
        verify: bool,
        hooks: Hooks | None = None,
    ) -> ProgramAnswer:
        """The answer that is given.

        Raises
        ------
        BackendError
            Where the model has no scalar rows, or its followers no shadow prices that it reads.
        UsageError
            Where there is no best response to the leader's values.
        """
        began = time.perf_counter()
        hooks = hooks or Hooks()
        try:
            with writing("exact", options.time_limit):
                stated = lift(system(bound))
                units = normalize(stated)
        except Refused as error:
            raise BackendError(str(error)) from error
        pessimistic = bound.program.stance is Stance.PESSIMISTIC
        followers = Followers(units.system, lambda: _limits(options, began))
        v = _placed(stated, hooks.start) / units.columns
        completed = self._completed(followers, v, units, pessimistic)
        if completed is None:
            return self._without_prices(stated, units.given(v), began)
        v, notes, doubts = completed
        found = [_answer(followers, k, v, self.convex) for k in range(len(stated.followers))]
        solved = {k: f[1] for k, f in enumerate(found) if not isinstance(f, str)}
        ties: Ties | None = None
        if len(solved) == len(stated.followers):
            ties = ties_by_values(followers, v, solved, _limits(options, began))
            ties = ties and Ties(units.upper * ties.optimistic, units.upper * ties.pessimistic)
        point = units.given(v)
        above, below = violations(stated, point)

        told = units.told()
        seen = examine_point(
            told, v, ties=ties, solved=solved, seed=options.seed, pessimistic=pessimistic,
            deadline=began + options.time_limit, units=units.lower, upper_unit=units.upper,
            convex=self.convex,
        )  # fmt: skip
        stands = seen.stands and not doubts
        searched = Compared(NOTHING, 0)
        if stands and self.searches:
            left = max(options.time_limit - (time.perf_counter() - began), LEAST)
            asked = replace(options, time_limit=left)
            searched = _compared(bound, stated, point, asked, settings)
        # What refutes a point has nothing to do with how good it is.
        claim = searched.claim if stands else Claim(True, math.nan, 0.0)
        claim = replace(claim, notes=notes, doubts=(*doubts, *claim.doubts))
        made = verdict(told, claim, seen)
        details = {k: d for k, d in made.details.items() if stands or k not in ("bound", "gap")}
        certificate = replace(
            made, upper_feasibility=above, lower_feasibility=below,
            details={**details, **searched.better},
        )  # fmt: skip
        status, said = Status.CONVERGED, "no other point is better"
        if certificate.kind != "global":
            status = Status.INTERRUPTED if searched.interrupted else Status.STALLED
            said = f"the point is not certified: {'; '.join(certificate.reasons[:1])}"
        return ProgramAnswer(
            stated, point, {}, status, said, certificate, searched.nodes, (),
            time.perf_counter() - began,
        )  # fmt: skip

    def _completed(
        self, followers: Followers, v: Array, units: Units, pessimistic: bool
    ) -> tuple[Array, tuple[str, ...], tuple[str, ...]] | None:
        """The point with what is not given of it (responses, prices, heights of kinks), notes on it
        and doubts about it; None where no prices belong to it.
        """
        s, limits = followers.system, followers.limits()
        priced = bool((s.columns.owner < 0).any())
        if priced or (self.responds and any(f.nash for f in s.followers)):
            try:
                known = by_conditions(s, v, limits, responds=self.responds, pessimistic=pessimistic)
            except Refused as error:
                raise BackendError(str(error)) from error
            if known is None:
                return None
            program, values = known
            said = check_prices(program, values, limits, units) if priced else ((), ())
            return values[: v.size], *said
        if self.responds:
            return _responded(followers, v, pessimistic, self.convex), (), ()
        v = _with_heights(s, v)
        return v, (), _moved(s, v)

    def _without_prices(self, stated: System, point: Array, began: float) -> ProgramAnswer:
        """The answer where the followers' conditions have no solution at the point."""
        why = "no shadow prices belong to the point: the responses in it are no best ones"
        columns, own = stated.columns, stated.upper_columns
        inside = np.clip(point, columns.lower, columns.upper)
        inside = np.where(columns.integer, np.round(inside), inside)
        off = np.abs(inside - point)[own]
        if off.max(initial=0.0) > BETTER:
            worst = int(np.argmax(off))
            why = f"`{columns.names[own[worst]]}` leaves its domain by {off[worst]:.1e}"
        elif self.responds:
            raise UsageError("answer: the followers have no best response to it that was found")
        v = np.where(stated.columns.owner < 0, math.nan, point)
        return ProgramAnswer(
            stated, v, {}, Status.STALLED, f"the point is not certified: {why}",
            without_point(why, {}, False), 0, (), time.perf_counter() - began,
        )  # fmt: skip


def _limits(options: SolveOptions, began: float) -> Limits:
    left = SHARE * options.time_limit - (time.perf_counter() - began)
    return Limits(min(max(left, LEAST), EACH), options.tol, options.seed, feasible=FEASIBLE)


def _placed(s: System, values: Mapping[str, Any]) -> Array:
    """Values of the columns by name, where they are: also outside of bounds."""
    v = s.columns.start.copy()
    for block in s.columns.blocks:
        value = values.get(f"{block.level}.{block.name}", values.get(block.name))
        if value is not None:
            v[block.offset : block.offset + block.size] = np.reshape(value, -1)
    return v


def _with_heights(s: System, v: Array) -> Array:
    """The point with epigraphs of kinks as low as they may be: they are no part of an answer."""
    kinks, full = kink_columns(s), v.copy()
    for k in range(len(s.followers)):
        own = np.flatnonzero(kinks & (s.columns.owner == k + 1))
        found = replace(follower_program(s, k, full), free=own).solve() if own.size else None
        if found is not None and found.values is not None:
            full[own] = found.values[own]
    return full


def _moved(s: System, v: Array) -> tuple[str, ...]:
    """A doubt where the least that responses are off by is worth much to the leader."""
    here = float(s.objective.value(v)[0])
    moved = abs(resolved(s, v)[1] - here) / max(1.0, abs(here))
    if moved <= SETTLED:
        return ()
    return (f"F moves by {moved:.1e} (relative) where the responses are solved again",)


def _answer(followers: Followers, k: int, v: Array, convex: bool) -> tuple[Array, float] | str:
    """The best response of follower k to the rest of the point, and its objective; else how the
    search for it ended.
    """
    if convex:  # engines for all programs are slow to tell the last digits of these
        found = follower_program(followers.system, k, v).solve(convex=True, sharp=True)
        if found.status == "optimal" and found.values is not None:
            return found.values, found.objective
    answer = followers.solve(k, v)
    if answer.status != "optimal" or answer.values is None:
        return answer.status
    return answer.values, answer.objective


def _responded(followers: Followers, v: Array, pessimistic: bool, convex: bool) -> Array:
    """The point with best responses to the leader's values."""
    s, full, solved = followers.system, v.copy(), {}
    for k, follower in enumerate(s.followers):
        found = _answer(followers, k, v, convex)
        if isinstance(found, str):
            raise UsageError(
                f"answer: `{follower.name}` has no best response to it that was found: {found}"
            )
        own = np.flatnonzero(s.columns.owner == k + 1)
        full[own], solved[k] = found[0][own], found[1]
    picked = leaders_best(followers, full, solved, sign=-1.0 if pessimistic else 1.0)
    return resolved(s, full if picked.values is None else picked.values[: full.size])[0]


def _compared(
    bound: BoundProgram, s: System, v: Array, options: SolveOptions, settings: ExactOptions
) -> Compared:
    """What a solve from the point says of it (F is minimised)."""
    F = float(s.objective.value(v)[0])
    margin, says = BETTER * max(1.0, abs(F)), wording(s.sign)

    def observe(_s: System, _v: Array, objective: float, _bound: float, _seconds: float) -> bool:
        return objective < F - margin

    start = start_from(s.columns.blocks, *parts_of(s.columns.blocks, v))
    found = Exact().solve(bound, options, settings, True, Hooks(start, observe))
    nodes, known = found.iterations, found.certificate
    if found.status is Status.UNBOUNDED:
        return Compared(replace(NOTHING, doubts=(f"F {says.falls} without bound",)), nodes)
    if known is None or not found.has_point:
        return Compared(NOTHING, nodes, interrupted=found.status is Status.INTERRUPTED)
    ended = s.sign * known.details.get("bound", -s.sign * math.inf)
    proved = known.kind == "global"
    claim = Claim(proved, ended, max(F - ended, 0.0) / max(1.0, abs(F)))
    off = max(known.lower_gap_relative, known.lower_feasibility, known.upper_feasibility)
    if s.sign * found.objectives()[0] < F - margin and off <= BETTER:
        doubt, better = _told(found, s.sign * F)
        return Compared(replace(claim, proved=False, doubts=(doubt,)), nodes, better)
    if proved and ended - margin > F:
        doubt = (
            f"F is {says.better} than {s.sign * ended:.6g}, which is proved for all points: this "
            "one is feasible within tolerances only"
        )
        claim = replace(claim, doubts=(doubt,))
    return Compared(claim, nodes, interrupted=found.status is Status.INTERRUPTED)


def _told(found: ProgramAnswer, F: float) -> tuple[str, dict[str, Any]]:
    """A better point than one with ``F``, in words and for the details of a certificate."""
    upper, lower = found.variables()
    there = found.objectives()[0]
    details: dict[str, Any] = {"better_F": there}
    if found.values.size <= SHOWN:
        named = {**upper, **{f"{k}.{n}": y for k, ys in lower.items() for n, y in ys.items()}}
        details["better"] = {name: value.tolist() for name, value in named.items()}
    where = ""
    if sum(x.size for x in upper.values()) <= FEW:
        texts = {n: ", ".join(f"{x:.6g}" for x in value.reshape(-1)) for n, value in upper.items()}
        where = f" ({'; '.join(f'{name} = {text}' for name, text in texts.items())})"
    return f"another point{where} has F = {there:.6g} instead of {F:.6g}", details
