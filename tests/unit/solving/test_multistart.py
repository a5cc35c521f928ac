"""Local ends of small models, where F is better elsewhere in the upper set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.numerics.certificate.resolve import Resolver
from bilevelpy.solving.facts import oracle
from bilevelpy.solving.multistart import _Responses

# An agent with the return b log(1 + e) for the effort e at the cost e: e = b - 1 from b = 1 on. The
# principal earns 3 - b a unit: (b - 1) (3 - b) has its maximum 1 at b = 2. Below b = 1 the effort
# is the least one, 0.01, and the principal pays as little as possible: a local maximum.
AGENT = """
upper { var b in [0.1, 5]; maximize e * (3 - b); }
lower agent { var e in [0.01, 10]; maximize b * log(1 + e) - e; }
"""

# Labels of two further points of a ridge regression through the origin; the response is linear in
# them, w = (14 + 1.5 a + 0.5 b) / 17.5, the loss 5 (w - 1)^2 convex: largest at a corner.
POISON = """
dim n = 3;
param x[n] = [1, 2, 3];
upper { var a in [-5, 5] start 5, b in [-5, 5] start 5; maximize 5 * (w - 1)^2; }
lower fit { var w; minimize sumsq(w * x - x) + (1.5 * w - a)^2 + (0.5 * w - b)^2 + w^2; }
"""


def test_effort_starts_at_a_kink() -> None:
    res = bl.solve(bl.parse(AGENT))
    assert res.success
    assert pytest.approx(1.0, abs=1e-6) == res.F
    assert float(res["b"]) == pytest.approx(2.0, abs=1e-3)
    assert any("elsewhere" in text for text in res.warnings)


def test_the_worst_corner_is_found_from_another_one() -> None:
    corners = [5 * ((14 + 1.5 * a + 0.5 * b) / 17.5 - 1) ** 2 for a in (-5, 5) for b in (-5, 5)]
    res = bl.solve(bl.parse(POISON))
    assert res.success
    assert pytest.approx(max(corners), rel=1e-6) == res.F


def test_a_start_of_the_caller_is_where_the_answer_belongs_to() -> None:
    res = bl.solve(bl.parse(AGENT), start={"b": 0.3})
    assert res.success
    assert float(res["b"]) == pytest.approx(0.1, abs=1e-9)


def test_ranges_without_ends_are_looked_at_too() -> None:
    # F(x, y(x)) with y = x: two valleys, at -1 and, deeper, at 3.
    text = """
    upper { var x start -1; minimize (y + 1)^2 * (y - 3)^2 / 10 - x; }
    lower copy { var y; minimize (y - x)^2; }
    """
    grid = np.linspace(-10, 10, 200001)
    wanted = float(((grid + 1) ** 2 * (grid - 3) ** 2 / 10 - grid).min())
    res = bl.solve(bl.parse(text))
    assert pytest.approx(wanted, abs=1e-4) == res.F


# Elastic nets with a weight for each of three groups. At the start all of the third group is 0, and
# no slope tells that a smaller weight would let it in.
GROUPS = """
dim n, m, p, g = 3;
param A[n, p], b[n], Av[m, p], bv[m], group[p];
upper {
  var l1[g] in [-8, 2] start -2, l2 in [-8, 2] start -3;
  minimize mean((Av @ w - bv)^2) / 2;
}
lower fit {
  var w[p] DOMAIN;
  minimize mean((A @ w - b)^2) / 2 + sum(exp(l1[group][j]) * abs(w[j]) for j in p)
    + exp(l2) * sumsq(w) / 2;
}
"""


@pytest.mark.parametrize("domain", ["", "in [-4, 4]"])
def test_weights_under_which_all_is_zero_are_looked_at(domain: str) -> None:
    rng = np.random.default_rng(1)
    truth = np.array([2.0, -1.0, 0, 0, 0, 1.0, 0, 0, 0])
    data = {"group": np.repeat([1, 2, 3], 3)}
    for x, y in (("A", "b"), ("Av", "bv")):
        data[x] = rng.normal(size=(50, 9))
        data[y] = data[x] @ truth + 0.5 * rng.normal(size=50)
    model = bl.parse(GROUPS.replace("DOMAIN", domain), data=data)
    one = bl.solve(model, backend="direct")
    res = bl.solve(model)
    assert res.success
    starts = rng.uniform(-8, 0, (10, 4))
    others = [
        float(bl.solve(model, backend="direct", start={"l1": s[:3], "l2": s[3]}, verify=False).F)
        for s in starts
    ]
    assert 1.005 * min(others) < one.F
    assert 1.001 * min(others) > res.F


def test_matrices_beside_rows_are_looked_at_too() -> None:
    # Y_11 = x up to the trace 2, Y_12 = 0: valleys at 0.2 and, deeper, at 1.5.
    text = """
    upper { var x in [0, 2] start 0.1; minimize (Y[1, 1] - 0.2)^2 * (Y[1, 1] - 1.5)^2 - 0.1*x; }
    lower f { var Y[2, 2] in psd; minimize (Y[1, 1] - x)^2 + 2*Y[1, 2]^2 + Y[2, 2]^2;
      subject to total: trace(Y) <= 2; }
    """
    grid = np.linspace(0, 2, 200001)
    wanted = float(((grid - 0.2) ** 2 * (grid - 1.5) ** 2 - 0.1 * grid).min())
    res = bl.solve(bl.parse(text))
    assert res.backend == "conic"
    assert res.success
    assert pytest.approx(wanted, abs=1e-6) == res.F


def test_a_leader_without_a_bound_beyond_a_plateau() -> None:
    # The follower copies x up to 5: F is 0 there, and x - 5 beyond.
    text = """
    upper { var x in [0, inf]; maximize x - y; }
    lower copy { var y in [0, 5]; minimize (y - x)^2; }
    """
    res = bl.solve(bl.parse(text))
    assert res.status == "unbounded"
    assert any("no bound" in text for text in res.warnings)


# Beyond x = 1 nothing below decides about z, which the leader then chooses: the better well, at 2.
WELLS = """
model wells;
dim n = 30;
param a[n];
upper { var x in [-3, 3] start -1.5; minimize (x^2 - 4)^2 - x + 0.3 * z + 0.1 * (w - 1)^2; }
lower f {
  var w; var z;
  minimize sum(logistic(a * w - x)) + w^2 + max(1 - x, 0)^2 * z;
  subject to floor: z >= -1; roof: z <= 1;
}
"""


def test_a_better_point_that_is_not_for_the_method_is_handed_on() -> None:
    made = bl.parse(WELLS, a=np.random.default_rng(0).standard_normal(30))
    assert bl.dispatch(bl.analyze(made)).chosen == "kkt"
    found, other = bl.solve(made, time_limit=20), bl.solve(made, backend="nlp")
    assert found.success
    assert pytest.approx(other.F, abs=1e-5) == found.F
    assert "`kkt` came to no certified end" in " ".join(found.decision.notes)


@pytest.mark.parametrize("term", ["", " + sum(sqrt(1 + y^2))"], ids=["quadratic", "curved"])
def test_responses_are_those_of_the_certificate(term: str) -> None:
    text = """
dim n = 6, k = 4;
param M[n, n], t[n], C[n, k];
upper { var x[k] in [-2, 2]; minimize sumsq(y - t) + sumsq(x) / 9; }
lower shares { var y[n] in simplex; minimize sumsq(M @ y) + sumsq(y) / 5 - y @ (C @ x)TERM; }
"""
    rng = np.random.default_rng(4)
    data = {"M": rng.standard_normal((6, 6)), "t": rng.random(6), "C": rng.standard_normal((6, 4))}
    functions = oracle(bl.parse(text.replace("TERM", term), data=data))
    quick = _Responses(functions)
    y = functions.y0
    for _ in range(20):
        x = torch.from_numpy(rng.uniform(-2, 2, 4))
        exact = Resolver(functions, x, y, torch.Generator().manual_seed(0)).answer(x, y)
        found = quick.answer(x, y)
        assert exact is not None
        assert found is not None
        assert torch.allclose(quick.solved(x, y).y, exact.lower.y, atol=1e-7)
        assert pytest.approx(exact.F, rel=1e-7) == found.F
        assert torch.allclose(found.g, exact.gradient, rtol=1e-5, atol=1e-6)
