"""Images in a model: a param whose rows are square images, with an upper variable for each row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.errors import UsageError

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.ir.types import Axis

MIN_SIDE = 5
# More values than that are measurements, no labels.
MAX_CLASSES = 100


@dataclass(frozen=True, slots=True)
class Images:
    """``pixels`` (count, side^2), the name of the upper variable with one weight for each, and the
    label that each bears (None where there is none).
    """

    pixels: np.ndarray
    side: int
    weights: str
    labels: np.ndarray | None = None


def images(bound: BoundProgram) -> Images:
    """The images of a model with their weights."""
    for v in bound.program.upper.variables:
        if len(v.axes) != 1:
            continue
        for param in bound.program.params.values():
            array = bound.data.arrays.get(param.name)
            if len(param.axes) != 2 or param.axes[0] is not v.axes[0] or array is None:
                continue
            side = math.isqrt(array.shape[1])
            if side * side == array.shape[1] and side >= MIN_SIDE and isinstance(array, np.ndarray):
                return Images(array, side, v.name, _labels(bound, v.axes[0]))
    raise UsageError(
        f"`{bound.program.name}` has no images to draw: that takes a param `X[n, p]` of square "
        f"images (p = {MIN_SIDE}^2 or more) and an upper variable with a weight for each, `x[n]`"
    )


def _labels(bound: BoundProgram, axis: Axis) -> np.ndarray | None:
    """The first param over ``axis`` alone that holds a few whole numbers."""
    for param in bound.program.params.values():
        array = bound.data.arrays.get(param.name)
        if param.axes == (axis,) and isinstance(array, np.ndarray):
            whole = np.array_equal(array, np.round(array))
            if whole and 1 < len(np.unique(array)) <= MAX_CLASSES:
                return array
    return None
