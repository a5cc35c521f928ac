"""Starts of ``conic`` and ``kkt`` where the upper level has rows: what a run knows, where it
begins, and which of its ends is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from bilevelpy.backends.constrained.feasible_starts import (
    feasible_starts,
    no_feasible_start,
    random_point,
)
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.cones.nearest_feasible import derivatives, nearest_feasible
from bilevelpy.numerics.cones.sample import kinds, names, sample
from bilevelpy.numerics.cones.sequential import (
    Kinds,
    Sample,
    Units,
    merit,
    nearest,
    units_of,
    violations,
)
from bilevelpy.numerics.driver.measure import Finish
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.qp.rows import Sides
from bilevelpy.numerics.rows.sample import RowsSampler, kinds_with_cuts, with_cuts
from bilevelpy.result import Status

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]
# A sample at the response to x; None where there is none.
Sampler = Callable[[Any, Vec, Vec], Sample | None]

# Rows hold when they are off by less than this fraction of the extent (and their slopes).
FEASIBLE = 1e-9
# Weight of violations at first, in units of F's slope over that of a row; the first radius around
# a kink, in extents.
WEIGHT, WIDEST = 2.0, 1e-2
# Points of a scan, the best of which are starts beside that of the model; ends that agree.
SCAN, AGREE, SAME = 16, 3, 1e-6
# Differences of F below this fraction of it are rounding.
ROUNDING = 1e-9
# What a violation costs there, in units of F's slope over that of a row.
COST = 10.0


@dataclass(slots=True)
class RowsState:
    """The run from one start, the best end of those before, and what they share.

    ``B`` is the BFGS matrix, ``plain`` before its first pair, ``mu`` the weight of violations;
    ``held`` held the last step; ``radius`` and ``bend`` (a curvature) belong to kinks, in which
    steps get ``jammed``; ``values`` are F at the latest points of the start that meet the rows.
    ``verdict`` is that of the start with the best end.
    """

    oracle: Any
    tol: float
    rng: torch.Generator
    starts: list[Vec]
    kinds: Kinds
    start: tuple[Vec, Vec]
    sampler: Sampler
    here: Sample | None = None
    units: Units = field(default_factory=lambda: Units(1.0, 1.0, np.zeros(0)))
    B: Array = field(default_factory=lambda: np.zeros((0, 0)))
    plain: bool = True
    held: Sides | None = None
    mu: float = WEIGHT
    stationarity: float = math.inf
    radius: float = WIDEST
    bend: float = 1.0
    jammed: bool = False
    recent: list[Sample] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    best: Sample | None = None
    verdict: Finish | None = None
    ends: list[float] = field(default_factory=list)
    finish: Finish | None = None

    def off(self, at: Sample) -> float:
        """The largest violation of a row, in extents."""
        rows = violations(at.rows.numpy(), self.kinds.equality)
        return float((rows / (self.units.rows * self.units.extent)).max(initial=0.0))


def begin_rows(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    tol: float,
    starts: int,
    rng: torch.Generator,
    sampler: Sampler = sample,
) -> RowsState:
    """The first start, and the best points of a scan after it; ``sampler`` solves the lower level
    and differentiates along its responses.
    """
    o: Any = oracle
    found = kinds(o)
    state = RowsState(o, tol, rng, [], found, (x, y), sampler)
    first = _plain(state, x, y)
    if first is None:
        state.finish = Finish(Status.INFEASIBLE, _no_x(state))
        return state
    here = sampler(o, first, y)
    if here is None:
        others = (_plain(state, at, y) for at in feasible_starts(o, first, rng))
        tried = (sampler(o, at, y) for at in others if at is not None)
        here = next((one for one in tried if one is not None), None)
    if here is None:
        state.finish = no_feasible_start(o, first)
        return state
    first = here.x
    enter(state, here)
    scanned: list[tuple[float, int, Sample]] = []
    for t in range(SCAN if starts > 1 else 0):
        at = _plain(state, random_point(o, first, rng), o.y0)
        one = None if at is None else sampler(o, at, y)
        if one is None:
            continue
        scanned.append((merit(one.F, one.rows.numpy(), found, state.units, COST), t, one))
    ranked = [s.x for _, _, s in sorted(scanned, key=lambda s: s[:2])]
    state.starts = _apart(first, ranked, starts - 1)
    return state


def widened(state: RowsState) -> None:
    """Adopt the rows that the lower level has shown to imply; what is known of the point stays."""
    sampler, here = state.sampler, state.here
    assert isinstance(sampler, RowsSampler)
    assert here is not None
    count, sampler.adopted = len(sampler.cuts) - sampler.adopted, len(sampler.cuts)
    new = sampler.cuts[-count:]
    state.here = here = with_cuts(state.oracle, here, new)
    if state.best is not None:
        state.best = with_cuts(state.oracle, state.best, new)
    state.kinds = kinds_with_cuts(state.kinds, count)
    sizes = np.concatenate([state.units.rows, here.own[-count:].clamp(min=1e-300).numpy()])
    state.units = replace(state.units, rows=sizes)
    state.recent, state.jammed, state.radius = [], False, WIDEST


def _apart(first: Vec, ranked: list[Vec], count: int) -> list[Vec]:
    """The best point, then those of the better half that are farthest from all before."""
    rest, chosen = ranked[: max(len(ranked) // 2, 1)], [first]
    while rest and len(chosen) <= count:
        near = [min(norm(x - z) for z in chosen) for x in rest]
        chosen.append(rest.pop(0 if len(chosen) == 1 else int(np.argmax(near))))
    return chosen[1:]


def enter(state: RowsState, at: Sample) -> None:
    """Begin a run at a point."""
    state.here, state.mu, state.recent = at, WEIGHT, []
    state.radius, state.bend, state.jammed = WIDEST, 1.0, False
    state.units = units_of(at, state.oracle.domain_x, state.oracle.x0)
    state.B, state.stationarity = np.eye(at.x.numel()), math.inf
    state.plain, state.held, state.values = True, None, []


def close(state: RowsState, end: Finish) -> None:
    """Keep the ``end`` of a start if it is the best: rows first, then F; of two with the same F the
    one that has converged.
    """
    here, best = state.here, state.best
    assert here is not None
    off = state.off(here)
    state.ends.append(here.F if off <= 10.0 * FEASIBLE else math.inf)
    if best is None or state.verdict is None:
        state.best, state.verdict = here, end
        return
    before = state.off(best)
    if max(off, before) <= 10.0 * FEASIBLE:
        better = here.F < best.F
        said = [e.status is Status.CONVERGED for e in (end, state.verdict)]
        if said[0] != said[1] and abs(here.F - best.F) <= ROUNDING * abs(best.F):
            better = said[0]
    else:
        better = off < before
    if better:
        state.best, state.verdict = here, end


def agreed(state: RowsState) -> bool:
    """Whether the last starts have led to the same F."""
    last = state.ends[-AGREE:]
    if len(last) < AGREE or not all(map(math.isfinite, last)):
        return False
    return max(last) - min(last) <= SAME * max(abs(last[-1]), state.units.value)


def _plain(state: RowsState, x: Vec, y: Vec) -> Vec | None:
    """The nearest point of the domain at which the rows of x alone hold."""
    domain = state.oracle.domain_x
    x = domain.project(x)
    if not state.kinds.plain.any():
        return x
    values, C_x, _ = derivatives(state.oracle.G, x, y)
    return nearest(x, domain, state.kinds, values.numpy(), C_x.numpy())


def _no_x(state: RowsState) -> str:
    plain = [n for n, p in zip(names(state.oracle), state.kinds.plain, strict=True) if p]
    rows = ", ".join(f"`{n}`" for n in dict.fromkeys(plain))
    return f"no x of its domain meets the upper constraints {rows}, whatever the followers do"


def unmet(state: RowsState, at: Sample) -> Finish:
    """That the rows are not met, and whether that is proved."""
    off = violations(at.rows.numpy(), state.kinds.equality)
    worst = int((off / state.units.rows).argmax())
    row = names(state.oracle)[worst]
    if nearest_feasible(state.oracle, at.x, state.oracle.g, state.oracle.G).impossible:
        return Finish(
            Status.INFEASIBLE,
            f"no x and y of their domains meet the upper constraints, whatever the followers want; "
            f"`{row}` is violated by {off[worst]:.2e} at least by what was tried",
        )
    return Finish(
        Status.STALLED,
        f"no x was found at which the best response meets the upper constraints: `{row}` is "
        f"violated by {off[worst]:.2e} at the best of {len(state.ends)} ends; that there is none "
        "is not proved",
    )
