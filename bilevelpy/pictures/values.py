"""The panels of a picture of values: numbers of one level side by side, a tensor by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.plotting.values import LABELLED, Panel
from bilevelpy.reductions.columns import label_text

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram, Level, Variable
    from bilevelpy.result import Result

MAX_PANELS = 8


def panels(bound: BoundProgram, result: Result) -> list[Panel]:
    """The variables of all levels, upper ones first; beyond ``MAX_PANELS`` the first of them."""
    found: list[Panel] = []
    for level in bound.program.levels:
        upper = level is bound.program.upper
        answers = result.upper if upper else result.lower[level.name]
        numbers = [v.name for v in level.variables if np.size(answers[v.name]) == 1]
        if numbers:
            flat = np.array([float(np.ravel(answers[n])[0]) for n in numbers])
            title = numbers[0] if len(numbers) == 1 else level.name
            found.append(Panel(title, upper, tuple(numbers), flat))
        for v in level.variables:
            if v.name not in numbers:
                array = np.asarray(answers[v.name], dtype=float)
                found.append(Panel(_title(level, v, upper), upper, _labels(bound, v, array), array))
    return found[:MAX_PANELS]


def _title(level: Level, variable: Variable, upper: bool) -> str:
    return variable.name if upper else f"{level.name}.{variable.name}"


def _labels(bound: BoundProgram, variable: Variable, array: np.ndarray) -> tuple[str, ...]:
    """The labels of all entries without brackets, where they are few enough to be written."""
    if array.size > LABELLED:
        return ()
    found = [label_text(bound, variable.axes, place) for place in np.ndindex(*array.shape)]
    return tuple(label.strip("[]") for label in found)
