"""Batched blocks against the dense matrix, and preconditioners from the form of f."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import bilevelpy as bl
from bilevelpy.lowering.domains.product import Face
from bilevelpy.lowering.hessians import known
from bilevelpy.numerics.linear_solve import conjugate_gradients, norm
from bilevelpy.numerics.lower.block_curvature import BlockCurvature, curvature_of
from bilevelpy.numerics.lower.dense_curvature import DenseCurvature
from bilevelpy.numerics.lower.newton import newton
from tests.unit.lowering.programs import oracle

FAMILY = """
dim firm, k;
param c[firm, k];
upper {
  var x[k] in [-1, 1];
  minimize sumsq(x) + sum((firms.q[i, j] - 0.1)^2 for i in firm, j in k);
}
lower firms[i in firm] {
  var q[k] in [-0.4, 3], r;
  minimize sum(softplus(q[j] - c[i, j]) + (q[j] - x[j])^2 for j in k) + (sum(q) - r)^2 + r^2;
}
"""


@pytest.fixture
def family(monkeypatch):
    monkeypatch.setattr(known, "MANY", 5)
    draw = np.random.default_rng(0)
    return oracle(FAMILY, c=draw.standard_normal((6, 3)))


def test_blocks_solve_like_the_whole(family):
    o = family
    assert o.blocks is not None
    assert o.blocks.shape == (6, 4)
    assert sorted(o.blocks.reshape(-1).tolist()) == list(range(o.m))
    x, y = o.x0 + 0.2, o.domain_y.project(o.y0 + 0.1)
    blocks, dense = BlockCurvature(o.blocks), DenseCurvature()
    v = torch.from_numpy(np.random.default_rng(1).standard_normal(o.m))
    free = torch.ones(o.m, dtype=torch.bool)
    free[[0, 7]] = False
    for face in (Face(o.m, None), Face(o.m, free)):
        for c in (blocks, dense):
            c.refresh(o, x, y)
            assert c.settle(face)
        torch.testing.assert_close(blocks.solve(v), dense.solve(v))
    assert not blocks.negative


@pytest.mark.parametrize("bend", [1.0, -3.0])
def test_blocks_of_single_variables(bend, monkeypatch):
    """Separable: the inverse is a division; negative curvature is told as of larger blocks."""
    monkeypatch.setattr(known, "MANY", 5)
    text = """
    dim n;
    param b[n];
    upper { var x[n]; minimize sumsq(x - y); }
    lower fit {
      var y[n] in [-1, 1];
      minimize sum(b[i] * y[i]^2 / 2 + y[i]^4 - x[i] * y[i] for i in n);
    }
    """
    o = oracle(text, b=np.array([1.0, 2.0, bend, 4.0, 5.0, 6.0]))
    y = 0.1 * torch.arange(6, dtype=torch.float64)
    blocks, dense = BlockCurvature(o.blocks), DenseCurvature()
    assert o.blocks.shape == (6, 1)
    for free in (None, torch.arange(6) != 1):
        face = Face(6, free)
        for curvature in (blocks, dense):
            curvature.refresh(o, o.x0, y)
            assert curvature.settle(face)
            assert curvature.negative is (bend < 0)
        if bend > 0:
            v = torch.linspace(-1, 2, 6, dtype=torch.float64)
            torch.testing.assert_close(blocks.solve(v), dense.solve(v))


def test_newton_on_blocks_reaches_the_same_response(family):
    o = family
    x = o.x0 + 0.5
    whole = newton(o, x, o.y0, DenseCurvature())
    parts = newton(o, x, o.y0, curvature_of(o))
    assert parts.usable
    torch.testing.assert_close(parts.y, whole.y, rtol=1e-8, atol=1e-9)


def test_a_thousand_followers_are_solved_directly():
    draw = np.random.default_rng(2)
    data = {"c": draw.standard_normal((300, 3))}
    result = bl.solve(bl.parse(f"model family;{FAMILY}", data=data))
    assert result.backend == "direct"
    assert result.certificate is not None
    assert result.certificate.kind == "local"


SOFTMAX = """
dim n, p;
dim k = 4;
param X[n, p];
upper { var x; minimize x^2; }
lower fit { var W[p, k], b[k]; let Z[i in n, c in k] = (X @ W)[i, c] + b[c];
  minimize mean(logsumexp(Z[i, c] for c in k) for i in n)
      + 1e-3 * (sumsq(W) + sumsq(b)) + x * W[1, 1]; }
