"""Inverses of f_yy by the samples, where there are fewer of them than of features."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from bilevelpy import parse
from bilevelpy.lowering.hessians import wide_inverse
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.linear_solve import conjugate_gradients, norm

LOGISTIC = """
model a;
dim n, p;
param X[n, p], s[n];
upper { var lam[p] in [-8, 8] start 0; minimize sumsq(w); }
lower fit {
  var w[p], b;
  minimize mean(softplus(-s * (X @ w + b))) + sum(exp(lam) * w^2) + 0.1 * b^2;
}
"""
ONE = LOGISTIC.replace("var lam[p]", "var lam").replace(
    "sum(exp(lam) * w^2)", "exp(lam) * sumsq(w)"
)
BARE = LOGISTIC.replace(" + 0.1 * b^2", "")
SOFTMAX = """
model b;
dim n, p;
dim c = 3;
param X[n, p];
upper { var lam[p, c] in [-8, 8] start 0; minimize sumsq(W); }
lower fit {
  var W[p, c];
  minimize mean(logsumexp((X @ W)[i, k] for k in c) for i in n) + sum(exp(lam) * W^2);
}
"""


def oracle(text: str, sparse: bool = False) -> TorchOracle:
    draw = np.random.default_rng(0)
    X = draw.standard_normal((12, 40)) * (draw.random((12, 40)) < 0.5)
    data: dict[str, object] = {"X": sp.csr_array(X) if sparse else X}
    if text is not SOFTMAX:
        data["s"] = np.sign(draw.standard_normal(12))
    return TorchOracle(parse(text, data=data).bound)


def point(o: TorchOracle) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(1)
    x = torch.from_numpy(draw.uniform(-5, 5, o.n))
    return x, torch.from_numpy(0.1 * draw.standard_normal(o.m))


@pytest.mark.parametrize(
    ("text", "sparse"), [(LOGISTIC, False), (LOGISTIC, True), (ONE, False), (SOFTMAX, False)]
)
def test_it_is_the_inverse(text: str, sparse: bool) -> None:
    o = oracle(text, sparse)
    x, y = point(o)
    M, H = o.preconditioner(x, y), o.hvp(x, y)
    assert M is not None
    for v in torch.eye(o.m, dtype=torch.float64)[::7]:
        torch.testing.assert_close(H(M(v)), v, rtol=1e-9, atol=1e-9)


def test_a_variable_without_a_penalty_is_left_to_conjugate_gradients() -> None:
    o = oracle(BARE)
    x, y = point(o)
    d = torch.from_numpy(np.random.default_rng(3).standard_normal(o.m))
    found = conjugate_gradients(
        o.hvp(x, y), d, tol=1e-9 * norm(d), max_iter=50, preconditioner=o.preconditioner(x, y)
    )
    assert found.converged
    assert found.products <= 4


def test_it_is_kept_until_its_age_has_cost_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    factorised = wide_inverse.WideInverse._factorised
    monkeypatch.setattr(
        wide_inverse.WideInverse,
        "_factorised",
        lambda self, S, D: made.append(1) or factorised(self, S, D),
    )
    o = oracle(LOGISTIC)
    x, y = point(o)
    M = o.preconditioner(x, y)
    assert M is not None
    again = o.preconditioner(x + 0.1, y)
    assert again is not None
    assert len(made) == 1
    for _ in range(2000):
        again(y)
    o.preconditioner(x + 0.2, y)
    assert len(made) == 2


def test_multiples_of_a_penalty_share_the_products_of_samples() -> None:
    o = oracle(ONE.replace(" + b", "").replace(", b;", ";").replace(" + 0.1 * b^2", ""))
    x, y = point(o)
    o.preconditioner(x, y)
    assert o._preconditioning is not None
    assert o._preconditioning._wide is not None
    wide = o._preconditioning._wide[1]
    known = wide._gram
    M, H = o.preconditioner(x + 1, y), o.hvp(x + 1, y)
    assert wide._gram is known
    assert M is not None
    torch.testing.assert_close(H(M(y)), y, rtol=1e-9, atol=1e-9)
