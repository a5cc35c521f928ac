"""Further runs of ``kkt`` after the first one has ended: from where short runs say that F is lower.

F(x, y(x)) has many local minima where the lower level is nearly linear. Once a run has come to an
end, responses all over the upper set, short descents from the best of them and continuations in an
added curvature look for a better start, for a part of the work that the run has taken. The run from
there is one for the true problem, and the better of both ends is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bilevelpy.backends.constrained.continuation import continuations
from bilevelpy.backends.constrained.descents import Descents, Place
from bilevelpy.backends.constrained.feasible_starts import random_point
from bilevelpy.backends.constrained.starts import RowsState
from bilevelpy.backends.nlp.starts import between
from bilevelpy.numerics.driver.measure import Finish, Measure
from bilevelpy.numerics.rows.response import ConstrainedLower
from bilevelpy.numerics.rows.sample import RowsSampler
from bilevelpy.numerics.upper.state import UpperState
from bilevelpy.result import Status

Vec = torch.Tensor
Run = UpperState | RowsState

# Points that are looked at; upper variables up to which short runs begin at the best of them,
# how many, and their steps.
POINTS, FEW, BEST, STEPS = 16, 10, 3, 30
# Systems of lower programs that are always affordable up to so many lower variables and rows, and
# for one upper variable more; beyond these numbers, the part of those of the run.
AFFORDABLE, EACH = ((400, 2000), (1000, 800), (3000, 200)), 500
PART = 0.5
# F has to be lower by this, relative to its size at both points; an end that is no optimum takes
# the place of one only where it is clearly better.
LOWER, CLEARLY = 1e-6, 1e-3


@dataclass(slots=True)
class Further:
    """A run, ``inner``, and what is known of others: ``pending`` is the end that it has come to
    before others are looked for, ``rival`` the end of the first one, ``over`` the end of all.
    """

    inner: Run
    pending: Finish | None = None
    rival: Measure | None = None
    over: Measure | None = None


def ended(found: Measure, tol: float) -> Finish | None:
    """The end that a run has come to at a measure."""
    if found.finish is not None:
        return found.finish
    upper, lower = found.stationarity, found.lower_accuracy
    if upper is None or lower is None or not max(upper, lower) <= tol:
        return None
    return Finish(
        Status.CONVERGED,
        f"relative hypergradient {upper:.1e} and lower residual {lower:.1e} within tol",
    )


def described(state: Further, found: Measure) -> Measure:
    """The measure of the run, with the ends that it has behind it, or is at."""
    if state.over is not None:
        return state.over
    if state.pending is not None:
        return replace(found, finish=None, rival=replace(found, finish=state.pending), goes_on=True)
    return found if state.rival is None else replace(found, rival=state.rival)


def note(state: Further, found: Measure, tol: float) -> None:
    """Look at the measure of the run: whether others follow, or which of two ends is kept."""
    end = ended(found, tol)
    if end is None:
        return
    if state.rival is not None:
        state.over = _better(state.rival, replace(found, finish=end))
    elif end.status in (Status.CONVERGED, Status.STALLED) and math.isfinite(found.F):
        state.pending = end


def search(state: Further, oracle: Any, here: Measure, begin: Callable[[Vec, Vec], Run]) -> None:
    """Look for a better start, and ``begin`` a run there; without one the end is that of the
    first.
    """
    first = replace(here, finish=state.pending, rival=None, goes_on=False)
    state.pending = None
    found = better_start(oracle, here, allowed(oracle, _spent(state.inner)))
    if found is None:
        state.over = first
        return
    earlier, state.rival, state.inner = state.inner, first, begin(found.x, found.y)
    if isinstance(earlier, UpperState) and isinstance(state.inner, UpperState):
        # Small slopes are small beside those of the whole search: a plateau is flat.
        state.inner.norms[:0] = earlier.norms


def _spent(run: Run) -> int:
    """Systems that the lower programs of a run have taken."""
    by: Any = run.sampler if isinstance(run, RowsState) else run.response.method
    if isinstance(by, RowsSampler):
        by = by.solver
    return int(by.tally.systems) if isinstance(by, ConstrainedLower) else 0


def allowed(oracle: Any, spent: int) -> int:
    """Systems that a search may take after a run that has taken ``spent``."""
    size, n = int(oracle.m + oracle.g.size), int(oracle.n)
    least = next((systems for most, systems in AFFORDABLE if size <= most), 0)
    return max(min(least, EACH * (n + 1)), int(PART * spent))


def better_start(oracle: Any, here: Measure, systems: int) -> Place | None:
    """The place with the lowest F that short runs find within so many systems, if it is lower
    than at the end ``here`` of a run.
    """
    few = oracle.n <= FEW
    # The more upper variables there are, the less single points say.
    descents = Descents(oracle, systems // (1 + min(oracle.n, BEST)))
    rng = torch.Generator().manual_seed(0)
    points = list(descents.looked(_points(oracle, here.x, rng), here.y))
    ends = [*points, *(_descended(descents, points) if few else ())]
    descents.allowed = systems
    # Shadow prices are those of f without a term.
    if len(points) > 1 and not hasattr(oracle, "are_unique"):
        ends += continuations(descents, points, Place(here.x, here.y, here.F))
    best = min(ends, key=lambda p: p.F, default=None)
    if best is None:
        return None
    gain = here.F - best.F
    return best if gain > LOWER * max(abs(here.F), abs(best.F)) else None


def _descended(descents: Descents, points: list[Place]) -> Iterator[Place]:
    """The ends of descents from the best points."""
    for point in sorted(points, key=lambda p: p.F)[:BEST]:
        if descents.is_over:
            return
        found = descents.down(descents.oracle, point.x, point.y, STEPS)
        if found is not None:
            yield found


def _points(oracle: Any, x: Vec, rng: torch.Generator) -> Iterator[Vec]:
    """The start of the model, and points all over the upper set."""
    domain = oracle.domain_x
    yield domain.project(oracle.x0)
    low, high = domain.lower.numpy(), domain.upper.numpy()
    is_finite = bool(np.isfinite(low).all() and np.isfinite(high).all())
    for k in range(POINTS):
        if is_finite and oracle.n == 1:
            yield domain.project(torch.from_numpy(between(low, high, (k + 0.5) / POINTS)))
        else:
            yield random_point(oracle, x, rng)


def _better(first: Measure, second: Measure) -> Measure:
    """The end that is kept."""
    assert first.finish is not None
    assert second.finish is not None
    if second.finish.status is Status.UNBOUNDED:
        return second
    gain = first.F - second.F
    if second.finish.status not in (Status.CONVERGED, Status.STALLED) or not gain > 0.0:
        return first
    loses = first.finish.status is Status.CONVERGED and second.finish.status is Status.STALLED
    size = max(abs(first.F), abs(second.F))
    return first if loses and gain <= CLEARLY * size else second
