"""Random problems whose answer enumeration and other solvers know: what is called global is right.

A follower is ``min c'y + x'C y + |L y|^2 / 2`` under ``A y + B x <= b``, perhaps one equation, in
``0 <= y <= U``; a leader has a linear F with products, perhaps a row that reads y. At every x of a
grid the follower is solved by Clarabel, and the leader gets the best of its best responses. A
proved answer must be feasible, must leave the follower nothing to gain, and must not be worse than
the grid; what is called infeasible must have no point on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl

pytest.importorskip("pyscipopt")

Array = np.ndarray[Any, np.dtype[Any]]
KINDS = ("linear", "products", "quadratic", "coupled", "whole", "pessimistic")


@dataclass(frozen=True)
class Problem:
    kind: str
    c: Array
    C: Array
    L: Array
    A: Array
    B: Array
    b: Array
    e: Array | None
    top: float
    p: float
    q: Array
    R: Array
    row: Array | None
    end: float
    most: float

    @classmethod
    def make(cls, kind: str, seed: int) -> Problem:
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        m, r = int(rng.integers(2, 4)), int(rng.integers(1, 3))

        def whole(low: int, high: int, *shape: int) -> Array:
            return rng.integers(low, high + 1, shape).astype(float)

        moving = kind in ("products", "whole", "pessimistic")
        curved = kind in ("quadratic", "coupled")
        return cls(
            kind,
            whole(-5, 5, m),
            whole(-3, 3, m) * (moving or curved),
            whole(-2, 2, m, m) * curved,
            whole(-3, 4, r, m),
            whole(-2, 2, r),
            whole(3, 12, r),
            whole(1, 2, m) if rng.random() < 0.4 else None,
            float(rng.integers(4, 9)),
            float(rng.integers(-4, 5)),
            whole(-5, 5, m),
            whole(-2, 2, m) * moving,
            whole(-2, 3, m) if kind == "coupled" else None,
            float(rng.integers(3, 9)),
            float(rng.integers(3, 7)),
        )

    @property
    def worst(self) -> bool:
        return self.kind == "pessimistic"

    def model(self) -> bl.Model:
        m, r = self.c.size, self.b.size
        ends = f"0, {self.most:g}"
        domain = f"integers({ends})" if self.kind in ("whole", "pessimistic") else f"[{ends}]"
        row = "subject to cap: dot(g, y) + x <= end;" if self.row is not None else ""
        equation = "all: dot(e, y) == 4;" if self.e is not None else ""
        stance = "pessimistic" if self.worst else "optimistic"
        text = f"""
        dim m = {m}, r = {r};
        param c[m], C[m], L[m, m], A[r, m], B[r], b[r], e[m], q[m], R[m], g[m], p, end;
        upper {stance} {{ var x in {domain};
                 minimize p * x + dot(q, y) + x * dot(R, y); {row} }}
        lower l {{ var y[m] in [0, {self.top:g}];
                  minimize dot(c, y) + x * dot(C, y) + sumsq(L @ y) / 2;
                  subject to rows[i in r]: sum(A[i, j] * y[j] for j in m) + B[i] * x <= b[i];
                             {equation} }}
        """
        zero = np.zeros(m)
        return bl.parse(
            text, c=self.c, C=self.C, L=self.L, A=self.A, B=self.B, b=self.b,
            e=zero if self.e is None else self.e, q=self.q, R=self.R,
            g=zero if self.row is None else self.row, p=self.p, end=self.end,
        )  # fmt: skip

    def f(self, x: float, y: Any) -> Any:
        return (self.c + x * self.C) @ y + cp.sum_squares(self.L @ y) / 2

    def feasible(self, x: float, y: Any) -> list[Any]:
        rows = [self.A @ y + x * self.B <= self.b, y >= 0, y <= self.top]
        return rows if self.e is None else [*rows, self.e @ y == 4]

    def least(self, x: float) -> float:
        y = cp.Variable(self.c.size)
        return float(cp.Problem(cp.Minimize(self.f(x, y)), self.feasible(x, y)).solve("CLARABEL"))

    def at(self, x: float) -> float:
        """F at x: the best (worst) of the best responses; infinite where there is none."""
        low = self.least(x)
        if not math.isfinite(low):
            return math.inf
        y = cp.Variable(self.c.size)
        rows = [*self.feasible(x, y), self.f(x, y) <= low + 1e-6]
        if self.row is not None:
            rows.append(self.row @ y + x <= self.end)
        gain = (self.q + x * self.R) @ y
        goal = cp.Maximize(gain) if self.worst else cp.Minimize(gain)
        return self.p * x + float(cp.Problem(goal, rows).solve("CLARABEL"))

    def grid(self) -> list[float]:
        if self.kind in ("whole", "pessimistic"):
            return [float(k) for k in range(int(self.most) + 1)]
        return np.linspace(0, self.most, 9).tolist()


# The set of best responses of a quadratic follower has no interior: Clarabel says so.
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_a_proved_answer_is_right(kind: str, seed: int) -> None:
    problem = Problem.make(kind, seed)
    known = min(problem.at(x) for x in problem.grid())
    result = bl.solve(problem.model(), backend="exact", time_limit=60)
    assert result.status in ("converged", "infeasible"), result.message
    if result.status == "infeasible":
        assert not math.isfinite(known)
        return
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    x, y = float(result["x"]), np.asarray(result["y"])
    # 1e-6 of the follower's objective is worth its square root where that is curved.
    known_to = 3e-3 if problem.L.any() else 1e-4
    assert known + known_to * max(1.0, abs(known)) >= result.F
    assert pytest.approx(problem.p * x + (problem.q + x * problem.R) @ y, abs=1e-6) == result.F
    assert all(bool(np.all(row.violation() <= 1e-5)) for row in problem.feasible(x, cp.Constant(y)))
    assert float(problem.f(x, y).value) <= problem.least(x) + 1e-5 * (1 + abs(problem.least(x)))
    if problem.row is not None:
        assert problem.row @ y + x <= problem.end + 1e-5
    if problem.worst:
        assert pytest.approx(known, abs=1e-4) == result.F
