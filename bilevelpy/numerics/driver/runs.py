"""What the driver shows of a run on its way, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bilevelpy.errors import UsageError
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.result import Record, Status

Vec = torch.Tensor

# Upper variables up to which the history keeps the points: those that a picture can show.
PATH = 2
# Relative distances of x and of y within which a run goes the same way.
SAME_UPPER, SAME_LOWER = 1e-6, 1e-3
# Relative difference of the values of one end.
SAME_VALUE = 1e-6


@dataclass(frozen=True, slots=True)
class IterationState:
    """What a callback sees: read-only copies. F and f have the signs of the model, not of the
    minimisation.
    """

    iteration: int
    time: float
    x: np.ndarray
    y: np.ndarray
    F: float
    f: float
    hypergradient_norm: float
    lower_residual: float
    counts: Mapping[str, int]
    reports: Mapping[str, float]

    @classmethod
    def of(cls, record: Record, m: Measure) -> IterationState:
        """The iteration of a record, at the point of a measure."""
        x, y = m.x.numpy().copy(), m.y.numpy().copy()
        x.flags.writeable = y.flags.writeable = False
        return cls(
            record.iteration,
            record.time,
            x,
            y,
            record.F,
            record.f,
            record.hypergradient_norm,
            record.lower_residual,
            record.counts,
            record.reports,
        )


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. ``candidate`` is True where the backend's own tests call the point a
    solution.

    F and f have the signs of the model. The status is preliminary:
    :func:`~bilevelpy.numerics.certificate.examine.settle` makes the final one from it and the
    certificate.
    """

    x: Vec
    y: Vec
    F: float
    f: float
    status: Status
    message: str
    iterations: int
    history: tuple[Record, ...]
    counts: Mapping[str, int]
    time: float
    hypergradient_norm: float
    lower_residual: float
    stationarity: float
    candidate: bool
    warnings: tuple[str, ...] = ()


Callback = Callable[[IterationState], Any]
Report = Callable[[Vec, Vec], Mapping[str, float]]
Onward = Callable[[Vec, Vec], tuple[Vec, Vec] | None]


def is_end(answer: Any) -> bool:
    """Whether a callback that returns ``answer`` ends the run."""
    try:
        return bool(answer)
    except (TypeError, ValueError, RuntimeError):  # arrays of several entries, tensors, frames
        found = type(answer).__name__
        raise UsageError(
            f"callback returns whether to stop, found {found}, which is neither true nor false; "
            "return one value (`.any()`, `.all()`)"
        ) from None


def is_known(end: tuple[float, float], ends: Sequence[tuple[float, float]]) -> bool:
    """Whether an end has the F and f of an earlier one: responses of networks are the same up to
    the order of their units, x may be one of many.
    """
    return any(
        all(abs(a - b) <= SAME_VALUE * abs(b) for a, b in zip(end, other, strict=True))
        for other in ends
    )


def is_same(place: Sequence[Vec], other: Sequence[Vec]) -> bool:
    """Whether a run from either of two points (x, y) would go the same way."""
    return all(
        float((a - b).norm()) <= near * float(b.norm())
        for a, b, near in zip(place, other, (SAME_UPPER, SAME_LOWER), strict=True)
    )
