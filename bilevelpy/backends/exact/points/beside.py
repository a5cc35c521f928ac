"""Where a proof does not end in time: whether the best point is a local optimum at least.

Followers are solved again at points beside x; F at these responses is compared with F at x. From a
point where it is lower the comparison goes on, so that the answer is one that no small step of the
leader betters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.nlp.response import Responses
from bilevelpy.numerics.certificate.local_probe import probe

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Steps to better points at most.
ONWARD = 20


def is_comparable(system: System) -> bool:
    """Whether a claim can rest on points beside x: the leader decides real numbers, and responses
    are found one follower at a time. The followers have to be convex.
    """
    columns = system.columns
    games = any(f.nash for f in system.followers) or bool((columns.owner == -1).any())
    return not games and not bool(columns.integer[system.upper_columns].any())


def points_beside(system: System, v: Array, seed: int, deadline: float) -> tuple[Array, int]:
    """As :func:`settled_beside`; values as they came where nothing can be compared, or nothing was
    better.
    """
    if not is_comparable(system):
        return v, 0
    moved, count = settled_beside(system, v, seed, deadline)
    return (v if np.array_equal(moved, v[: moved.size]) else moved), count


def settled_beside(system: System, v: Array, seed: int, deadline: float) -> tuple[Array, int]:
    """The best point that steps beside x lead to until ``deadline`` (of ``time.perf_counter``), and
    the number of points beside that at which F is not lower: 0 where too few were compared.

    Parameters
    ----------
    v
        Values of ``system.columns`` (further values are dropped).
    """
    rng = np.random.default_rng(seed)
    quick = Responses.of(system, rng, convex=True)
    quick.deadline = deadline

    def respond(at: Array) -> Array | None:
        answer = quick.all(at)
        return None if answer is None else answer[0]

    here = v[: system.columns.count]
    for _ in range(ONWARD):
        seen = probe(system, here, respond, rng, deadline)
        if seen.place is None:
            enough = seen.tried > system.upper_columns.size
            return here, seen.tried if enough else 0
        here = seen.place
    return here, 0
