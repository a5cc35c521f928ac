"""Checks of variables against the data: bounds that leave room, starts inside them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bilevelpy.ir.emptiness import NAMES, REASONS, is_empty
from bilevelpy.ir.evaluate import Array
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.program import Variable
from bilevelpy.ir.types import DomainKind
from bilevelpy.sema.binding.domains import domain_text, value_text
from bilevelpy.sema.binding.problems import evaluation_problem, ready
from bilevelpy.sema.binding.state import State

LARGEST = 1 << 31
"""More entries than this no run holds."""
End = Array | np.float64
"""A bound or a start: one value, or one for each entry."""


def check_variables(state: State) -> None:
    """Report bounds that cross, and starts that lie outside of them or are no numbers."""
    for level in state.program.levels:
        for variable in level.variables:
            _check(state, variable)


def _check(state: State, variable: Variable) -> None:
    if any(axis not in state.sizes or axis in state.failed for axis in variable.axes):
        return
    domain = variable.domain
    shape = tuple(state.sizes[a] for a in variable.axes)
    if math.prod(shape) > LARGEST:
        note = f"its {math.prod(shape):,} entries do not fit into memory"
        state.report("BLV0425", variable.span, "", what=f"`{variable.name}`", notes=(note,))
        return
    low: End | None = np.float64(-np.inf)
    high: End | None = np.float64(np.inf)
    if domain.kind in (DomainKind.INTERVAL, DomainKind.INTEGERS):
        low, high = _end(state, domain.lower, -np.inf), _end(state, domain.upper, np.inf)
    elif domain.kind is DomainKind.BINARY:
        low, high = np.float64(0.0), np.float64(1.0)
    if low is None or high is None:
        return
    crossed = _first(~(low <= high), shape)
    place = crossed
    if crossed is None:
        whole = domain.kind is DomainKind.INTEGERS
        inner = (np.ceil(low), np.floor(high)) if whole else (low, high)
        place = _first(is_empty(*inner), shape)
    if place is not None:
        ends = [value_text(np.broadcast_to(b, shape)[place]) for b in (low, high)]
        at = f"at {state.entry(variable.name, variable.axes, place)}" if place else ""
        state.report(
            "BLV0426" if crossed is not None else "BLV0312",
            domain.span or variable.span,
            at if crossed is not None else f"{REASONS[domain.kind]} {at}".rstrip(),
            poison=(variable.level, variable.name),
            name=variable.name,
            what=NAMES.get(domain.kind, ""),
            low=ends[0],
            high=ends[1],
        )
        return
    start = _end(state, variable.start, 0.0) if variable.start is not None else None
    if start is None:
        return
    outside = ~(np.isfinite(start) & (start >= low) & (start <= high))
    place = _first(outside, shape)
    if place is not None and variable.start is not None:
        found = value_text(np.broadcast_to(start, shape)[place])
        name = state.entry(variable.name, variable.axes, place)
        state.report(
            "BLV0427",
            variable.start.span or variable.span,
            f"{name} starts at {found}",
            name=variable.name,
            domain=domain_text(state, domain, low, high),
        )


def _first(wrong: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The first entry of a variable where something is wrong; None where nothing is. One value that
    stands for all entries is looked at once: there may be more of them than memory holds.
    """
    flags = np.asarray(wrong)
    if not flags.any() or 0 in shape:
        return None
    if flags.ndim == 0:
        return (0,) * len(shape)
    return tuple(int(k) for k in np.argwhere(np.broadcast_to(flags, shape))[0])


def _end(state: State, expr: Expr | None, default: float) -> End | None:
    if expr is None:
        return np.float64(default)
    if not ready(state, expr):
        return None
    return evaluation_problem(state, expr, None)
