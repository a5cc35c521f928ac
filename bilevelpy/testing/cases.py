"""Validation cases: models with a follower whose solutions are known in closed form, or enumerated.

The numbers in comments (6.1, ...) are their names in tests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bilevelpy.testing import texts

__all__ = ["CASES", "Case"]

Optimum = tuple[Any, float]


@dataclass(frozen=True, slots=True)
class Case:
    """A model with its known global optimum ``x``, ``F``. ``within`` bounds errors of x and F,
    relative to ``1 + |value|``.

    ``local`` are the other local optima of F(x, y(x)), which methods with local claims may end at.
    ``optimistic`` cases have several lower solutions: the known one is the best for F.
    """

    name: str
    text: str
    x: Any
    F: float
    data: Mapping[str, Any] = field(default_factory=dict)
    within: float = 1e-4
    optimistic: bool = False
    local: Sequence[Optimum] = ()


def _projectors() -> dict[str, np.ndarray]:
    """Orthogonal projectors A and B of rank one: Y has their eigenvectors."""
    q = np.array([0.6, 0.8])
    A = np.outer(q, q)
    return {"A": A, "B": np.eye(2) - A}


def _quadratic(kappa: float, n: int = 6) -> Case:
    """Validation case 6.1 (c): A = Q diag(geomspace(1, kappa)) Q'."""
    Q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))
    A = (Q * np.geomspace(1.0, kappa, n)) @ Q.T
    A = (A + A.T) / 2
    z = np.ones(n)
    x = np.linalg.solve(np.eye(n) + np.linalg.inv(A), z)
    return Case(
        f"quadratic, kappa = {kappa:g}",
        texts.QUADRATIC,
        x,
        float(z @ (z - x) / 2),
        {"A": A, "z": z},
    )


def _orthonormal(rows: int, columns: int, seed: int) -> np.ndarray:
    """A matrix with orthonormal columns."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((rows, columns)))
    return q


def _quadratic_sum(kappa: float, n: int = 4, rows: int = 256) -> Case:
    """Validation case 6.1 (c) as a sum over the rows of ``A = W D^(1/2) Q'``: A'A = Q D Q'."""
    Q, d = _orthonormal(n, n, 0), np.geomspace(1.0, kappa, n)
    A, z = (_orthonormal(rows, n, 1) * np.sqrt(d)) @ Q.T, np.ones(n)
    x = np.linalg.solve(np.eye(n) + (Q / d) @ Q.T, z)
    return Case(
        f"quadratic as a finite sum, kappa = {kappa:g}",
        texts.QUADRATIC_SUM,
        x,
        float(z @ (z - x) / 2),
        {"A": A, "z": z},
    )


