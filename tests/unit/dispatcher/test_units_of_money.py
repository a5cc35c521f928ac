"""The same model in EUR and in kEUR: the same answer, whatever method solves it."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl

# A seller sets prices p (money per piece) within bounds; customers buy up to a limit each. Money is
# in p, in the worth w of the first piece and in both objectives; pieces stay pieces.
TOLL = """
model toll;
dim n;
param w[n] in [0, inf], top in [0, inf], slope in [0, inf];
upper { var p[n] in [0, top] start START; maximize dot(p, q) - slope*sumsq(q)/10; }
lower buyers {
  var q[n] in [0, 4];
  maximize dot(w - p, q) - slope*sumsq(q)/2 - slope*sum(q)^2/20;
}
"""
# The same with a limit on all pieces together: rows below.
LIMITED = TOLL.replace("sum(q)^2/20;", "sum(q)^2/20; subject to all: sum(q) <= 6;")


def model(text: str, money: float) -> bl.Model:
    """The model with the unit of money that many EUR large."""
    n = 5
    data = {"w": np.linspace(2000.0, 6000.0, n) / money, "top": 5000.0 / money}
    text = text.replace("START", repr(1500.0 / money))
    return bl.parse(text, data={**data, "slope": 1000.0 / money})


@pytest.mark.parametrize(
    "backend", ["direct", "aid", "qnbo", "nbo", "f2ba", "bagdc", "pbgd", "meha", "bome", "slbamm"]
)
def test_bounds(backend: str) -> None:
    one = bl.solve(model(TOLL, 1.0), backend=backend, max_iter=2000)
    thousand = bl.solve(model(TOLL, 1000.0), backend=backend, max_iter=2000)
    assert one.status == thousand.status == "converged"
    assert one["p"] / 1000 == pytest.approx(thousand["p"], rel=2e-3, abs=2e-3)
    assert float(one.F) / 1000 == pytest.approx(float(thousand.F), rel=1e-5)


def test_rows() -> None:
    one = bl.solve(model(LIMITED, 1.0), backend="nlp")
    thousand = bl.solve(model(LIMITED, 1000.0), backend="nlp")
    assert one.status == thousand.status == "converged"
    assert float(one.F) / 1000 == pytest.approx(float(thousand.F), rel=1e-4)
