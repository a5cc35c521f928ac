"""Followers' answers at a point: which of them prefer another response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.responses.followers import BEST, is_sharp
from bilevelpy.numerics.certificate.constrained import TIED
from bilevelpy.numerics.programs.follower import objective_scale

if TYPE_CHECKING:
    from bilevelpy.backends.exact.engine.outcome import Outcome
    from bilevelpy.backends.exact.responses.followers import Followers
    from bilevelpy.backends.exact.responses.progress import Progress

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Worse:
    """A follower whose objective is ``here``, and ``least`` at its ``response``."""

    follower: int
    response: Array
    here: float
    least: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """Who prefers another response; the point with best ``responses`` and their values."""

    worse: tuple[Worse, ...]
    responses: Array
    solved: dict[int, float]


def answers(run: Followers, v: Array, state: Progress) -> list[Outcome] | None:
    """Best responses of all followers at x; None, with the reason in ``state``, where one could not
    be found.
    """
    found = []
    for k, follower in enumerate(run.system.followers):
        answer = run.solve(k, v)
        state.nodes += answer.nodes
        if answer.status != "optimal" or answer.values is None:
            state.why = f"`{follower.name}` could not be solved at x: {answer.status}"
            return None
        found.append(answer)
    return found


def judged(run: Followers, v: Array, found: list[Outcome]) -> Judgement:
    """The responses at a point beside the best ones to its x."""
    system = run.system
    responses, solved, worse = v.copy(), {}, []
    for k, answer in enumerate(found):
        assert answer.values is not None
        own = np.flatnonzero(system.columns.owner == k + 1)
        here = float(system.lower_objectives.take([k]).value(v)[0])
        responses[own] = answer.values[own]
        terms = max(objective_scale(system.lower_objectives, k, at, own) for at in (v, responses))
        size = max(terms, abs(answer.objective), 1e-3)
        solved[k] = min(answer.objective, here)
        tied = TIED if is_sharp(system, k, v) else 0.0
        if here - answer.objective > max(BEST * size, tied):
            worse.append(Worse(k, answer.values[: v.size], here, answer.objective))
    return Judgement(tuple(worse), responses, solved)