def _ridge_sum(rows: int = 256) -> Case:
    """Validation case 6.9 with matrices of orthonormal columns: with ``c = X c'`` and ``b = V b'``
    the sums are those of the case without data.
    """
    c, b = np.array([2.0, -1.0, 1.0]), np.array([1.0, -1.0, 0.5])
    X, V = _orthonormal(rows, 3, 2), _orthonormal(rows // 2, 3, 3)
    cc, cb = float(c @ c), float(c @ b)
    x, F = [math.log(cc / cb - 1)], float(b @ b - cb**2 / cc) / 2
    return Case(
        "ridge as a finite sum", texts.RIDGE_SUM, x, F, {"X": X, "c": X @ c, "V": V, "b": V @ b}
    )


def _ridge() -> Case:
    """Validation case 6.9: ``e^x = |c|^2 / (c'b) - 1``."""
    c, b = np.array([2.0, -1.0, 1.0]), np.array([1.0, -1.0, 0.5])
    cc, cb = float(c @ c), float(c @ b)
    return Case(
        "ridge",
        texts.RIDGE,
        [math.log(cc / cb - 1)],
        float(b @ b - cb**2 / cc) / 2,
        {"c": c, "b": b},
    )


def _simplex() -> Case:
    """Validation case 6.11: ``x = (t - 1/n) / (1 + rho)`` with rho = 0.1."""
    t = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
    x = (t - 0.2) / 1.1
    return Case(
        "simplex", texts.SIMPLEX, x, float(((t - 0.2) ** 2).sum()) * 0.1 / 1.1 / 2, {"t": t}
    )


def _general() -> Case:
    """Validation case 6.2: with ``R = -A^-1 C'`` and ``y = R x - A^-1 a`` the Hessian of F(x, y(x))
    is ``G + K R + R'K' + R'E R``.
    """
    rng = np.random.default_rng(4)
    n = 4
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = (q * np.geomspace(1.0, 10.0, n)) @ q.T
    A = (A + A.T) / 2
    C, a = rng.standard_normal((n, n)), rng.standard_normal(n)
    E, G, K = np.eye(n), 3.0 * np.eye(n), 0.3 * rng.standard_normal((n, n))
    e, h = rng.standard_normal(n), rng.standard_normal(n)
    R, r = -np.linalg.solve(A, C.T), -np.linalg.solve(A, a)
    H = G + K @ R + R.T @ K.T + R.T @ E @ R
    x = np.linalg.solve(H, -(h + K @ r + R.T @ (E @ r + e)))
    y = R @ x + r
    F = float(y @ E @ y / 2 + x @ G @ x / 2 + x @ K @ y + e @ y + h @ x)
    data = {"A": A, "C": C, "a": a, "E": E, "G": G, "K": K, "e": e, "h": h}
    return Case("general quadratic", texts.GENERAL, x, F, data)


def _many(n: int = 1, a: float = 2.0) -> Case:
    """Validation case 6.8: ``x + y`` is one of the minimisers ``C = -pi/2 + 2 pi k`` of the
    sine.
    """
    found = []
    for k in range(-3, 5):
        C = -math.pi / 2 + 2 * math.pi * k
        found.append(([((1 - n) * a + n * C) / (1 + n)], n * (C - 2 * a) ** 2 / (1 + n)))
    found.sort(key=lambda optimum: optimum[1])
    x, F = found[0]
    return Case("many minimisers", texts.MANY, x, F, optimistic=True, local=found[1:])


CASES: tuple[Case, ...] = (
    _quadratic(1.0),  # 6.1
    _quadratic(10.0),
    _ridge(),  # 6.9
    Case("kink", texts.KINK, [1.0], 0.55),  # 6.10
    _simplex(),  # 6.11
    Case("merely convex", texts.CONVEX, [1.0, 1.0], 0.0, optimistic=True),  # 6.3
    Case(  # 6.6, toy 2
        "coupled inequality",
        texts.COUPLED,
        [0.986225],
        1.721879,
        local=(([0.148890], 2.968499), ([2.019720], 2.156115), ([2.990775], 2.445735)),
    ),
    Case("coupled equation", texts.BALANCE, [-0.3, -0.3], 0.1),  # 6.4
    _quadratic_sum(4.0),
    _ridge_sum(),
    # Y = max(x, 0) A, and (1 + x) / 2 A + (1 - x) / 2 B for -1 < x < 1.
    Case("semidefinite", texts.CONE, [1.0], 1.0, _projectors()),
    Case("semidefinite with a row", texts.TRACE, [6 / 11], 0.9 / 55, _projectors()),
    _quadratic(100.0),
    _quadratic(1000.0),
    _general(),  # 6.2
    Case("gap function", texts.GAP, [1.0, 1.0], 0.0),  # 6.5
    Case(  # 6.6, toy 1
        "coupled inequality 2",
        texts.COUPLED_SQUARE,
        [0.300705],
        2.654498,
        local=(([1.162695], 3.584997),),
    ),
    Case(  # 6.7
        "pl", texts.PL, [1.215145], 0.199911, local=(([0.382365], 0.442706), ([2.829645], 1.243458))
    ),
    _many(),  # 6.8
    Case("linear", texts.VERTEX, [4.0], -12.0, local=(([1.0], -7.0),)),  # 6.12
    Case("lasso", texts.LASSO, [0.6], 0.0),  # 6.13, a = 1, t = 0.4
    Case("group lasso", texts.GROUP, [3.0], 0.0),  # y = (1 - x / 5)_+ a, and F wants 0.4 a
    Case("set valued", texts.SET_VALUED, [0.0], -1.0, optimistic=True),  # 6.14
)
