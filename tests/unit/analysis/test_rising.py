"""Products of functions of one argument that rise together."""

import numpy as np
import pytest

import bilevelpy as bl

MODEL = """
model t;
set ARC = 1..3;  set OD = 1..2;
param c[ARC] = 2;
upper { var a[ARC] in [0, 5] start 1; minimize sum(a[k] for k in ARC); }
lower flow { var f[OD, ARC] in [0, 10]; minimize OBJECTIVE; }
"""
V = "sum(f[o, k] for o in OD)"


@pytest.mark.parametrize(
    "cost",
    [
        "V * (1 + 0.15 * (V / (c[k] + a[k]))^4)",
        "0.03 * V * (V / (c[k] + a[k]))^4",
        "(V / c[k])^4 * V / 2",
        "V^2 * exp(V / c[k])",
        "(1 + a[k]) * V * softplus(V)",
    ],
)
def test_costs_of_flows_are_proved_convex(cost):
    text = MODEL.replace("OBJECTIVE", f"sum({cost} for k in ARC)".replace("V", V))
    fact = bl.analyze(bl.parse(text)).by_text
    assert fact.value in ("convex", "strongly convex")
    assert fact.evidence == "proved"


@pytest.mark.parametrize(
    ("cost", "low", "high"),
    [
        ("y * exp(-y)", 0, 4),  # one of them falls
        ("y * (y - 3)^4", 0, 4),  # falls before 3
        ("(y - 1) * y^2", 0, 4),  # negative before 1
        ("sqrt(y) * log(1 + y)", 0, 4),  # concave factors
        ("y * (5 - y)^2", 0, 4),
        ("y * z^2", 0, 4),  # two arguments
        ("y^2 * (y + z)^2", 0, 4),
        ("y^2 * y^3", -2, 2),
    ],
)
def test_other_products_are_not(cost, low, high):
    text = (
        "model t; upper { var x in [0, 1]; minimize x; }\n"
        f"lower f {{ var y in [{low}, {high}]; var z in [{low}, {high}]; minimize {cost}; }}\n"
    )
    model = bl.parse(text)
    assert bl.analyze(model).by_text.value not in ("convex", "strongly convex")
    oracle = bl.compile(model)
    rng, x = np.random.default_rng(0), np.array([0.5])
    least = min(
        np.linalg.eigvalsh(oracle.hessian(x, rng.uniform(low + 0.1, high - 0.1, 2)))[0]
        for _ in range(200)
    )
    assert least < -1e-3
