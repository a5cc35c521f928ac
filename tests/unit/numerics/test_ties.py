"""Lower levels with many solutions: the certificate reads them optimistically and says how much
F differs between them.
"""

from __future__ import annotations

import math

import pytest
import torch

import bilevelpy as bl
from bilevelpy.backends.implicit.aid import AID
from bilevelpy.backends.implicit.direct import Direct
from bilevelpy.backends.implicit.nbo import NBO
from bilevelpy.backends.implicit.qnbo import QNBO
from bilevelpy.backends.implicit.slbamm import SLBAMM
from bilevelpy.numerics.certificate.examine import certify, settle
from bilevelpy.numerics.driver.loop import run
from bilevelpy.numerics.lower.selected import Selected
from bilevelpy.options import SolveOptions
from bilevelpy.result import Certificate, Status
from tests.oracles import AutoOracle, box, merely_convex, vec

ONES = torch.ones(3, dtype=torch.float64)


def check(oracle, x, y) -> Certificate:
    return certify(oracle, x, y, None, SolveOptions(), torch.Generator().manual_seed(1))


def set_valued() -> AutoOracle:
    """6.14: y* = -sign x, all of [-1, 1] at x = 0; optimistic optimum -1 there."""
    return AutoOracle(
        lambda x, y: (x**2 + y).sum(),
        lambda x, y: (x * y).sum(),
        vec(0.5),
        vec(0.0),
        box(1, -2.0, 2.0),
        box(1, -1.0, 1.0),
    )


def test_accepts_the_optimistic_answer_and_tells_the_interval() -> None:
    """6.3: x = y1 = y2 = e; F = |x - y2|^2 / 2 has no upper bound over the free y2."""
    c = check(merely_convex(), ONES, torch.cat([ONES, ONES]))
    assert c.kind == "local", c.reasons
    assert "not unique" in " ".join(c.reasons)
    assert "optimistic" in " ".join(c.reasons)
    assert c.details["F_optimistic"] == pytest.approx(0.0, abs=1e-9)
    assert c.details["F_pessimistic"] == math.inf


def test_refuses_a_response_that_is_not_the_best_for_the_leader() -> None:
    c = check(merely_convex(), ONES, torch.cat([ONES, 1.5 * ONES]))
    assert c.kind == "none"
    assert "the returned y has 0.375" in " ".join(c.reasons)


@pytest.mark.parametrize("x", [1e-22, -1e-22])
def test_a_lower_level_that_has_all_but_vanished_ties(x: float) -> None:
    """6.14 beside 0: what f tells apart there is rounding of what it tells apart elsewhere."""
    c = check(set_valued(), vec(x), vec(0.0))
    assert c.kind == "none"
    assert "the returned y has" in " ".join(c.reasons)


def test_refuses_an_upper_point_that_is_not_optimal_for_the_best_response() -> None:
    """Phi = |x - e|^2 / 2 once y2 follows x."""
    x = 1.1 * ONES
    c = check(merely_convex(), x, torch.cat([x, x]))
    assert c.kind == "none"
    assert "not stationary" in " ".join(c.reasons)
    assert c.hypergradient_norm == pytest.approx(0.1 * math.sqrt(3), rel=1e-5)


@pytest.mark.parametrize("backend", [Direct(), AID(), NBO(), QNBO()])
def test_refuses_methods_that_keep_what_the_lower_level_leaves_open(backend) -> None:
    """6.3: they end at x = (e + y2^0) / 2, or on the way there."""
    o = merely_convex()
    r = run(o, backend, None, SolveOptions(max_iter=60))
    c = check(o, r.x, r.y)
    assert c.kind == "none"
    assert "the lower solution is not unique" in " ".join(c.reasons)
    assert settle(r, c).status is not Status.CONVERGED


def test_supports_the_aggregating_method() -> None:
    o = merely_convex()
    r = run(o, SLBAMM(), None, SolveOptions())
    assert settle(r, check(o, r.x, r.y)).status is Status.CONVERGED