"""
SPREAD = """
dim n, p;
param X[n, p], lam[p], s[n];
upper { var x; minimize x^2; }
lower fit { var w[p]; minimize mean(softplus(-s * (X @ w))) + sum(exp(lam) * w^2) + x * w[1]; }
"""


def products(o, x, y, preconditioner):
    d = torch.from_numpy(np.random.default_rng(3).standard_normal(o.m))
    found = conjugate_gradients(
        o.hvp(x, y), d, tol=1e-8 * norm(d), max_iter=2000, preconditioner=preconditioner
    )
    assert found.converged
    return found


def test_kronecker_preconditioner():
    """Images have a few strong directions: their second moments take them out."""
    draw = np.random.default_rng(0)
    X = draw.standard_normal((300, 30)) * np.geomspace(1, 0.02, 30) + 0.5
    o = oracle(SOFTMAX, X=X)
    x, y = o.x0, o.y0 + 0.05 * torch.from_numpy(draw.standard_normal(o.m))
    M = o.preconditioner(x, y)
    assert M is not None
    plain, better = products(o, x, y, None), products(o, x, y, M)
    assert better.products < plain.products / 2
    torch.testing.assert_close(better.u, plain.u, rtol=1e-5, atol=1e-5)


def test_a_run_begins_without_a_dear_matrix(monkeypatch):
    """The preconditioner serves until its products have cost what a factor takes."""
    draw = np.random.default_rng(0)
    o = oracle(SOFTMAX, X=draw.standard_normal((300, 30)) * np.geomspace(1, 0.02, 30) + 0.5)
    monkeypatch.setattr(type(o), "hessian_price", 40.0)
    made = []
    hessian = o.hessian
    monkeypatch.setattr(o, "hessian", lambda x, y: made.append(1) or hessian(x, y))
    plain, borrowing = DenseCurvature(), DenseCurvature(borrows=True)
    expected = newton(o, o.x0, o.y0, plain, tol=1e-10)
    assert made
    made.clear()
    found = newton(o, o.x0, o.y0, borrowing, tol=1e-3)
    assert found.ended == "reached"
    assert not made
    assert borrowing.lent is not None
    monkeypatch.setattr(type(o), "hessian_price", 12.0)
    for shift in (0.1, 0.2, 0.3):
        found = newton(o, o.x0 + shift, found.y, borrowing, tol=1e-10)
    assert made
    assert borrowing.lent is None
    found = newton(o, o.x0, found.y, borrowing, tol=1e-10)
    torch.testing.assert_close(found.y, expected.y, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sparse", [False, True])
def test_diagonal_preconditioner_of_spread_penalties(sparse):
    draw = np.random.default_rng(0)
    X = draw.standard_normal((60, 40)) * (draw.random((60, 40)) < 0.2)
    data = {"lam": np.linspace(-8, 6, 40), "s": np.sign(draw.standard_normal(60))}
    o = oracle(SPREAD, X=sp.csr_array(X) if sparse else X, **data)
    x, y = o.x0, o.y0 + 0.1
    M = o.preconditioner(x, y)
    assert M is not None
    exact = torch.stack([o.hvp(x, y)(e) for e in torch.eye(o.m, dtype=torch.float64)]).diagonal()
    torch.testing.assert_close(o.predicted.diagonal(x, y), exact)
    assert products(o, x, y, M).products < products(o, x, y, None).products / 2


# Terms of data, of features that x makes, and entry by entry.
TASKS = """
dim s, n, p, h;
set T = 1..s;
param X[T, n, p], y[T, n];
upper { var P[p, h], lam[h]; minimize sumsq(P) + sumsq(lam); }
lower task[t in T] {
  var v[h], c;
  minimize sum((sum(X[t, i, j] * P[j, l] * v[l] for j in p, l in h) + c - y[t, i])^2 for i in n)
    + sum(exp(lam[l]) * v[l]^2 for l in h);
}
"""
OUTPUTS = """
dim n, p, q;
param X[n, p], Y[n, q];
upper { var lam[p]; minimize sumsq(lam); }
lower fit {
  var W[p, q];
  minimize mean((X @ W - Y)^2) + sum(exp(lam[i]) * W[i, j]^2 for i in p, j in q)
    + sum(softplus(W));
}
"""


def parts(text: str):
    draw = np.random.default_rng(2)
    if text is TASKS:
        X, y = draw.standard_normal((4, 6, 3)), draw.standard_normal((4, 6))
        return oracle(TASKS, X=X, y=y, s=4, h=2)
    return oracle(text, X=draw.standard_normal((8, 3)), Y=draw.standard_normal((8, 5)))


@pytest.mark.parametrize("text", [TASKS, OUTPUTS])
def test_blocks_come_from_their_terms(text, monkeypatch):
    monkeypatch.setattr(known, "MANY", 5)
    o = parts(text)
    assert o.block_hessian is not None
    draw = torch.Generator().manual_seed(3)
    for _ in range(2):
        x = o.x0 + torch.randn(o.n, generator=draw, dtype=torch.float64)
        y = o.y0 + torch.randn(o.m, generator=draw, dtype=torch.float64)
        before = o.counts.hvp
        made = BlockCurvature(o.blocks)
        made.refresh(o, x, y)
        assert o.counts.hvp == before
        H = torch.stack([o.hvp(x, y)(e) for e in torch.eye(o.m, dtype=torch.float64)])
        for k, where in enumerate(o.blocks):
            torch.testing.assert_close(made.H[k], H[where][:, where], rtol=1e-12, atol=1e-12)


def test_sparse_data_and_other_functions_give_blocks_by_products(family, monkeypatch):
    monkeypatch.setattr(known, "MANY", 5)
    text = OUTPUTS.replace(" + sum(softplus(W))", "")
    X = sp.random(8, 3, 0.5, "csr", random_state=0)
    o = oracle(text, X=X, Y=np.ones((8, 5)))
    assert o.blocks is not None
    assert o.block_hessian is None
    text = TASKS.replace("for i in n)\n", "for i in n, k in T where k != t)\n")
    text = text.replace("y[t, i]", "y[k, i]").replace("X[t,", "X[k,")
    draw = np.random.default_rng(2)
    o = oracle(text, X=draw.standard_normal((4, 6, 3)), y=np.ones((4, 6)), s=4, h=2)
    assert o.blocks is not None
    v = torch.ones(o.m, dtype=torch.float64)
    made = BlockCurvature(o.blocks)
    made.refresh(o, o.x0 + 0.5, o.y0)
    assert made.settle(Face(o.m, None))
    torch.testing.assert_close(o.hvp(o.x0 + 0.5, o.y0)(made.solve(v)), v)
