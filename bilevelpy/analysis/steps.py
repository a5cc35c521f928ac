"""Lower levels whose answer is what T gradient steps reach: ``assume steps(T, s);``."""

from __future__ import annotations

import math

from bilevelpy.analysis.bounds.ranges import Ranges
from bilevelpy.analysis.structure import Evidence, Fact
from bilevelpy.diagnostics import Diagnostic, Span, diagnostic
from bilevelpy.errors import ModelError
from bilevelpy.ir.program import Assumption, BoundProgram

# A declared number of steps: the whole path is differentiated.
MOST = 10**6


def steps_fact(bound: BoundProgram, ranges: Ranges) -> Fact[tuple[int, float]] | None:
    """``(T, s)`` of ``y_{t+1} = P(y_t - s f_y(x, y_t))``, t < T, from the start of y, where the
    followers declare it.

    Raises
    ------
    ModelError
        BLV0504 where T is no whole number from 1 on or s is not positive, or where one follower
        takes steps and another one does not take the same.
    """
    program = bound.program
    found: list[tuple[int, float]] = []
    first: Assumption | None = None
    for level in program.lowers:
        stated = [a for a in level.assumptions if a.name == "steps"]
        if not stated:
            continue
        first = first or stated[0]
        T, s = (float(ranges.bounds(a)[0]) for a in stated[0].arguments)
        if not (math.floor(T) == T and 1 <= T <= MOST):
            raise _wrong(bound, stated[0].span, level.name, T, s, _NUMBER)
        if not 0.0 < s < math.inf:
            raise _wrong(bound, stated[0].span, level.name, T, s, _LENGTH)
        found.append((int(T), s))
    if first is None:
        return None
    T, s = found[0]
    if len(found) < len(program.lowers) or len(set(found)) > 1:
        raise _wrong(bound, first.span, program.lowers[0].name, T, s, _EQUAL)
    reason = f"the answer below is what {T} gradient steps of length {s:g} reach from the start"
    return Fact((T, s), Evidence.DECLARED, reason, first.span)


_NUMBER = f"the number of steps is a whole number from 1 to {MOST:,}"
_LENGTH = "the length of the steps is positive and finite"
_EQUAL = "all followers take the same steps, or none does"


def _wrong(
    bound: BoundProgram, span: Span | None, level: str, T: float, s: float, label: str
) -> ModelError:
    found: Diagnostic = diagnostic(
        "BLV0504",
        span,
        label,
        hint="it is written `steps(T, s)`: T steps of length s from the declared start",
        fact=f"steps({T:.6g}, {s:.6g})",
        level=level,
    )
    return ModelError([found], bound.program.sources)
