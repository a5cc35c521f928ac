"""A problem in other units has the same optimum: what is called global is right in all of them.

An engine's tolerances are absolute; objectives written in other units must not slip below them.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.numerics.followers.response import JointResponse
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rewriting.normalize import normalize
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")

# Closed forms: the leader produces 6 and the follower 3 (Stackelberg); the response is clipped at
# 1, where F = (1 - 2)^2 / 2 + 0.05; the response of the third is x / 2, F = (x - 1)^2 + x^2 / 4,
# least at x = 4 / 5.
MODELS = {
    "stackelberg": (
        "upper {{ var Q in [0, 13]; maximize {u} * ((12 - Q - q) * Q); }}"
        "lower r {{ var q in [0, 13]; maximize {s} * ((12 - Q - q) * q); }}",
        18.0,
    ),
    "clipped": (
        "upper {{ var x in [-5, 5]; minimize {u} * ((y - 2)^2/2 + 0.05*x^2); }}"
        "lower r {{ var y in [0, 1]; minimize {s} * ((y - x)^2/2); }}",
        0.55,
    ),
    "half": (
        "upper {{ var x in [-5, 5]; minimize {u} * ((x - 1)^2 + y^2); }}"
        "lower r {{ var y; minimize {s} * (y^2 - x*y); subject to c: y <= 3; }}",
        0.2,
    ),
}
UNITS = [(1.0, 1e-6), (1.0, 1e-3), (1.0, 1e5), (1e-5, 1.0), (1e4, 1e-4)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("u", "s"), UNITS)
def test_the_optimum_does_not_depend_on_units(name: str, u: float, s: float) -> None:
    text, truth = MODELS[name]
    result = bl.solve(bl.parse(text.format(u=u, s=s)), backend="exact", time_limit=20)
    assert result.certificate is not None
    if result.certificate.kind == "global":
        assert pytest.approx(u * truth, rel=1e-5) == result.F
    else:
        assert not result.success


def test_a_small_objective_of_the_follower_is_solved_and_its_price_comes_back() -> None:
    """At x = 1 the row y <= 1/4 cuts s (y^2 - x y) off: its price is s (2 y - x) = -s / 2."""
    text = """
    upper { var x in [1, 1]; minimize (x - 1)^2 + y; }
    lower r { var y; minimize 1e-6 * (y^2 - x*y); subject to c: y <= 0.25; }
    """
    result = bl.solve(bl.parse(text), backend="exact")
    assert result.success, result.message
    assert pytest.approx(-0.5e-6, rel=1e-4) == float(result.duals["r.c"])


def test_a_flat_follower_is_not_worth_its_tolerance() -> None:
    """Where f = (x + y)^2 + x sin(x + y)^2 is all but flat, a response within 1e-8 of the least
    gains 1e-4 for the leader. The true value, of F(x, -x), is 0.199911 on a fine grid.
    """
    text = """
    upper { var x in [0, 3] start 1.5;
            minimize cos(4*y + 2)/(1 + exp(2 - 4*x)) + log((4*x - 2)^2 + 1)/2; }
    lower L { var y start 0; minimize (x + y)^2 + x*sin(x + y)^2; }
    """
    x = np.linspace(0, 3, 300_001)
    along = np.cos(2 - 4 * x) / (1 + np.exp(2 - 4 * x)) + np.log((4 * x - 2) ** 2 + 1) / 2
    truth = float(along.min())
    result = bl.solve(bl.parse(text), backend="exact", time_limit=10)
    assert result.certificate is not None
    assert result.certificate.kind != "global" or pytest.approx(truth, abs=1e-6) == result.F
    assert truth - 1e-6 < result.F


def test_units_divide_what_they_say() -> None:
    text, _ = MODELS["stackelberg"]
    given = lift(system(bl.parse(text.format(u=1e-5, s=1e-6)).bound))
    made = normalize(given)
    v = np.array([2.0, 3.0])
    assert made.upper < 1.0
    assert made.lower[0] < 1e-3
    assert math.isclose(
        made.upper * made.system.objective.value(v)[0], given.objective.value(v)[0], rel_tol=1e-12
    )
    again = made.lower * made.system.lower_objectives.value(v)
    assert np.allclose(again, given.lower_objectives.value(v), rtol=1e-12)


def test_what_is_flat_at_its_minimum_is_not_made_flatter() -> None:
    """(x + 2 y - 15)^4 varies by 1e5 and is 1e-8 where y is off by 0.005."""
    text = """
    upper { var x in [0, 15]; minimize (10 - x)^3 + (10 - y)^3; }
    lower r { var y in [0, 20]; minimize (x + 2*y - 15)^4; }
    """
    assert normalize(lift(system(bl.parse(text).bound))).lower[0] == 1.0


def test_bounds_of_responses_without_rows_are_fractions() -> None:
    """NumPy counts in whole numbers where there is nothing to count."""
    text = "upper { var x in [-1, 1]; minimize y^2; } lower r { var y; minimize (y - x)^2; }"
    joint = JointResponse(lift(system(bl.parse(text).bound)))
    response = joint.solve(np.array([0.5, 0.0]))
    assert response is not None
    assert np.allclose(joint.least(response), -0.25 + 0.25, atol=1e-6)


# Problems in other units of their variables: x is worth `a` of the new units, y is worth `b`. A
# leader who sells x beside a firm that answers with y (LP with coupled rows, QP, prices).
UNIT_MODELS = {
    "bard": (
        "upper {{ var x in [0, {a}*20] start {a}; minimize x/{a} - 4*y/{b}; }}"
        "lower f {{ var y in [0, {b}*20]; minimize y/{b}; subject to p: -x/{a} - y/{b} <= -3;"
        " q: -2*x/{a} + y/{b} <= 0; r: 2*x/{a} + y/{b} <= 12; s: 3*x/{a} - 2*y/{b} <= 4; }}",
        -12.0,
    ),
    "stackelberg": (
        "upper {{ var Q in [0, {a}*13]; maximize (12 - Q/{a} - q/{b}) * Q/{a}; }}"
        "lower r {{ var q in [0, {b}*13]; maximize (12 - Q/{a} - q/{b}) * q/{b}; }}",
        18.0,
    ),
    "price": (
        "upper {{ var x in [0, {a}*100]; maximize dual(m.need) * g[1] / 1000; }}"
        "lower m {{ var g[4] in [0, {b}*100]; minimize (40*g[2] + 80*g[3] + 1000*g[4])/{b};"
        " subject to need: sum(g) == {b}*100; own: g[1]/{b} <= x/{a};"
        " second: g[2] <= {b}*40; third: g[3] <= {b}*40; assume dual(need) in [0, 1e4/{b}]; }}",
        20.0,
    ),
}


@pytest.mark.parametrize("name", UNIT_MODELS)
@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (1e4, 1.0), (1e-4, 1e4), (1e6, 1e-4)])
def test_the_optimum_does_not_depend_on_units_of_variables(name: str, a: float, b: float) -> None:
    """Bard (1984): -12 at (4, 4). Offer of 20 of 100 beside rivals with 80: the price is 1000."""
    text, truth = UNIT_MODELS[name]
    result = bl.solve(bl.parse(text.format(a=repr(a), b=repr(b))), backend="exact", time_limit=30)
    assert result.success, result.message
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    assert pytest.approx(truth, rel=1e-5) == result.F


def test_rounding_in_coefficients_is_no_unit() -> None:
    """Entries of 1e-17 beside ones once became units of 1e14, in which a wrong response passed for
    the best one: ``y = x``, so F = n / 4.
    """
    r = np.random.default_rng(0)
    q = np.linalg.qr(r.normal(size=(6, 6)))[0]
    A = q @ q.T  # the identity but for rounding
    text = """
    dim n; param A[n, n];
    upper { var x[n] start 2; minimize sumsq(x - 1)/2 + dot(y, A @ y)/2; }
    lower f { var y[n] start 2; minimize dot(y, A @ y)/2 - dot(x, y); }
    """
    assert 0 < np.abs(A[A < 0.5]).max() < 1e-14
    result = bl.solve(bl.parse(text, A=A), backend="exact")
    assert pytest.approx(6 / 4, rel=1e-5) == result.F
    assert np.allclose(result["y"], result["x"], atol=1e-5)
