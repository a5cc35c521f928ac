"""Certificates of rows of the leader above a smooth follower that has none."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl

# A penalty on a logistic fit, with scores that may differ by so much between two groups.
FAIR = """
model fair;
dim n, m, p;
param X[n, p], y[n], Xv[m, p], yv[m], g[m];
upper {
  var lam in [-8, 4] start 1;
  minimize mean(logistic(-yv * (Xv @ w)));
  subject to
    fair: sum(g * (Xv @ w)) / sum(g) - sum((1 - g) * (Xv @ w)) / sum(1 - g) <= 0.05;
}
lower fit {
  var w[p];
  minimize mean(logistic(-y * (X @ w))) + exp(lam) * sumsq(w) / 2;
}
report apart = sum(g * (Xv @ w)) / sum(g) - sum((1 - g) * (Xv @ w)) / sum(1 - g);
"""


@pytest.fixture(scope="module")
def fair() -> bl.Model:
    """220 weights: more than programs in scalar rows are tried with."""
    draw = np.random.default_rng(1)
    n, m, p = 60, 40, 220
    X, Xv = draw.standard_normal((n, p)), draw.standard_normal((m, p))
    w = np.zeros(p)
    w[:3] = 2.0
    y, yv = (np.sign(A @ w + draw.logistic(size=len(A))) for A in (X, Xv))
    g = np.repeat([1.0, 0.0], m // 2)
    Xv[:, 0] += 2.0 * g
    return bl.parse(FAIR, data={"X": X, "y": y, "Xv": Xv, "yv": yv, "g": g})


@pytest.fixture(scope="module")
def answer(fair: bl.Model) -> bl.Result:
    return bl.solve(fair, backend="kkt")


def test_the_row_holds_the_answer(fair: bl.Model, answer: bl.Result) -> None:
    """With one penalty the row says what it is: the response meets it as an equation."""
    assert answer.success
    assert answer.certificate is not None
    assert answer.certificate.lower_gap <= 1e-12
    assert answer.reports["apart"] == pytest.approx(0.05, abs=1e-7)


def test_other_points_are_refuted(fair: bl.Model, answer: bl.Result) -> None:
    moved = answer["w"].copy()
    moved[1] *= 1.02
    response = bl.certify(fair, {"lam": answer["lam"], "w": moved})
    beyond = bl.certify(fair, {"lam": answer["lam"] - 0.1})
    within = bl.certify(fair, {"lam": answer["lam"] + 0.1})
    found = [r.certificate.reasons[0] for r in (response, beyond, within) if r.certificate]
    assert "the lower objective still falls" in found[0]
    assert "`fair` is violated" in found[1]
    assert "F falls along the upper rows" in found[2]
