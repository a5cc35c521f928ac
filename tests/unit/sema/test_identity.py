"""Index form and matrix form are one node; the size of a graph depends on its text alone."""

from __future__ import annotations

import pytest

from bilevelpy.ir.walk import postorder, program_roots
from tests.unit.sema.samples import FIRMS, RIDGE, TOLL, program, reports

HEAD = """
dim n, m, p;
set T = 1..24;
set NODE = {"a", "b", "c"};
set ARC within NODE * NODE;
param X[n, p], Y[n, p], y[n], z[n], D[p, p], E[p, p], a, cost[ARC], h[T];
def mse(A, b, w) = mean((A @ w - b)^2);
upper { var w[p]; var f[ARC]; minimize sum(w) + sum(f); }
"""

PAIRS = [
    ("sum((X @ w - y)^2)", "sum((sum(X[i, j] * w[j] for j in p) - y[i])^2 for i in n)"),
    ("mse(X, y, w)", "mean((sum(X[i, k] * w[k] for k in p) - y[i])^2 for i in n)"),
    ("w' @ D @ w", "sum(w[i] * D[i, j] * w[j] for i in p, j in p)"),
    ("w @ D @ w", "sum(D[i, j] * w[j] * w[i] for j in p, i in p)"),
    ("w' @ D @ w", "quad(w, D)"),
    ("y' @ X @ w", "sum(y[i] * X[i, j] * w[j] for i in n, j in p)"),
    ("dot(w, w)", "sumsq(w)"),
    ("norm2(w)^2", "sum(w[i]^2 for i in p)"),
    ("trace(D)", "sum(D[i, i] for i in p)"),
    ("diag(D) @ w", "sum(D[j, j] * w[j] for j in p)"),
    ("norm1(w)", "sum(abs(w[j]) for j in p)"),
    ("norminf(w)", "max(abs(w[j]) for j in p)"),
    ("norm2(X @ w - y)", "norm2(sum(X[i, j] * w[j] for j in p) - y[i] for i in n)"),
    ("logsumexp(X @ w)", "logsumexp(sum(X[i, j] * w[j] for j in p) for i in n)"),
    ("sum(X * Y)", "sum(X[i, j] * Y[i, j] for i in n, j in p)"),
    ("sum(y / z)", "sum(y[i] / z[i] for i in n)"),
    ("a * sum(w) / 2", "sum(a * w[j] / 2 for j in p)"),
    ("mean(w)", "sum(w) / p"),
    ("n * a", "sum(a for i in n)"),
    ("sum(w)", "sum(w[j] for j in 1..p)"),
    ("sum(cost * f)", "sum(cost[i, j] * f[i, j] for (i, j) in ARC)"),
    ("sum(cost * f)", "sum(cost[e] * f[e] for e in ARC)"),
    ("D[:, 1] @ w", "sum(D[j, 1] * w[j] for j in p)"),
    (
        "sum((X' @ (X @ w)) * w)",
        "sum(sum(X[i, j] * sum(X[i, k] * w[k] for k in p) for i in n) * w[j] for j in p)",
    ),
    ("sum((X @ X')^2)", "sum(sum(X[i, k] * X[j, k] for k in p)^2 for i in n, j in n)"),
    (
        "sum(w[j] for j in p where j > 1 and j != 3)",
        "sum(w[k] for k in p where k > 1 and k != 3)",
    ),
    (
        "sum(sum(w[j] for j in p where j < i)^2 for i in p)",
        "sum(sum(w[l] for l in p where l < k)^2 for k in p)",
    ),
]


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_same_node(left: str, right: str) -> None:
    a, b = reports(HEAD, left, right)
    assert a is b


def test_declared_and_anonymous_conditions_share_an_axis() -> None:
    (total,) = reports(
        HEAD, "sum(h[t] for t in T where t > 3) + sum(h[s]^2 for s in T where s > 3)"
    )
    axes = {a for node in postorder(total) for a in node.axes}
    assert len(axes) == 2


@pytest.mark.parametrize("text", [RIDGE, TOLL, FIRMS])
def test_number_of_nodes_is_small(text: str) -> None:
    assert len(list(postorder(program_roots(program(text))))) < 70


@pytest.mark.parametrize("size", [3, 3000])
def test_number_of_nodes_does_not_depend_on_sizes(size: int) -> None:
    text = TOLL.replace("1..20", f"1..{size + 20}")
    assert len(list(postorder(program_roots(program(text))))) == len(
        list(postorder(program_roots(program(TOLL))))
    )