@pytest.mark.parametrize(("y", "kind"), [(-1.0, "local"), (0.0, "none"), (1.0, "none")])
def test_set_valued_responses(y: float, kind: str) -> None:
    c = check(set_valued(), vec(0.0), vec(y))
    assert c.kind == kind, c.reasons
    assert c.details["F_optimistic"] == pytest.approx(-1.0)
    assert c.details["F_pessimistic"] == pytest.approx(1.0)


def test_values_of_a_maximising_leader_keep_their_sign() -> None:
    """max -(x^2 + y) is the same problem."""
    o = set_valued()
    o.F_sign = -1.0
    c = check(o, vec(0.0), vec(-1.0))
    assert c.kind == "local", c.reasons
    assert c.details["F_optimistic"] == pytest.approx(1.0)
    assert c.details["F_pessimistic"] == pytest.approx(-1.0)


def test_a_leader_without_a_best_response_is_unbounded() -> None:
    """F = x^2 + b, and the follower does not care for b."""
    o = AutoOracle(
        lambda x, y: (x**2).sum() + y[1],
        lambda x, y: ((y[:1] - x) ** 2).sum(),
        vec(0.3),
        vec(0.0, 0.0),
    )
    r = run(o, Direct(), None, SolveOptions())
    c = check(o, r.x, r.y)
    assert c.kind == "none"
    assert settle(r, c).status is Status.UNBOUNDED


def test_equal_values_at_all_responses_are_a_note() -> None:
    """F does not read what the lower level leaves open."""
    o = AutoOracle(
        lambda x, y: ((x - 1) ** 2).sum() + y[0] ** 2,
        lambda x, y: (y[0] - x[0]) ** 2 + 0.0 * y[1],
        vec(0.0),
        vec(0.0, 3.0),
    )
    c = check(o, vec(0.5), vec(0.5, 3.0))
    assert c.kind == "local", c.reasons
    assert "F is the same" in " ".join(c.reasons)


def test_second_derivatives_of_the_selected_problem() -> None:
    """f + w F: Hessian and cross products against automatic differentiation of the sum."""
    o, w = merely_convex(), 0.01
    s = Selected(o, w, 1.0)
    g = torch.Generator().manual_seed(0)
    x, y, v = (torch.randn(k, generator=g, dtype=torch.float64) for k in (3, 6, 6))
    whole = AutoOracle(_sum(w), _sum(w), x, y)
    Hv, Jv = s.pullback(x, y)(v)
    expected_H, expected_J = whole.pullback(x, y)(v)
    torch.testing.assert_close(Hv, expected_H, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(Jv, expected_J, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(s.hessian(x, y) @ v, expected_H, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(s.grad_f(x, y), whole.grad_f(x, y))
    torch.testing.assert_close(s.grad_f_x(x, y), whole.grad_f_x(x, y))


def _sum(w: float):
    def value(x, y):
        F = 0.5 * ((x - y[3:]) ** 2).sum() + 0.5 * ((y[:3] - 1) ** 2).sum()
        return 0.5 * (y[:3] ** 2).sum() - x @ y[:3] + w * F

    return value


def test_a_pessimistic_leader_gets_no_certificate_where_ties_matter() -> None:
    """6.14: the optimum of the optimistic reading is none of the pessimistic one."""
    s = bl.analyze(
        bl.parse(
            "model s; upper pessimistic { var x in [-2, 2]; minimize x^2 + y; }"
            "lower L { var y in [-1, 1]; minimize x*y; }"
        )
    )
    rng = torch.Generator().manual_seed(1)
    c = certify(set_valued(), vec(0.0), vec(-1.0), s, SolveOptions(), rng)
    assert c.kind == "none"
    assert "pessimistic" in " ".join(c.reasons)


def test_a_pessimistic_leader_of_a_unique_response_is_like_any_other() -> None:
    result = bl.solve(
        bl.parse(
            "model p; upper pessimistic { var x start 0; minimize (x - 1)^2 + (b - 1)^2; }"
            "lower L { var b; minimize (b - x)^2; }"
        )
    )
    assert (result.status, result.backend) == ("converged", "direct")
    assert result["x"] == pytest.approx(1.0, abs=1e-6)
