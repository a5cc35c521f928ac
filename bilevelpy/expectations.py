"""Known answers in a model file: ``expect x == 1.8667 within 1e-3;``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.ir.evaluate import evaluate

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram, Expect
    from bilevelpy.result import Result


@dataclass(frozen=True, slots=True)
class Outcome:
    """An ``expect`` line as written, the value found (of the entry farthest off) and whether it
    will do.
    """

    text: str
    expected: float
    tolerance: float
    found: float

    @property
    def passed(self) -> bool:
        """Whether every entry lies within the tolerance; NaN does not."""
        return abs(self.found - self.expected) <= self.tolerance


def outcomes(bound: BoundProgram, result: Result) -> list[Outcome]:
    """Every ``expect`` line of a model against an answer."""
    values = environment(result.upper, result.lower, result.duals)
    return [_outcome(expect, bound, result, values) for expect in bound.program.expects]


def environment(
    upper: Mapping[str, np.ndarray],
    lower: Mapping[str, Mapping[str, np.ndarray]],
    duals: Mapping[str, np.ndarray] | None = None,
) -> dict[tuple[str, str], Any]:
    """(level, name) -> array: the form in which expressions take the values of variables and of
    shadow prices (``duals`` by ``level.constraint``).
    """
    found = {("upper", name): value for name, value in upper.items()}
    found |= {(level, name): v for level, values in lower.items() for name, v in values.items()}
    for name, value in (duals or {}).items():
        level, _, constraint = name.partition(".")
        found[level, constraint] = value
    return found


def _outcome(
    expect: Expect, bound: BoundProgram, result: Result, values: Mapping[tuple[str, str], Any]
) -> Outcome:
    if isinstance(expect.value, str):
        found = np.asarray(result.F if expect.value == "upper" else result.f[expect.value])
    else:
        found = np.asarray(evaluate(expect.value, bound.data, values), dtype=float)
    flat = found.ravel()
    # argmax takes a NaN for the largest, which is what is wanted here.
    worst = float(flat[np.argmax(np.abs(flat - expect.expected))]) if flat.size else expect.expected
    return Outcome(expect.text, expect.expected, expect.tolerance, worst)
