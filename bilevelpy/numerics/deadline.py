"""An oracle that ends a run in the middle of a step once its time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bilevelpy.lowering.protocol import Oracle

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


class OutOfTime(Exception):
    """The time limit was met inside a step."""


class DeadlineOracle:
    """Forwards everything; evaluations after ``deadline``, which may be moved, raise
    :class:`OutOfTime`, products included.
    """

    def __init__(self, oracle: Oracle, deadline: float) -> None:
        self._oracle = oracle
        self.deadline = deadline
        for name in _TIMED:
            setattr(self, name, self._timed(getattr(oracle, name)))

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
