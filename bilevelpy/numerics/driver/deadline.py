"""An oracle that ends a run in the middle of a step once its time is up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from bilevelpy.lowering.protocol import Oracle

Vec = torch.Tensor

_TIMED = (
    "F",
    "f",
    "grad_F",
    "grad_f",
    "grad_f_x",
    "value_grad_f",
    "value_grad_F",
    "pullback",
    "hvp",
    "cross",
    "hessian",
)


_TIMED_ROWS = ("values", "violation", "vjp", "jvp", "jacobian", "jacobian_y", "twice")


class OutOfTime(Exception):
    """The time limit was met inside a step."""


class _TimedRows:
    """Constraints whose evaluations, and products with their derivatives, are looked after."""

    def __init__(
        self, rows: Any, timed: Callable[[Callable[..., Any]], Callable[..., Any]]
    ) -> None:
        self._rows = rows
        for name in _TIMED_ROWS:
            if hasattr(rows, name):
                setattr(self, name, timed(getattr(rows, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)


class DeadlineOracle:
    """Forwards everything; evaluations after ``deadline``, which may be moved, raise
    :class:`OutOfTime`, products included.

    ``lowest`` is the y with the least f seen at ``watched``, an x: what a run that ends before its
    first measure has to show for itself.
    """

    def __init__(self, oracle: Oracle, deadline: float, watched: Vec | None = None) -> None:
        self._oracle = oracle
        self.deadline, self.watched = deadline, watched
        self.lowest: tuple[float, Vec] | None = None
        for name in _TIMED:
            setattr(self, name, self._timed(getattr(oracle, name)))
        for name in ("g", "G"):
            rows = getattr(oracle, name, None)
            if rows is not None:
                setattr(self, name, _TimedRows(rows, self._timed))
        if watched is not None:
            for name in ("f", "value_grad_f"):
                setattr(self, name, self._noted(getattr(self, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._oracle, name)

    def check_deadline(self) -> None:
        """Raise where the time is up; for work that is done beside the oracle."""
        if time.perf_counter() > self.deadline:
            raise OutOfTime

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self.check_deadline()
            out = function(*args)
            return self._timed(out) if callable(out) else out

        return call

    def _noted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same, keeping the lowest point at ``watched``."""

        def call(x: Vec, y: Vec) -> Any:
            out = function(x, y)
            f = out[0] if isinstance(out, tuple) else out
            best = math.inf if self.lowest is None else self.lowest[0]
            if self.watched is not None and f < best and torch.equal(x, self.watched):
                self.lowest = f, y
            return out

        return call
