"""Whether F along re-solved responses falls beside a point: the check of a claim of local
optimality that trusts no derivative.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Steps relative to the size of x, directions beside the axes, and evaluations at most.
STEPS = (1e-2, 1e-3)
RANDOM = 8
MOST = 60
# A fall of F by more than this (relative) is one.
FALL = 1e-5
# Rows of the leader may be off by this at a point beside.
ROOM = 1e-9


@dataclass(frozen=True, slots=True)
class Probe:
    """``tried`` points beside had responses that suit the leader; the best of them changes F by
    ``-fall``, at the values ``place``. ``late``: the time was up before all were tried.
    """

    tried: int
    fall: float
    place: Array | None
    late: bool = False


def probe(
    system: System,
    v: Array,
    respond: Callable[[Array], Array | None],
    rng: np.random.Generator,
    deadline: float = math.inf,
) -> Probe:
    """Try points beside x; ``respond`` gives values of all columns at best responses."""
    chosen = system.upper_columns
    low, high = system.columns.lower[chosen], system.columns.upper[chosen]
    here = float(system.objective.value(v)[0])
    axes = [s * e for e in np.eye(chosen.size) for s in (1.0, -1.0)] if chosen.size <= MOST else []
    random = rng.standard_normal((RANDOM, chosen.size))
    random /= np.maximum(np.linalg.norm(random, axis=1, keepdims=True), 1e-300)
    directions = [*axes, *random]
    rng.shuffle(directions)
    size = max(1.0, float(np.abs(v[chosen]).max(initial=0.0)))
    tried, fall, place = 0, 0.0, None
    for step in STEPS:
        for d in directions[: MOST // len(STEPS)]:
            if time.perf_counter() > deadline:
                return Probe(tried, fall, place, late=True)
            trial = v.copy()
            trial[chosen] = np.clip(v[chosen] + step * size * d, low, high)
            if np.array_equal(trial[chosen], v[chosen]):
                continue
            found = respond(trial)
            if found is None:
                continue
            rows = system.upper_rows
            if float(rows.violation(found).max(initial=0.0)) > ROOM * size:
                continue
            tried += 1
            gain = here - float(system.objective.value(found)[0])
            if gain > FALL * max(1.0, abs(here)) and gain > fall:
                fall, place = gain, found
    return Probe(tried, fall, place)
