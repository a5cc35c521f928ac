"""A penalty per feature: bilevelpy against SciPy by hand, to the same upper value.

Both start with the data in memory. The hand-written solution is stopped as soon as its upper
objective is within 1e-6 (relative) of the value that bilevelpy ends with, and runs to its own end
where it never is. Compilation and the computation of the certificate are shown apart.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import bilevelpy as bl
from benchmarks.measure import MODELS, Row, compare, seconds
from tests.models.catalogue import breast_cancer_problem, diabetes_problem, digits_problem
from tests.reference.small import conditioned_matrix
from tests.reference.upper import minimise


class _Reached(Exception):
    """The hand-written solution has the value that was asked for."""


def _by_hand(problem: Any, start: np.ndarray, low: float, high: float, value: float) -> float:
    begin = time.perf_counter()

    def reduced(x: np.ndarray) -> tuple[float, np.ndarray]:
        F, gradient = problem.reduced(x)
        if value + 1e-6 * abs(value) >= F:
            raise _Reached
        return F, gradient

    with contextlib.suppress(_Reached):
        minimise(reduced, start, low, high)
    return time.perf_counter() - begin


def _race(
    name: str, make: Callable[[], Any], start: np.ndarray, low: float, high: float, repeats: int
) -> Row:
    model = bl.load(MODELS / f"{name}.blv")
    ours, theirs, compiling, checking = [], [], 0.0, 0.0
    status = ""
    for k in range(repeats):
        result = bl.solve(model)
        if k == 0:
            compiling = result.time["compile"] + result.time["analyze"]
        ours.append(result.time["solve"])
        checking, status = result.time["verify"], str(result.status)
        theirs.append(_by_hand(make(), start, low, high, result.F))
    note = (
        f"{status}, {result.backend}; compile {seconds(compiling)}, certificate {seconds(checking)}"
    )
    return compare(f"{name}: solve", min(ours), min(theirs), "1", note)


QUADRATIC = """
model toy;
dim n;
param A[n, n];
upper { var x[n] start 2; minimize sum((x[i] - 1)^2 for i in n)/2 + quad(y, A)/2; }
lower follow { var y[n] start 2; minimize quad(y, A)/2 - dot(x, y); }
"""


class _Toy:
    """The quadratic problem by one factorisation and L-BFGS-B."""

    def __init__(self, A: np.ndarray) -> None:
        from scipy.linalg import cho_factor

        self.factor = cho_factor(A)

    def reduced(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        from scipy.linalg import cho_solve

        y = cho_solve(self.factor, x, check_finite=False)
        # The adjoint is y itself: A u = A y.
        return float(((x - 1) @ (x - 1) + x @ y) / 2), x - 1 + y


def _toy() -> Row:
    A = conditioned_matrix(1000, 1000)
    model = bl.parse(QUADRATIC, data={"A": A})
    ours, theirs = [], []
    for _ in range(3):
        result = bl.solve(model)
        ours.append(result.time["solve"])
        begin = time.perf_counter()
        _by_hand(_Toy(A), np.full(1000, 2.0), -np.inf, np.inf, result.F)
        theirs.append(time.perf_counter() - begin)
    return compare(
        "quadratic, 1,000 lower variables, condition 1,000: solve",
        min(ours),
        min(theirs),
        "1",
        f"{result.status}, {result.backend}",
    )


def run() -> Iterator[Row]:
    yield _race("breast_cancer", breast_cancer_problem, np.zeros(30), -6, 2, 5)
    yield _race("digits", digits_problem, np.full(64, -4.0), -6, 2, 2)
    yield _race("diabetes_ridge", diabetes_problem, np.zeros(10), -8, 2, 5)
    yield _toy()
