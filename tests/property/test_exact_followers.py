"""Random games and shadow prices whose answer enumeration knows: what is called global is right.

Players ``min q y^2 / 2 + (c + d x + sum_j a_j y_j) y`` over an interval have equilibria that one
finds by trying every set of ends. A demand met from units in order of their cost has an interval of
prices, and the leader has the best of them.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import bilevelpy as bl

pytest.importorskip("pyscipopt")


@pytest.mark.parametrize("seed", range(5))
def test_the_best_equilibrium_of_a_game(seed: int) -> None:
    rng = np.random.default_rng([seed, 9])
    n, names = int(rng.integers(2, 4)), "abc"
    q, c, d = rng.integers(1, 4, n), rng.integers(-6, 3, n), rng.integers(-2, 3, n)
    a = rng.integers(-1, 3, (n, n)) * (1 - np.eye(n, dtype=int))
    top, most = rng.integers(2, 6, n).astype(float), float(rng.integers(2, 6))
    p, w = int(rng.integers(-3, 4)), rng.integers(-4, 5, n)
    gains = " + ".join(f"({w[i]}) * {names[i]}.y" for i in range(n))
    players = ""
    for i in range(n):
        others = " + ".join(f"({a[i, j]}) * {names[j]}.y" for j in range(n) if j != i)
        players += f"""
        lower {names[i]} nash {{ var y in [0, {top[i]}];
            minimize {q[i]} * y^2 / 2 + (({c[i]}) + ({d[i]}) * x + {others}) * y; }}
        """
    text = f"upper {{ var x in [0, {most}]; minimize ({p}) * x + x^2 / 2 + {gains}; }} {players}"

    def equilibria(x: float) -> list[np.ndarray]:
        found = []
        M, g0 = np.diag(q) + a, c + d * x
        for side in itertools.product((-1, 0, 1), repeat=n):
            y = np.where(np.array(side) == 1, top, 0.0)
            free = [i for i in range(n) if side[i] == 0]
            K = M[np.ix_(free, free)]
            if free and abs(np.linalg.det(K)) < 1e-9:
                continue
            y[free] = np.linalg.solve(K, -(g0 + M @ y)[free]) if free else y[free]
            if np.abs(np.clip(y - (g0 + M @ y), 0, top) - y).max() < 1e-9:
                found.append(y)
        return found

    grid = np.linspace(0, most, 61)
    known = min(p * x + x**2 / 2 + w @ y for x in grid for y in equilibria(float(x)))
    result = bl.solve(bl.parse(text), time_limit=60)
    assert result.success, result.message
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    y, x = np.array([float(result[f"{k}.y"]) for k in names[:n]]), float(result["x"])
    gradient = c + d * x + (np.diag(q) + a) @ y
    assert np.clip(y - gradient, 0, top) == pytest.approx(y, abs=1e-5)
    assert known + 1e-4 >= result.F


@pytest.mark.parametrize("seed", range(5))
def test_the_price_that_suits_the_leader(seed: int) -> None:
    """The price lies between the cost of the last unit in use and that of the first with room."""
    rng = np.random.default_rng([seed, 13])
    m = int(rng.integers(2, 5))
    c, cap = rng.permutation(9)[:m] + 1.0, rng.integers(2, 6, m).astype(float)
    demand, turn = float(rng.integers(3, max(4, cap.sum() - 2))), int(rng.integers(-1, 2))
    most, p, r = float(rng.integers(1, 4)), int(rng.integers(-4, 5)), int(rng.choice([-2, -1, 1]))
    text = f"""
    param c[{m}], cap[{m}];
    upper {{ var x in [0, {most}]; minimize ({p}) * x + ({r}) * dual(l.meet); }}
    lower l {{ var y[{m}] in [0, 60]; minimize dot(c, y);
              subject to meet: sum(y) == {demand} + ({turn}) * x; limit: y <= cap; }}
    """

    def F(x: float) -> float:
        rest, low, high = demand + turn * x, -np.inf, np.inf
        if rest > cap.sum() + 1e-9:
            return np.inf
        for i in np.argsort(c):
            used = min(rest, cap[i])
            low = max(low, c[i]) if used > 1e-9 else low
            high = min(high, c[i]) if used < cap[i] - 1e-9 else high
            rest -= used
        return float(p * x + (r * low if r > 0 else r * high))

    known = min(F(float(x)) for x in np.linspace(0, most, int(60 * most) + 1))
    result = bl.solve(bl.parse(text, c=c, cap=cap), time_limit=60)
    if not np.isfinite(known):
        assert result.status in ("infeasible", "unbounded")
        return
    assert result.success, result.message
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    assert known + 1e-5 >= result.F
    assert F(float(result["x"])) <= result.F + 1e-4
