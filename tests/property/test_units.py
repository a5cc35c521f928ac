"""Answers do not depend on units: objectives times 1e3 or 1e-6, variables times 1e4 or 1e-4."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bilevelpy as bl

# u and s: units of the upper and of the lower variables; a and b: factors of F and of f.
QUADRATIC = """
model quadratic;
dim n = 4;
param u, s, a, b, k[n];
upper { var X[n] start 2*u; minimize a*(sumsq(X/u - 1)/2 + sum(k*(Y/s)^2)/2); }
lower L { var Y[n] start 2*s; minimize b*(sum(k*(Y/s)^2)/2 - dot(X/u, Y/s)); }
"""
MARKET = """
model market;
param u, s, a, b;
upper { var X in [0, 13*u] start u; maximize a*((13 - X/u - Y/s)*(X/u) - X/u); }
lower L { var Y in [0, inf]; maximize b*((13 - X/u - Y/s)*(Y/s) - Y/s); }
"""
BOXES = """
model boxes;
dim n = 3;
param u, s, a, b;
upper { var X[n] start 0.3*u; minimize a*(sumsq(Y/s - 2)/2 + 0.05*sumsq(X/u)); }
lower L { var Y[n] in [0, s]; minimize b*sumsq(Y/s - X/u)/2; }
"""
# Two units in one level: P and Q differ by u^2, Z and W by s^2.
MIXED = """
model mixed;
param u, s, a, b;
upper { var P start 0; var Q start 0; minimize a*((P/u - 1)^2 + (Q*u - 2)^2 + (W*s - 1)^2); }
lower L { var Z, W; minimize b*((Z/s - P/u)^2 + (W*s - Q*u - Z/s)^2); }
"""
K = np.geomspace(1, 100, 4)
# Optima in closed form; in the mixed model w = p + q, p = 1/3 and q = 4/3.
OPTIMA = {
    "quadratic": (QUADRATIC, {"k": K}, 0.5 * float((1 / (1 + K)).sum())),
    "market": (MARKET, {}, 18.0),
    "boxes": (BOXES, {}, 3 * 0.55),
    "mixed": (MIXED, {}, 4 / 3),
}
UNITS = st.sampled_from([1e-4, 1.0, 1e4])
FACTORS = st.sampled_from([1e-6, 1.0, 1e3])


def solved(name: str, backend: str, u: float, s: float, a: float, b: float) -> bl.Result:
    text, data, _ = OPTIMA[name]
    model = bl.parse(text, data={"u": u, "s": s, "a": a, "b": b, **data})
    return bl.solve(model, backend=backend)


@pytest.mark.parametrize("backend", ["direct", "aid"])
@pytest.mark.parametrize("name", list(OPTIMA))
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(u=UNITS, s=UNITS, a=FACTORS, b=FACTORS)
def test_the_same_answer_in_any_units(name, backend, u, s, a, b) -> None:
    result = solved(name, backend, u, s, a, b)
    assert result.status == "converged", result.message
    assert result.F / a == pytest.approx(OPTIMA[name][2], rel=1e-6, abs=1e-6)


def test_mixed_units_are_seen_and_told_back_in_the_model_s() -> None:
    """Points, history and certificate are in the model's units."""
    one, other = solved("mixed", "direct", 1, 1, 1, 1), solved("mixed", "direct", 1e4, 1e-4, 1, 1)
    assert other["P"] == pytest.approx(1e4 * one["P"], rel=1e-4)
    assert other["Q"] == pytest.approx(1e-4 * one["Q"], rel=1e-4)
    assert other["Z"] == pytest.approx(1e-4 * one["Z"], rel=1e-4)
    seen = []
    model = bl.parse(MIXED, data={"u": 1e4, "s": 1e-4, "a": 1.0, "b": 1.0})
    bl.solve(model, backend="aid", callback=lambda state: seen.append(state.x.copy()))
    assert seen[-1] == pytest.approx([float(other["P"]), float(other["Q"])], rel=1e-3)
