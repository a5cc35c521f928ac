"""Steps of ``kkt`` across kinks where the upper level has rows: from piece to piece.

Where steps get short, the response has come to the end of a piece on which what holds it stays the
same. F is smooth up to there: a step that respects the ends of the piece slides along the kink, and
where the piece has nothing better left, those behind the ends that its multipliers push at are
tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bilevelpy.backends.constrained.starts import RowsState
from bilevelpy.numerics.cones.sequential import Sample, Step
from bilevelpy.numerics.cones.sequential_rows import Within, step_by_exchanges
from bilevelpy.numerics.qp.rows import Sides
from bilevelpy.numerics.rows.piece import Piece
from bilevelpy.numerics.rows.piece_sample import Pieces
from bilevelpy.numerics.rows.sample import RowsSampler

Array = np.ndarray[Any, np.dtype[Any]]
# A part of a step, from where it leads, with what the ends of the piece have bent away; or None.
Bend = Callable[[Sample, float], Array | None]
# A point along a step, or along its bend, with less merit, or None.
Search = Callable[[Sample, Step, Bend], Sample | None]

# Pieces behind single ends that are tried.
SINGLE = 20
# Ends that come in at once, and how often; pushes below this part of the largest are none.
AT_ONCE, ROUNDS, PUSH = 10, 40, 1e-9
# Ends nearer than this to the point, in extents, are met by it.
MET = 1e-9
# Slopes of ends below this fraction of the largest singular value depend on the others.
DEPENDENT = 1e-10
# Programs of a step at most, and the part of their pushes that the last one may change.
TURNS, SETTLED = 4, 0.1


@dataclass(frozen=True, slots=True)
class Onward:
    """Where pieces have led: a better point ``new`` by a ``step`` from the point ``at`` as one of a
    piece, at an end of which it may lie (``met``); ``known``: by the curvature there. Without a
    better point, ``left`` is the largest stationarity on the pieces that were tried, infinite
    where it is not known.
    """

    left: float
    new: Sample | None = None
    at: Sample | None = None
    step: Step | None = None
    met: bool = False
    known: bool = False


def over_pieces(state: RowsState, here: Sample, search: Search) -> Onward:
    """A better point on one of the pieces that meet at ``here``."""
    pieces = _pieces(state, here)
    found = None if pieces is None else pieces.on()
    stepped = None if pieces is None or found is None else _step(state, pieces, *found)
    if pieces is None or found is None or stepped is None:
        return Onward(math.inf)
    piece, pushed = found[1], stepped[1]
    worst, ways = 0.0, _crossings(pushed)
    while True:
        if found is None or stepped is None:
            worst = math.inf
        else:
            (at, on), (step, ends) = found, stepped
            new = search(at, step, partial(_bent, pieces, on, step, ends, state.units.extent))
            if new is not None:
                return Onward(0.0, new, at, step, bool(ends.any()), pieces.is_known)
            worst = max(worst, _length(state, step))
        behind = next(ways, None)
        if behind is None:
            return Onward(worst)
        found = pieces.on(piece.crossed(behind))
        stepped = None if found is None else _step(state, pieces, *found)


def _length(state: RowsState, step: Step) -> float:
    """What the multipliers leave of F's derivative."""
    return float(np.linalg.norm(state.B @ step.d))


def _pieces(state: RowsState, here: Sample) -> Pieces | None:
    sampler = state.sampler
    return Pieces.at(sampler.solver, here) if isinstance(sampler, RowsSampler) else None


def _crossings(pushed: Array) -> Iterator[Array]:
    """All ends that are pushed at, then each alone, the hardest first."""
    ends = np.flatnonzero(pushed > 0.0)
    if ends.size > 1:
        yield ends
    for end in ends[np.argsort(-pushed[ends], kind="stable")][:SINGLE]:
        yield np.array([end])


def _step(state: RowsState, pieces: Pieces, at: Sample, piece: Piece) -> tuple[Step, Array] | None:
    """The step within a piece, by its own curvature and that of the ends that it pushes at, and how
    hard it pushes at each.
    """
    units, kinds = state.units, state.kinds
    bent = pieces.curvature(piece, np.zeros(len(units.rows)))
    found = _within(state, at, piece, bent)
    if found is None or bent is None:
        return None if found is None else found[:2]
    for _ in range(TURNS):
        step, pushed, held = found
        weights = step.multipliers
        is_pushed = pushed.any() and pieces.is_bent
        if not is_pushed and (kinds.plain.all() or not weights[~kinds.plain].any()):
            break
        # The curvature of rows counts with their multipliers, and so does that of the ends.
        fixed = held.bounds[: len(state.B)] != 0
        bent = pieces.curvature(
            piece, weights * units.parts / units.rows, pushed * units.value, fixed
        )
        found = _within(state, at, piece, bent)
        if found is None:
            return None
        if np.linalg.norm(found[1] - pushed) <= SETTLED * np.linalg.norm(pushed):
            break
    return found[:2]


def _bent(
    pieces: Pieces,
    piece: Piece,
    step: Step,
    pushed: Array,
    extent: float,
    new: Sample,
    length: float,
) -> Array | None:
    """The part ``length`` of a step, which has led to ``new``, and the shortest move back to where
    the ends that it pushes at, or is beyond, should be by their slopes: a second-order correction.
    """
    ahead = pieces.ahead(piece, new.x)
    if ahead is None or not np.isfinite(ahead).all():
        return None
    domain = pieces.solver.oracle.domain_x
    free = ((new.x > domain.lower) & (new.x < domain.upper)).numpy()
    slopes = extent * piece.within.slopes
    size = np.linalg.norm(slopes[:, free], axis=1)
    ends = np.flatnonzero(((pushed > 0.0) | (ahead < 0.0)) & (size > 0.0))
    wanted = np.maximum(piece.within.ahead, 0.0) + length * (slopes @ step.d)
    off, size = ((wanted - ahead)[ends] / size[ends], size[ends])
    back = length * step.d
    back[free] += np.linalg.lstsq(slopes[ends][:, free] / size[:, None], off, rcond=DEPENDENT)[0]
    return back


def _within(
    state: RowsState, at: Sample, piece: Piece, bent: Array | None
) -> tuple[Step, Array, Sides] | None:
    """The program with the ends of the piece, which come in as steps meet them: few of them hold
    one.
    """
    units, ends = state.units, piece.within
    if bent is not None:
        state.B, state.plain = bent * (units.extent / units.parts), False
    chosen, guess = np.zeros(0, dtype=np.intp), state.held
    reach = np.maximum(ends.ahead, 0.0)
    rounding = MET * units.extent * np.linalg.norm(ends.slopes, axis=1)
    for _ in range(ROUNDS):
        found = step_by_exchanges(
            at, state.oracle.domain_x, state.kinds, units, state.B, state.mu, guess,
            within=Within(reach[chosen], ends.slopes[chosen]),
        )  # fmt: skip
        if found is None:
            return None
        step, guess, push = found
        moves = ends.slopes @ (units.extent * step.d)
        over = np.flatnonzero(reach + moves < -rounding)
        if not over.size:
            pushed = np.zeros(len(reach))
            pushed[chosen] = np.where(push > PUSH * np.abs(push).max(initial=0.0), push, 0.0)
            return step, pushed, guess
        part = reach[over] / -moves[over]
        new = np.setdiff1d(over[np.argsort(part, kind="stable")][:AT_ONCE], chosen)
        if not new.size:
            return None
        chosen = np.concatenate([chosen, new])
    return None
