"""Shadow prices, games and discrete leaders in the exact backend."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.analysis.structure import Evidence

pytest.importorskip("pyscipopt")

MARKET = """
upper {{ var x in [0, 100] start 50; maximize dual(market.balance) * own; {more} }}
lower market {{
  var own in [0, inf];
  var rival in [0, inf];
  var deficit in [0, inf];
  minimize 50 * rival + 1000 * deficit;
  subject to
    balance: own + rival + deficit == 100;
    limit: own <= x;
    other: rival <= 80;
  assume dual(balance) in [{low}, {high}];
}}
"""


def market(low: float = 0, high: float = 1000, more: str = "") -> str:
    return MARKET.format(low=low, high=high, more=more)


def test_a_degenerate_price_is_the_leader_s_choice() -> None:
    # At x = 20 every price from 50 to 1000 is a valid dual; the leader takes 1000.
    result = bl.solve(bl.parse(market()))
    assert result.success
    assert pytest.approx(20000, rel=1e-6) == result.F
    assert result.dual("market.balance") == pytest.approx(1000, rel=1e-6)
    assert result.certificate is not None
    assert any("declared bound" in r for r in result.certificate.reasons)


def test_a_price_in_an_upper_constraint() -> None:
    result = bl.solve(bl.parse(market(more="subject to fair: dual(market.balance) <= 60;")))
    assert result.success
    # A price of at most 60 is valid from x = 20 on, 50 where the rival's offer is not used up.
    assert pytest.approx(50 * 100, rel=1e-6) == result.F


def test_nash_followers() -> None:
    text = """
    set FIRM = {"a", "b"};
    upper { var Q in [0, 13]; maximize (13 - Q - sum(firm.q[i] for i in FIRM)) * Q - Q; }
    lower firm[i in FIRM] nash {
      var q in [0, 13];
      maximize (13 - Q - sum(firm.q[j] for j in FIRM)) * q - q;
    }
    """
    result = bl.solve(bl.parse(text))
    assert result.success
    assert pytest.approx(12, abs=1e-5) == result.F
    assert result["q"] == pytest.approx([2, 2], abs=1e-3)


def test_tolls_are_bilinear() -> None:
    text = """
    upper { var toll in [0, 10]; maximize toll * f[1]; }
    dim k = 2;
    lower drivers {
      var f[k] in [0, inf];
      minimize (2 + toll) * f[1] + 5 * f[2];
      subject to
        demand: f[1] + f[2] == 4;
    }
    """
    result = bl.solve(bl.parse(text))
    assert result.success
    assert pytest.approx(12, abs=1e-5) == result.F
    assert result.certificate is not None
    assert result.certificate.details["F_pessimistic"] == pytest.approx(0, abs=1e-5)


def test_a_declared_bound_that_cuts_off_valid_prices_is_doubted() -> None:
    result = bl.solve(bl.parse(market(high=500)))
    assert not result.success
    assert result.certificate is not None
    assert any("too tight" in r for r in result.certificate.reasons)


CROSSED = """
upper {{ var x in {domain}; minimize c[1] * y1 + c[2] * y2 + k * dual(follow.cap) * x; }}
param c[2], b[2], k, H;
lower follow {{
  var y1 in [-5, 6], y2 in [-5, 6];
  minimize y1^2 + H * y1 * y2 + 2 * y2^2 + b[1] * y1 + b[2] * y2 + x * (y1 - 2 * y2);
  subject to
    cap: y1 + 2 * y2 - x <= 1;
    tie: 2 * y1 - y2 <= 4;
}}
"""


def crossed(seed: int, domain: str = "integers(0, 3)", H: float = 1.5) -> tuple[bl.Model, dict]:
    draw = np.random.default_rng(seed)
    data = {"c": draw.integers(-3, 4, 2), "b": draw.integers(-6, 3, 2), "k": draw.choice([-2, 2])}
    data = {name: np.asarray(value, float) for name, value in data.items()} | {"H": H}
    return bl.parse(CROSSED.format(domain=domain), data=data), data


def by_hand(data: dict, x: float) -> float:
    """F at x, the follower and its price by cvxpy."""
    y = cp.Variable(2)
    Q = np.array([[2.0, data["H"]], [data["H"], 4.0]])
    rows = [np.array([1, 2]) @ y - x <= 1, np.array([2, -1]) @ y <= 4, y >= -5, y <= 6]
    slope = data["b"] + x * np.array([1.0, -2.0])
    cp.Problem(cp.Minimize(cp.quad_form(y, Q) / 2 + slope @ y), rows).solve(solver=cp.CLARABEL)
    return float(data["c"] @ y.value - data["k"] * rows[0].dual_value * x)


@pytest.mark.parametrize("seed", range(6))
def test_whole_numbers_times_prices_of_a_quadratic_follower(seed: int) -> None:
    """The follower is convex by the eigenvalues of its Hessian, which the text does not show."""
    model, data = crossed(seed)
    result = bl.solve(model)
    assert result.success
    assert result.backend == "exact"
    assert result.certificate.kind == "global"
    assert pytest.approx(min(by_hand(data, x) for x in range(4)), abs=1e-5) == result.F


def test_eigenvalues_prove_convexity_below_a_leader_who_cannot_be_compiled() -> None:
    for domain in ("integers(0, 3)", "[0, 3]"):
        convexity = bl.analyze(crossed(0, domain)[0]).convexity
        assert (convexity.value, convexity.evidence) == ("strongly convex", Evidence.PROVED)
        assert "eigenvalues" in convexity.reason
        assert bl.analyze(crossed(0, domain, H=4.0)[0]).convexity.value == "nonconvex"
