"""What expressions mean: reports of a bound model against plain NumPy, entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bilevelpy.diagnostics import Source
from bilevelpy.ir.evaluate import evaluate
from bilevelpy.sema import check
from bilevelpy.sema.bind import bind

HEAD = """
dim n, m, p;
set T = 1..6;
set NODE = {"a", "b", "c"};
set ARC within NODE * NODE = {("a", "b"), ("b", "c"), ("a", "c"), ("c", "a")};
set FIRM;
set BIG within FIRM = {"y", "z"};
param X[n, p], y[n], D[p, p], a, c[FIRM], cost[ARC], h[T], supply[NODE], G[NODE, T], big[BIG];
param which[n], lag[T];
def mse(A, b, w) = mean((A @ w - b)^2);
def total(x, S) = sum(x[i] for i in S);
upper { var w[p]; var f[ARC]; var q[FIRM]; minimize sum(w) + sum(f) + sum(q); }
"""

RNG = np.random.default_rng(7)
N, P = 5, 4
D = {
    "X": RNG.normal(size=(N, P)),
    "y": RNG.normal(size=N),
    "D": RNG.normal(size=(P, P)),
    "a": 1.5,
    "FIRM": ["x", "y", "z"],
    "c": RNG.normal(size=3),
    "cost": RNG.uniform(1, 2, size=4),
    "h": RNG.normal(size=6),
    "supply": RNG.normal(size=3),
    "G": RNG.normal(size=(3, 6)),
    "big": np.array([3.0, 4.0]),
    "which": np.array([1.0, 3.0, 4.0, 2.0, 1.0]),
    "lag": np.array([1.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
    "m": 3,
}
w, f, q = RNG.normal(size=P), RNG.normal(size=4), RNG.normal(size=3)
X, y, M, c, cost, h, G = (D[k] for k in ("X", "y", "D", "c", "cost", "h", "G"))
TAIL, HEADS = np.array([0, 1, 0, 2]), np.array([1, 2, 2, 0])
lse = np.logaddexp.reduce

CASES: list[tuple[str, Callable[[], Any]]] = [
    ("X @ w - y", lambda: X @ w - y),
    ("mse(X, y, w)", lambda: np.mean((X @ w - y) ** 2)),
    ("X'", lambda: X.T),
    ("-w^2", lambda: -(w**2)),
    ("2^w", lambda: 2**w),
    ("a / 2 - 3 * a + n", lambda: 1.5 / 2 - 4.5 + 5),
    ("[1, 2, a]", lambda: np.array([1, 2, 1.5])),
    ("[[1, 2], [3, 4]]", lambda: np.array([[1, 2], [3, 4]])),
    ("[w[1], w[2]*a]", lambda: np.array([w[0], w[1] * 1.5])),
    ("sum(X[i, j] * w[j] for i in n, j in p)", lambda: (X @ w).sum()),
    ("max(sum(X[i, j] * w[j] for j in p) for i in n)", lambda: (X @ w).max()),
    ("prod(w[j] for j in p)", lambda: w.prod()),
    ("min(w)", lambda: w.min()),
    ("max(w, 0)", lambda: np.maximum(w, 0)),
    ("max(a, 1, 2)", lambda: 2.0),
    ("logsumexp(X @ w)", lambda: lse(X @ w)),
    ("logsumexp(w[j] for j in p)", lambda: lse(w)),
    (
        "norm1(w) + norm2(w) + norminf(w) + sumsq(w)",
        lambda: np.abs(w).sum() + np.linalg.norm(w) + np.abs(w).max() + (w**2).sum(),
    ),
    ("norm2(D)", lambda: np.linalg.norm(M, 2)),
    ("norm2(D[i, j] for i in p, j in p)", lambda: np.linalg.norm(M)),
    ("norminf(w[j] - a for j in p)", lambda: np.abs(w - 1.5).max()),
    ("dot(D[:, 1], w)", lambda: M[:, 0] @ w),
    ("trace(D) + quad(w, D)", lambda: np.trace(M) + w @ M @ w),
    ("diag(D)", lambda: np.diag(M)),
    ("diag(w)", lambda: np.diag(w)),
    ("logdet(D' @ D)", lambda: np.linalg.slogdet(M.T @ M)[1]),
    ("softmax(X @ w)", lambda: np.exp(X @ w - lse(X @ w))),
    ("logsoftmax(X)", lambda: X - lse(X, axis=1)[:, None]),
    ("softmax_cross_entropy(X, X)", lambda: -(X * (X - lse(X, axis=1)[:, None])).sum(1)),
    (
        "softmax_cross_entropy(X, which)",
        lambda: lse(X, axis=1) - X[np.arange(N), D["which"].astype(int) - 1],
    ),
    ("huber(w, 0.5)", lambda: np.where(np.abs(w) <= 0.5, w**2 / 2, 0.5 * np.abs(w) - 0.125)),
    (
        "huber(w, d = 0.5) - huber(w)",
        lambda: (
            np.where(np.abs(w) <= 0.5, w**2 / 2, 0.5 * np.abs(w) - 0.125)
            - np.where(np.abs(w) <= 1, w**2 / 2, np.abs(w) - 0.5)
        ),
    ),
    ("logistic(w)", lambda: np.log1p(np.exp(w))),
    ("entropy(exp(w))", lambda: -(np.exp(w) * w).sum()),
    ("sum(norm2(concat(X[i, :], w[1]))^2 for i in n)", lambda: (X**2).sum() + 5 * w[0] ** 2),
    ("concat(w, y, a)", lambda: np.concatenate([w, y, [1.5]])),
    ("card(ARC) + card(p)", lambda: 8.0),
    ("ones(p) @ w + sum(zeros(n, p)) + trace(eye(p))", lambda: w.sum() + 4),
    ("pi * a", lambda: np.pi * 1.5),
    # subscripts
    ("w[2]", lambda: w[1]),
    ("X[2, :] @ w", lambda: X[1] @ w),
    ("X[:, 3]", lambda: X[:, 2]),
    ('q["y"] * c["z"]', lambda: q[1] * c[2]),
    ('f["a", "c"]', lambda: f[2]),
    ("sum(D[j, j-1] for j in p where j > 1)", lambda: sum(M[j, j - 1] for j in range(1, P))),
    ("sum(w[j] * w[j-1] for j in p where j > 1)", lambda: w[1:] @ w[:-1]),
    ("sum(w[j] for j in 2..3)", lambda: w[1:3].sum()),
    ("sum(w[3 - j] for j in 1..2)", lambda: w[:2].sum()),
    ("sum(h[t] - h[lag[t]] for t in T)", lambda: (h - h[D["lag"].astype(int) - 1]).sum()),
    ("w[which]", lambda: w[D["which"].astype(int) - 1]),
    ("sum(X[i, which[i]] for i in n)", lambda: X[np.arange(N), D["which"].astype(int) - 1].sum()),
    (
        "sum(G[k, t] * G[k, t-1] for k in NODE, t in T where t > 1)",
        lambda: (G[:, 1:] * G[:, :-1]).sum(),
    ),
    ("sum(big[b] * c[b] for b in BIG)", lambda: 3 * c[1] + 4 * c[2]),
    ('sum(big[i] for i in FIRM where i != "x")', lambda: 7.0),
    ("sum(t * h[t] for t in T)", lambda: (np.arange(1, 7) * h).sum()),
    # conditions
    ("sum(c[i] for i in FIRM where c[i] > 0)", lambda: c[c > 0].sum()),
    ('mean(c[i] for i in FIRM where c[i] < 10 and i != "y")', lambda: (c[0] + c[2]) / 2),
    (
        "sum(w[i] * w[j] for i in p, j in p where i < j)",
        lambda: sum(w[i] * w[j] for i in range(P) for j in range(i + 1, P)),
    ),
    (
        "sum(w[i] * a for i in p, j in p, k in n where i < j and j != 2 and k > 1)",
        lambda: sum(w[i] * 1.5 for i in range(P) for j in range(i + 1, P) if j != 1) * 4,
    ),
    ("sum(sum(w[j] for j in p where j <= i)^2 for i in p)", lambda: (np.cumsum(w) ** 2).sum()),
    (
        "sum(mean(w[j] * X[k, j] for j in p where j <= i)^2 for i in p, k in n)",
        lambda: sum(np.mean(w[: i + 1] * X[k, : i + 1]) ** 2 for i in range(P) for k in range(N)),
    ),
    ("sum(max(w[j] for j in p where j <= i) for i in p)", lambda: np.maximum.accumulate(w).sum()),
    ("sum(prod(w[j] for j in p where j <= i) for i in p)", lambda: np.cumprod(w).sum()),
    (
        "sum(logsumexp(w[j] for j in p where j >= i and j > 0) for i in p)",
        lambda: sum(lse(w[i:]) for i in range(P)),
    ),
    (
        "sum(norm2(w[j] for j in p where j <= i) for i in p)",
        lambda: sum(np.linalg.norm(w[: i + 1]) for i in range(P)),
    ),
    (
        "sum(sum(w[j] for j in p where j > i or i == 2)"
        " * sum(w[j] for j in p where j < i) for i in p)",
        lambda: sum(sum(w[j] for j in range(P) if j > i or i == 1) * w[:i].sum() for i in range(P)),
    ),
    ("sum(w[i] for i in p where not (i == 2 or i > 3))", lambda: w[0] + w[2]),
    ("sum(if i < 3 then w[i] else a for i in p)", lambda: w[0] + w[1] + 3.0),
    ("if a > 1 and n > 2 then w else -w", lambda: w),
    # pairs
    ("sum(cost[i, j] * f[i, j] for (i, j) in ARC)", lambda: cost @ f),
    ("sum(cost[e] * f[e] for e in ARC)", lambda: cost @ f),
    ("sum(supply[i] * f[i, j] for (i, j) in ARC)", lambda: D["supply"][TAIL] @ f),
    (
        'sum(f[i, j] for (i, j) in ARC where i != "b" and cost[i, j] > 1.2)',
        lambda: f[(TAIL != 1) & (cost > 1.2)].sum(),
    ),
    (
        "sum((sum(f[i, j] for (i, j) in ARC where i == v)"
        " - sum(f[i, j] for (i, j) in ARC where j == v) - supply[v])^2 for v in NODE)",
        lambda: sum(
            (f[v == TAIL].sum() - f[v == HEADS].sum() - D["supply"][v]) ** 2 for v in range(3)
        ),
    ),
    ('sum(f["a", j] for j in NODE where j != "a")', lambda: f[0] + f[2]),
    # sets
    ('sum(c[i] for i in FIRM diff {"y"})', lambda: c[0] + c[2]),
    ('sum(c[i] for i in BIG union {"x"})', lambda: c.sum()),
    ("sum(c[i] for i in BIG)", lambda: c[1] + c[2]),
    ("sum(h[t] for t in T inter 2..3)", lambda: h[1:3].sum()),
    # functions
    ("total(w, p) + total(c, BIG)", lambda: w.sum() + c[1] + c[2]),
    ("sum(total(X[i, :], p) for i in n)", lambda: X.sum()),
]


@pytest.fixture(scope="module")
def bound() -> Any:
    reports = "\n".join(f"report r{k} = {text};" for k, (text, _) in enumerate(CASES))
    checked = check(Source("model.blv", HEAD + reports))
    assert checked.diagnostics == []
    assert checked.program is not None
    return bind(checked.program, D)


@pytest.mark.parametrize("k", range(len(CASES)), ids=[t for t, _ in CASES])
def test_value(bound: Any, k: int) -> None:
    value = bound.program.reports[f"r{k}"].value
    env = {("upper", "w"): w, ("upper", "f"): f, ("upper", "q"): q}
    found = evaluate(value, bound.data, env)
    np.testing.assert_allclose(found, CASES[k][1](), rtol=1e-12, atol=1e-12)
