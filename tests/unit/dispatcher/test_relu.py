"""Networks with kinks: below they are not convex, and slopes of one side will do."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl

NETWORK = """
model network; dim n, p, h = 3;
param X[n, p], t[n], V[n, p], s[n], W0[p, h], c0[h];
upper { var lam in [-8, 0] start -3; minimize mean((relu(V @ W) @ c - s)^2); }
lower fit {
  var W[p, h] start W0, c[h] start c0;
  minimize mean((relu(X @ W) @ c - t)^2) + exp(lam) * (sumsq(W) + sumsq(c)) / 2;
}
"""


def model():
    draw = np.random.default_rng(0)
    X, V = draw.standard_normal((40, 4)), draw.standard_normal((40, 4))
    W, c = draw.standard_normal((4, 3)), draw.standard_normal(3)

    def respond(A):
        return np.maximum(A @ W, 0) @ c + 0.3 * draw.standard_normal(40)

    data = {"X": X, "t": respond(X), "V": V, "s": respond(V)}
    return bl.parse(NETWORK, data={**data, "W0": draw.standard_normal((4, 3)), "c0": c})


def test_a_minimiser_is_followed() -> None:
    known = model()
    decision = bl.dispatch(bl.analyze(known))
    assert decision.chosen == "aid"
    assert {"f2sa", "pbgd"} <= set(decision.ranked)
    assert "slopes are those of one side" in " ".join(decision.warnings)
    found = bl.solve(known, progress=False, time_limit=6)
    oracle = bl.compile(known)
    assert oracle.F(oracle.x0, oracle.y0) > found.F


@pytest.mark.parametrize("term", ["sum(abs(c))", "sum(norm2(W[i, :]) for i in p)"])
def test_kinks_that_draw_solutions_are_no_such_ones(term) -> None:
    """Minimisers lie on kinks of absolute values of variables."""
    text = NETWORK.replace("relu(", "tanh(").replace("/ 2;\n", f"/ 2 + {term};\n")
    draw = np.random.default_rng(0)
    data = {
        "X": draw.standard_normal((9, 2)),
        "t": np.ones(9),
        "V": np.ones((9, 2)),
        "s": np.ones(9),
    }
    known = bl.parse(text, data={**data, "W0": np.ones((2, 3)), "c0": np.ones(3)})
    assert not {"aid", "f2sa", "pbgd"} & set(bl.dispatch(bl.analyze(known)).ranked)
