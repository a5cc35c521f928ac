"""Kinks of convex followers become variables and rows of the program itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import bilevelpy as bl
from bilevelpy.analysis.explain import to_json
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.reductions.rewriting.epigraphs import with_epigraphs
from bilevelpy.solving.facts import structure

HEAD = """
model kinks;
dim n, p;
param X[n, p], b[n];
upper { var u[p] in [0, 3] start 1; var c[n] in [0, 1]; var q in [0, 1]; minimize sum(w^2); }
lower fit { var w[p] in [-2, 2]; var s; SENSE; }
"""
MARGIN = "b[i] * (X[i, :] @ w + s)"
RESIDUAL = "(b[i] - X[i, :] @ w)"
CONVEX = [
    f"minimize sum(max(0, 1 - {MARGIN}) for i in n) + sumsq(w)",
    f"minimize sum(c[i] * relu(1 - {MARGIN}) for i in n) + sum(u[j] * abs(w[j]) for j in p)",
    f"minimize mean(max(q*{RESIDUAL}, (q - 1)*{RESIDUAL}) for i in n) + sumsq(w)",
    f"minimize sum(max(0, abs({RESIDUAL}) - q) for i in n) + exp(q) * sumsq(w)",
    f"minimize sum(max(q, abs({RESIDUAL}) + s - 1, w[1]) for i in n) + norminf(w)",
    "minimize norminf(w) + 2 * max(w[1], w[2] - s, 3 * s) - min(w[1], s) + sumsq(w)",
    "minimize sum(abs(w[j + 1] - w[j]) for j in p where j < 3) + mean(logistic(-b * (X @ w)))",
    f"minimize max({RESIDUAL} for i in n) - min({MARGIN} for i in n) + abs(s)",
    f"maximize sum(min(1, {MARGIN}) for i in n) - norm1(w) - sumsq(w)",
]
OTHER = [
    f"minimize sumsq(w) - 0.1 * sum(max(0, 1 - {MARGIN}) for i in n)",
    f"minimize sum(b[i] * abs({RESIDUAL}) for i in n) + sumsq(w)",
    f"minimize sum((c[i] - 0.5) * abs({RESIDUAL}) for i in n) + sumsq(w)",
    f"minimize sum((q * abs({RESIDUAL}) + 1)^2 for i in n)",
    "minimize norm2(w) + norm1(w)",
    "minimize s * max(0, w[1]) + sumsq(w)",
    "minimize min(w[1], s) + sumsq(w)",
    "minimize max(w[1]^2, s) + sumsq(w)",
]


def model(text: str) -> bl.Model:
    rng = np.random.default_rng(0)
    data = {"X": rng.standard_normal((4, 3)), "b": rng.choice([-1.0, 1.0], 4)}
    return bl.parse(HEAD.replace("SENSE", text), data=data)


@pytest.mark.parametrize("text", CONVEX)
def test_the_least_over_epigraphs_is_the_given_objective(text: str) -> None:
    """At fixed x and y a linear program in the further variables, of value f(x, y)."""
    given = model(text)
    found = bl.analyze(given).epigraphs
    assert found is not None
    o, wide = TorchOracle(given.bound), TorchOracle(with_epigraphs(given.bound).bound)
    assert (wide.m - o.m, wide.g.size) == (found.value.variables, found.value.rows)
    torch.manual_seed(0)
    for _ in range(3):
        x = o.domain_x.project(torch.randn(o.n, dtype=torch.float64))
        y = torch.randn(o.m, dtype=torch.float64)
        at = torch.cat([y, torch.zeros(wide.m - o.m, dtype=torch.float64)])
        slope = wide.grad_f(x, at)[o.m :].numpy()
        A = wide.g.jacobian_y(x, at)[0][:, o.m :].numpy()
        floor = [(v if np.isfinite(v) else None, None) for v in wide.domain_y.lower[o.m :].numpy()]
        least = linprog(slope, A_ub=A, b_ub=-wide.g.values(x, at).numpy(), bounds=floor)
        assert wide.f(x, at) + least.fun == pytest.approx(o.f(x, y), rel=1e-9)


@pytest.mark.parametrize("text", OTHER)
def test_what_no_epigraph_stands_for_is_left(text: str) -> None:
    """Negative and unsigned weights, kinks inside of other functions, other kinks."""
    given = model(text)
    assert bl.analyze(given).epigraphs is None
    with pytest.raises(ValueError, match="cannot stand for"):
        with_epigraphs(given.bound)


def test_an_absolute_value_inside_has_no_stand_in_of_its_own() -> None:
    """``max(0, |r| - q)`` is the greatest of 0, ``r - q`` and ``-r - q``: one variable and two rows
    each, and no multiplier is open where 0 is the greatest.
    """
    found = bl.analyze(model(CONVEX[3])).epigraphs
    assert found is not None
    assert (found.value.variables, found.value.rows) == (4, 8)


def test_followers_of_a_family_have_epigraphs_of_their_own() -> None:
    given = bl.parse("""
    model family;
    dim k = 2;
    param a[k] = [1, -3];
    upper { var x in [0, 2]; minimize sum(y^2); }
    lower L[i in k] { var y; minimize (y - a[i])^2 + x * abs(y) + max(y, 0.5 * a[i]); }
    """)
    o, wide = TorchOracle(given.bound), TorchOracle(with_epigraphs(given.bound).bound)
    assert (wide.m, wide.g.size) == (6, 4)
    x, y = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.2, -4.0], dtype=torch.float64)
    parts = wide.unflatten_y(torch.zeros(6, dtype=torch.float64))["L"]
    assert {v.shape for v in parts.values()} == {(2,)}
    assert o.f(x, y) == pytest.approx(0.8**2 + 0.14 + 0.5 + 1.0 + 2.8 - 1.5)


def test_what_a_level_says_of_its_curvature_is_not_said_of_epigraphs() -> None:
    given = bl.parse("""
    model said;
    upper { var x in [0, 2]; minimize y^2; }
    lower L { var y; minimize (y - 1)^2 + x * max(y, -y, 0.5); assume strongly_convex(2); }
    """)
    level = with_epigraphs(given.bound).bound.program.lowers[0]
    assert [a.name for a in level.assumptions] == ["convex"]
    assert all(" " in v.name for v in level.variables[1:])  # no name of a model has a blank


def test_explain_counts_them() -> None:
    model = bl.parse(
        "dim n = 3; param a[n] = [1, 2, 3];"
        "upper { var x in [0, 1]; minimize y^2 + x; }"
        "lower l { var y; minimize sum(max(0, a - y)) + x * y^2; }"
    )
    facts = {f["fact"]: f["value"] for f in to_json(structure(model, 0))["facts"]}
    assert facts["lower kinks as rows"] == {"variables": 3, "rows": 3, "form": "quadratic"}
