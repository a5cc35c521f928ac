"""A task as a library sees it, and how its course is noted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.tasks import RACES, Race
from tests.reference.upper import minimise

Array = np.ndarray[Any, np.dtype[np.float64]]
Reduced = Callable[[Array], tuple[float, Array]]
# Seconds of CPU after which a library is stopped.
LIMIT = 10.0
clock = time.process_time


class OutOfTime(Exception):
    """The limit was met."""


class Watch:
    """The points that a library visits, with CPU times."""

    def __init__(self, limit: float = LIMIT, began: float | None = None) -> None:
        self.limit = limit
        self.began = clock() if began is None else began
        self.points: list[Array] = []
        self.times: list[float] = []

    def __call__(self, x: Array) -> None:
        """Note a point; ``OutOfTime`` past the limit, ``FloatingPointError`` at a NaN."""
        self.points.append(np.array(x, dtype=float))
        self.times.append(clock() - self.began)
        if self.times[-1] > self.limit:
            raise OutOfTime
        if not np.isfinite(self.points[-1]).all():
            self.points.pop(), self.times.pop()
            raise FloatingPointError


# Goes from the start of the task, telling every upper point to the watch.
Drive = Callable[[Watch], None]


def followed(drive: Drive, watch: Watch) -> Watch:
    """The course until the library stops or is stopped."""
    with contextlib.suppress(OutOfTime, np.linalg.LinAlgError, FloatingPointError):
        drive(watch)
    return watch


class Problem:
    """A task for the libraries: losses of arrays ``np`` is the array module of."""

    def __init__(self, task: str, race: Race | None = None) -> None:
        race = race or RACES[task]()
        self.task = task
        self.start, self.low, self.high = race.start, race.low, race.high
        truth = race.problem()
        self.truth = truth
        if task == "quadratic-1000":
            A = race.model().bound.data.arrays["A"]
            self.data, self.size, self.kind = {"A": A}, len(A), "quadratic"
        elif task == "cleaning-digits":
            self.data = {
                "X": truth.X, "V": truth.V, "T": np.eye(10)[truth.labels],
                "Tv": np.eye(10)[truth.valid_labels],
            }  # fmt: skip
            self.size, self.kind = truth.X.shape[1] * 10, "cleaning"
        else:
            self.data = {"A": truth.A, "V": truth.V}
            self.size, self.kind = truth.A.shape[1], "logistic"
            self.bias = truth.bias_penalty

    def lower(self, m: Any, d: dict[str, Any]) -> Callable[[Any, Any], Any]:
        """f(y, x) with the functions of the module ``m``."""
        if self.kind == "quadratic":
            return lambda y, x: 0.5 * (y @ (d["A"] @ y)) - x @ y
        if self.kind == "logistic":
            return lambda y, x: (
                m.softplus(-(d["A"] @ y)).mean()
                + 0.5 * (m.exp(x) * y[:-1] ** 2).sum()
                + 0.5 * self.bias * y[-1] ** 2
            )

        def cleaning(y: Any, x: Any) -> Any:
            Z = d["X"] @ y.reshape(-1, 10)
            losses = m.logsumexp(Z) - (Z * d["T"]).sum(-1)
            return (m.sigmoid(x) * losses).mean() + 1e-3 * (y**2).sum()

        return cleaning

    def upper(self, m: Any, d: dict[str, Any]) -> Callable[[Any, Any], Any]:
        """F(y, x)."""
        if self.kind == "quadratic":
            return lambda y, x: 0.5 * ((x - 1) ** 2).sum() + 0.5 * (y @ (d["A"] @ y))
        if self.kind == "logistic":
            return lambda y, x: m.softplus(-(d["V"] @ y)).mean()

        def cleaning(y: Any, x: Any) -> Any:
            Z = d["V"] @ y.reshape(-1, 10)
            return (m.logsumexp(Z) - (Z * d["Tv"]).sum(-1)).mean()

        return cleaning


def by_lbfgsb(problem: Problem, reduced: Reduced) -> Drive:
    """SciPy's L-BFGS-B on the value and hypergradient of a library that has no upper optimizer."""

    def drive(watch: Watch) -> None:
        def seen(x: Array) -> tuple[float, Array]:
            F, gradient = reduced(x)
            watch(x)
            if not (np.isfinite(F) and np.isfinite(gradient).all()):
                raise FloatingPointError
            return F, gradient

        minimise(seen, problem.start, problem.low, problem.high, gradient_tolerance=1e-6)

    return drive
