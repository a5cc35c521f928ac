"""Prices without declared bounds in the leader's objective: valid ranges, products, no range."""

from __future__ import annotations

from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.engine.outcome import Limits
from bilevelpy.backends.exact.relaxations.price_bounds import with_price_bounds
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.rewriting.fixing import fix_products
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")

TIED = """
upper {{ var x in {domain}; minimize {objective}; }}
lower follow {{
  var y0 in [-5, 6], y1 in [-5, 6], y2 in [-5, 6];
  minimize 3 * y0^2 + 5 * y0 * y1 + 2 * y0 * y2 + 5 * y1^2 + 4 * y1 * y2 + 3 * y2^2
           + 3 * y0 + 2 * y1 + 2 * y2 + x * (y0 + 2 * y1 - y2);
  subject to
    cap: 2 * y0 - y1 + 3 * y2 + x <= 1;
    other: 3 * y1 - y0 + 2 * x <= 3;
    tie: 2 * y0 + 2 * y1 + y2 == 1 + x;
}}
"""
SQUARES = "(y0 + 2)^2 + y1^2 + (y2 - 3)^2 + x"
WHOLE, REAL = "integers(0, 3)", "[0, 3]"


def response(x: float) -> tuple[np.ndarray, float]:
    """The follower's answer and the price of `cap`, by cvxpy."""
    y = cp.Variable(3)
    Q = np.array([[6.0, 5, 2], [5, 10, 4], [2, 4, 6]])
    slope = np.array([3.0, 2, 2]) + x * np.array([1.0, 2, -1])
    cap = np.array([2.0, -1, 3]) @ y + x <= 1
    other = np.array([-1.0, 3, 0]) @ y + 2 * x <= 3
    rows = [cap, other, np.array([2.0, 2, 1]) @ y == 1 + x, y >= -5, y <= 6]
    cp.Problem(cp.Minimize(cp.quad_form(y, Q) / 2 + slope @ y), rows).solve(solver=cp.CLARABEL)
    return y.value, -float(cap.dual_value)


def squares(y: np.ndarray, price: float, x: float) -> float:
    return float((y[0] + 2) ** 2 + y[1] ** 2 + (y[2] - 3) ** 2 + x + 2 * price)


def product(y: np.ndarray, price: float, x: float) -> float:
    return float(y[0] - y[1] + 2 * x + 2 * price * x)


@pytest.mark.parametrize(
    ("objective", "value"),
    [
        (f"{SQUARES} + 2 * dual(follow.cap)", squares),
        ("y0 - y1 + 2 * x + 2 * dual(follow.cap) * x", product),
    ],
)
@pytest.mark.parametrize("domain", [WHOLE, REAL])
def test_prices_beside_curved_terms_and_in_products(
    objective: str, value: Callable[[np.ndarray, float, float], float], domain: str
) -> None:
    result = bl.solve(bl.parse(TIED.format(domain=domain, objective=objective)), time_limit=60)
    assert result.success
    assert result.certificate.kind == "global"
    grid = np.arange(4.0) if domain == WHOLE else np.linspace(0, 3, 13)
    found = [value(*response(x), x) for x in grid]
    if domain == WHOLE:
        assert pytest.approx(min(found), abs=1e-5) == result.F
    else:
        assert min(found) + 1e-5 >= result.F
        x = float(result["x"])
        assert pytest.approx(value(*response(x), x), abs=1e-4) == result.F


CAPPED = """
upper { var x in [0, 3]; minimize x * dual(follow.cap) + y; }
lower follow {
  var y in [-9, 9];
  minimize y^2 / 2 - 2 * y;
  subject to cap: y <= x;
}
"""


def test_the_range_of_a_price() -> None:
    """The price of `cap` is ``-max(2 - x, 0)``: from -2 to 0."""
    program = kkt(system(bl.parse(CAPPED).bound), "a test", optimistic=True)
    bounded = with_price_bounds(program, Limits(10.0))
    (j,) = np.flatnonzero(program.system.columns.owner == -1)
    assert not np.isfinite([program.columns.lower[j], program.columns.upper[j]]).any()
    assert bounded.columns.lower[j] == pytest.approx(-2.0, abs=1e-3)
    assert bounded.columns.lower[j] <= -2.0
    assert bounded.columns.upper[j] == pytest.approx(0.0, abs=1e-3)
    assert bounded.columns.upper[j] >= 0.0
    result = bl.solve(bl.parse(CAPPED))
    assert result.certificate.kind == "global"
    # Phi = -x (2 - x) + x = x^2 - x up to x = 2.
    assert pytest.approx(-0.25, abs=1e-5) == result.F
    assert result["x"] == pytest.approx(0.5, abs=1e-2)


def test_prices_of_rows_that_depend_on_each_other_have_no_range() -> None:
    """At x = 1 the rows leave y = -1 alone, and every price from some value down is valid."""
    text = """
    upper { var x in integers(0, 3); minimize (y - 2)^2 + dual(follow.cap); }
    lower follow {
      var y in [-5, 6];
      minimize (4 - x) * y;
      subject to
        cap: -3 * y - 2 * x <= 1;
        other: y + 2 * x <= 1;
    }
    """
    result = bl.solve(bl.parse(text))
    assert result.status is bl.Status.UNBOUNDED
    assert "dual(follow.cap)" in result.message
    assert "assume dual(cap) in [lo, hi];" in result.message


def test_products_with_fixed_columns_are_linear() -> None:
    bound = bl.parse(CAPPED).bound
    objective = system(bound).objective
    v = np.random.default_rng(0).normal(size=objective.linear.shape[1])
    (x,) = (j for j, name in enumerate(system(bound).columns.names) if name == "x")
    fixed = fix_products(objective, {x: float(v[x])})
    assert fixed.degree == 1
    assert fixed.value(v) == pytest.approx(objective.value(v), abs=1e-12)


def test_a_curved_function_as_a_sum() -> None:
    text = "upper { var x, z; minimize x^2 + 3 * x + 2 * z + 1; } lower f { var y; minimize y^2; }"
    objective = system(bl.parse(text).bound).objective
    plain, curved = objective.parted()
    v = np.array([2.0, 5.0, 7.0])
    assert plain.value(v) == pytest.approx([10.0])
    assert curved.value(v) == pytest.approx([11.0])
    assert plain.degree == 1
