"""Shadow prices at the answers of methods that descend."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl
from tests.unit.backends.constrained.coupled import QUADRATIC, model, quadratic_data

# Rows in all the forms that a price has a sign for.
FORMS = """
model forms;
upper { var x in [0, 1] start 0.5; minimize (x - 0.5)^2; }
lower f {
  var y[5];
  SENSE;
  subject to
    roof: y[1] <= 1 + x; floor: 2 <= y[2]; loose: y[2] >= 1;
    both: -1 <= y[3] <= 0.5; turned: 3 >= y[5] >= 2; total: y[4] + y[1] == 0.3;
}
"""
SENSES = (
    "minimize sumsq(y - [3, 0, 2, 1, 5])",
    "maximize -sumsq(y - [3, 0, 2, 1, 0])",
    "minimize sumsq(y - [3, 0, -2, 1, 1])",
)


@pytest.mark.parametrize("sense", SENSES)
def test_signs_agree_with_exact(sense: str) -> None:
    made = bl.parse(FORMS.replace("SENSE", sense))
    found, other = (bl.solve(made, backend=b) for b in ("kkt", "exact"))
    assert found.duals.keys() == other.duals.keys()
    for name, price in other.duals.items():
        assert found.dual(name) == pytest.approx(price, abs=1e-6), name


def test_prices_are_derivatives_of_the_optimal_value() -> None:
    """Of the follower's value by the right-hand sides of its rows, x as it is; by Clarabel."""
    data = quadratic_data(1)
    found = bl.solve(model(QUADRATIC, **data), backend="kkt")
    prices, x = found.dual("follower.rows"), found["x"]
    assert np.abs(prices).max() > 1e-3
    y, right = cp.Variable(4), cp.Parameter(3)
    # sum(y * (A @ y)) / 2 with a symmetric A
    half = cp.quad_form(y, cp.psd_wrap(data["A"])) / 2
    follower = cp.Problem(
        cp.Minimize(half + (data["C"].T @ x) @ y), [data["G"] @ y + data["E"] @ x <= right]
    )

    def value(b: np.ndarray) -> float:
        right.value = b
        return float(follower.solve(solver=cp.CLARABEL))

    for k in range(3):
        step = 1e-4 * np.eye(3)[k]
        slope = (value(data["b"] + step) - value(data["b"] - step)) / 2e-4
        assert prices[k] == pytest.approx(slope, abs=1e-4)


def test_rows_that_do_not_push_have_no_price() -> None:
    found = bl.solve(model(QUADRATIC, **quadratic_data(0)), backend="kkt")
    assert found.dual("follower.rows") == pytest.approx(np.zeros(3), abs=1e-12)


def test_reports_read_prices() -> None:
    """Beyond `exact`, reports alone are no reason to need a program as a whole."""
    text = FORMS.replace("SENSE", SENSES[0]) + "report price = dual(f.roof) + dual(f.total);"
    made = bl.parse(text)
    facts = bl.analyze(made)
    assert "reported_duals" in facts.unsupported
    assert "duals" not in facts.unsupported
    found, other = (bl.solve(made, backend=b) for b in ("kkt", "exact"))
    assert found.reports["price"] == pytest.approx(other.reports["price"], abs=1e-6)
    refused = bl.dispatch(facts).rejected["direct"]
    assert "multipliers" in refused


def test_prices_are_not_watched() -> None:
    text = FORMS.replace("SENSE", SENSES[0]) + "report price = dual(f.roof);"
    with pytest.raises(bl.UsageError, match="`price` reads a shadow price, which is known at"):
        bl.solve(bl.parse(text), backend="kkt", watch=["price"])


def test_prices_that_are_not_unique_are_not_told() -> None:
    """Two rows hold one variable: any mixture of their prices is one."""
    text = """model twice; upper { var x in [0, 1] start 0.2; minimize (x - 0.5)^2; }
    lower f { var y; minimize (y - 3)^2; subject to one: y <= 1; two: 2 * y <= 2; }
    report price = dual(f.one);"""
    found = bl.solve(bl.parse(text), backend="kkt")
    assert found.success
    assert found.duals == {}
    assert np.isnan(found.reports["price"])
    assert any("`f.one` is not known" in w for w in found.warnings)


@pytest.mark.parametrize(("high", "holds"), [(9, True), (3, False)])
def test_declared_bounds_of_prices_are_looked_at(high: int, holds: bool) -> None:
    # The price of y >= 4 is 2 (4 - x): 4 where the leader has the best of it.
    text = """upper { var x in [0, 6]; minimize (dual(f.r) - 4)^2 + 0.01 * x; }
    lower f { var y in [-10, 10]; minimize (y - x)^2; subject to r: y >= 4;
      assume dual(r) in [0, HIGH]; }"""
    found = bl.solve(bl.parse(text.replace("HIGH", str(high))), backend="kkt")
    assert found.success
    assert found["x"] == pytest.approx(1.99875, rel=1e-6)
    assert any("do not hold here" in w for w in found.warnings) is not holds
