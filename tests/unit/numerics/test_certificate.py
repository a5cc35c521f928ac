"""The certificate accepts solutions and refuses what only looks like one."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.backends.implicit.aid import AID
from bilevelpy.backends.implicit.direct import Direct
from bilevelpy.lowering.domains.product import Block, ProductSet
from bilevelpy.numerics.certificate.examine import certify, examine, settle
from bilevelpy.numerics.certificate.lower import LowerCheck
from bilevelpy.numerics.certificate.resolve import Resolver
from bilevelpy.numerics.driver.loop import run
from bilevelpy.numerics.scaled import ScaledOracle, Units
from bilevelpy.options import SolveOptions
from bilevelpy.result import Certificate, Status
from tests.oracles import AutoOracle, box, box_kink, merely_convex, toy, vec
from tests.unit.lowering.programs import oracle as oracle_of
from tests.unit.numerics.test_upper_newton import FIT, fit_data


def check(oracle, x, y) -> Certificate:
    return certify(oracle, x, y, None, SolveOptions(), torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("s", "S", "unit"), [(1, 1, 1), (1e6, 1e-6, 1e6), (1e-8, 1e8, 1e-3)])
def test_accepts_the_solution_in_any_units(s: float, S: float, unit: float) -> None:
    o = toy(100, s=s, S=S, unit=unit)
    c = check(o, *o.solution())
    assert c.kind == "local", c.reasons
    assert c.directional_check == pytest.approx(0.0, abs=1e-6)
    assert c.lower_gap_relative < 1e-12


def test_refuses_a_start_that_never_moved() -> None:
    # A loose lower tolerance ends a run where it began, with a hypergradient as large as there.
    o = toy(100)
    x = o.x0
    y = -torch.linalg.solve(o.A, o.C.T @ x)
    c = check(o, x, y)
    assert c.kind == "none"
    assert "not stationary" in " ".join(c.reasons)


@pytest.mark.parametrize("tol", [1e-6, 1e-4, 1e-2])
def test_a_slope_is_stationary_to_no_tolerance(tol: float) -> None:
    # Beside the point the hypergradient is what it is there: no scale makes it small.
    o = AutoOracle(
        lambda x, y: y.sum() + x.sum(),
        lambda x, y: 0.5 * ((y - x) ** 2).sum(),
        torch.zeros(3, dtype=torch.float64),
        torch.zeros(3, dtype=torch.float64),
        domain_x=box(3, -10.0, 10.0),
    )
    x = o.x0
    rng = torch.Generator().manual_seed(1)
    c = certify(o, x, x.clone(), None, SolveOptions(tol=tol), rng)
    assert c.kind == "none"
    assert "not stationary" in " ".join(c.reasons)


def test_refuses_a_response_that_is_a_thousandth_off() -> None:
    # Beside its constant f hardly changes, but F is wrong in the third digit. x* = y* = 2/3.
    o = AutoOracle(
        lambda x, y: ((x - 1) ** 2 + 0.5 * y**2).sum(),
        lambda x, y: (0.5 * (y - x) ** 2 + 100.0).sum(),
        vec(0.5),
        vec(0.5),
        domain_x=box(1, -100.0, 100.0),
    )
    x = vec(2.0 / 3.0)
    assert check(o, x, x.clone()).kind == "local"
    c = check(o, x, x * (1.0 + 1e-3))
    assert c.kind == "none"
    assert "F changes" in " ".join(c.reasons)


def test_refuses_an_unsolved_lower_level() -> None:
    o = toy(100)
    x, y = o.solution()
    c = check(o, x, y + 0.1)
    assert c.kind == "none"
    assert c.lower_gap > 0
    assert "lower objective still falls" in " ".join(c.reasons)


def test_refuses_an_infeasible_point() -> None:
    c = check(box_kink(), vec(2.0), vec(1.5))
    assert c.kind == "none"
    assert c.lower_feasibility == pytest.approx(0.5)


def test_accepts_a_kink_and_says_so() -> None:
    c = check(box_kink(), vec(1.0), vec(1.0))
    assert c.kind == "local"
    assert "kink" in " ".join(c.reasons)


def test_refuses_a_point_beside_the_kink() -> None:
    assert check(box_kink(), vec(0.9), vec(0.9)).kind == "none"
    assert check(box_kink(), vec(1.5), vec(1.0)).kind == "none"


@pytest.mark.parametrize("backend", [Direct(), AID()])
def test_refuses_a_lower_level_with_many_solutions(backend) -> None:
    o = merely_convex()
    r = run(o, backend, None, SolveOptions())
    c = check(o, r.x, r.y)
    assert c.kind == "none"
    assert "lower solution is not unique" in " ".join(c.reasons)
    assert settle(r, c).status is not Status.CONVERGED


def test_direct_on_the_singular_case_ends_at_the_known_wrong_point() -> None:
    # 6.3: x = (e + y2^0) / 2 where y2 keeps its start.
    r = run(merely_convex(y2=5.0), Direct(), None, SolveOptions())
    assert torch.allclose(r.x, torch.full((3,), 3.0, dtype=torch.float64))


def test_refuses_a_maximum_of_the_lower_level() -> None:
    # f = x y - y^2 has no minimum; at (0, 0) its gradient vanishes.
    o = AutoOracle(
        lambda x, y: (x**2 + y**2).sum(), lambda x, y: (x * y - y**2).sum(), vec(0.0), vec(0.0)
    )
    c = check(o, vec(0.0), vec(0.0))
    assert c.kind == "none"
    assert c.lower_gap > 0
    assert "negative curvature" in " ".join(c.reasons)


@pytest.mark.parametrize("s", [1e9, 1e6, 1e-6])
def test_accepts_an_optimum_at_zero_reached_from_afar(s: float) -> None:
    # y and f are rounding there; the start of x tells what size they could have.
    o = AutoOracle(
        lambda x, y: ((x - s) ** 2 + (y + s) ** 2).sum(),
        lambda x, y: ((y - x) ** 2).sum(),
        vec(s / 2),
        vec(0.0),
    )
    c = check(o, vec(0.0), vec(s * 6e-17))
    assert c.kind == "local", c.reasons


def test_accepts_a_response_that_a_ball_hardly_holds() -> None:
    # y(x) is the projection of x; with x on the sphere the multiplier is rounding.
    ball = ProductSet([Block("ball", 0, 1, 2, radius=vec(1.0))], 2)
    o = AutoOracle(
        lambda x, y: ((y - vec(3.0, 4.0)) ** 2).sum(),
        lambda x, y: ((y - x) ** 2).sum(),
        vec(0.0, 0.0),
        vec(0.0, 0.0),
        None,
        ball,
    )
    c = check(o, vec(0.6, 0.8), ball.project(vec(0.6 + 1e-16, 0.8)))
    assert c.kind == "local", c.reasons


@pytest.mark.parametrize("x0", [0.0, -40.0])
def test_refuses_a_plateau(x0: float) -> None:
    # exp(-2500) is 0: there is no gradient to see, and none to call small.
    o = AutoOracle(
        lambda x, y: 1 - torch.exp(-((y - 50) ** 2)).sum(),
        lambda x, y: ((y - x) ** 2).sum(),
        vec(x0),
        vec(x0),
    )
    c = check(o, vec(x0), vec(x0))
    assert c.kind == "none"
    assert "plateau" in " ".join(c.reasons)


def test_leaves_a_plateau_for_lower_ground() -> None:
    o = AutoOracle(
        lambda x, y: torch.sigmoid(y).sum(),
        lambda x, y: ((y - x) ** 2).sum(),
        vec(60.0),
        vec(60.0),
        box(1, -100.0, 100.0),
    )
    rng = torch.Generator().manual_seed(1)
    c, place = examine(o, vec(60.0), vec(60.0), None, SolveOptions(), rng)
    assert c.kind == "none"
    assert place is not None
    assert float(place[0]) < 0


@pytest.mark.parametrize("ended", ["reached", "limit"])
def test_goes_on_from_a_better_response_of_a_level_that_is_not_convex(
    ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Minima of (y^2 - 1)^2 + y/5 at about -1.02 and 0.97: the second one is no response.
    o = AutoOracle(
        lambda x, y: ((x - y) ** 2).sum(),
        lambda x, y: ((y**2 - 1) ** 2 + 0.2 * y).sum(),
        vec(0.97),
        vec(-1.0),
        box(1, -2.0, 2.0),
    )
    # Whether or not the solve that met it has come to its end.
    whole = Resolver.respond
    monkeypatch.setattr(Resolver, "respond", lambda *a: replace(whole(*a), ended=ended))
    rng = torch.Generator().manual_seed(1)
    c, place = examine(o, vec(0.9735), vec(0.9735), None, SolveOptions(), rng)
    assert "still falls" in c.reasons[0]
    assert place is not None
    assert float(place[0]) == 0.9735
    assert float(place[1]) < -1


def test_accepts_the_flat_bottom_of_a_hinge() -> None:
    # max(0, |y| - 1)^2 is 0 on [-1, 1]: a plateau, but nothing is lower.
    o = AutoOracle(
        lambda x, y: (torch.clamp(y.abs() - 1, min=0.0) ** 2).sum(),
        lambda x, y: ((y - x) ** 2).sum(),
        vec(5.0),
        vec(5.0),
    )
    c = check(o, vec(0.5), vec(0.5))
    assert c.kind == "local", c.reasons
    assert "lower nowhere" in " ".join(c.reasons)


class Late(AutoOracle):
    """Lower gradients take ``pause`` seconds each."""

    pause = 0.0

    def value_grad_f(self, x, y):
        time.sleep(self.pause)
        return super().value_grad_f(x, y)


def late(pause: float) -> Late:
    o = Late(
        lambda x, y: ((x - 1) ** 2).sum() + (y**2).sum(),
        lambda x, y: ((y - x) ** 2 + 0.1 * y**4).sum(),
        vec(0.0, 0.0),
        vec(0.0, 0.0),
    )
    o.pause = pause
    return o


def test_without_time_there_is_no_certificate() -> None:
    o = late(0.0)
    rng = torch.Generator().manual_seed(1)
    c = certify(o, vec(0.5, 0.5), vec(0.5, 0.5), None, SolveOptions(), rng, seconds=0.0)
    assert c.kind == "none"
    assert "no time" in " ".join(c.reasons)


def test_what_was_not_checked_is_named() -> None:
    """Without patience only what the claim rests on is computed."""
    o = late(0.0)
    found = run(o, Direct(), None, SolveOptions())
    rng = torch.Generator().manual_seed(1)
    c = certify(o, found.x, found.y, None, SolveOptions(), rng, patience=0.0)
    assert c.kind == "local", c.reasons
    said = " ".join(c.reasons)
    for what in ("other starts", "finite difference", "probes"):
        assert what in said
    assert c.directional_check is None


def test_the_time_of_a_certificate_is_bounded() -> None:
    """Each evaluation ends before the next is refused."""
    o = late(0.02)
    rng = torch.Generator().manual_seed(1)
    x = vec(0.4, 0.4)
    before = o.counts.grad_f
    certify(o, x, x, None, SolveOptions(), rng, seconds=0.1)
    assert o.counts.grad_f - before <= 12


def test_a_solved_point_takes_one_factor_and_two_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rows are read from files, a Hessian and a product are a pass each."""
    data = fit_data(p=12)
    oracle = oracle_of(FIT, **data)
    x = oracle.x0
    rng = torch.Generator().manual_seed(0)
    first = Resolver(oracle, x, oracle.y0, rng).answer(x, oracle.y0)
    assert first is not None
    made: list[torch.Tensor] = []
    dense = oracle.hessian
    monkeypatch.setattr(oracle, "hessian", lambda x, y: (made.append(y), dense(x, y))[1])
    solver = Resolver(oracle, x, first.lower.y, rng)
    before = oracle.counts.hvp
    again = solver.answer(x, first.lower.y)
    assert again is not None
    assert len(made) == 1
    assert oracle.counts.hvp - before <= 2
    assert torch.equal(again.lower.y, first.lower.y) or again.value == pytest.approx(first.value)
    # Far from the factor a new one is made, but not where a percent will do.
    far = oracle.domain_x.project(x + 1.0)
    rough = solver.answer(far, again.lower.y, again, rough=True)
    exact = Resolver(oracle, far, again.lower.y, rng).answer(far, again.lower.y)
    assert rough is not None
    assert exact is not None
    assert torch.dist(rough.gradient, exact.gradient) < 1e-2 * torch.linalg.vector_norm(
        exact.gradient
    )


SLOPE = """
model slope;
upper { var x in [0, 1] start 0.5; minimize (y - 1)^2 + x; }
lower follow { var y; minimize OBJECTIVE; }
"""
SEPARABLE = """
model separable;
dim n, p;
param X[n, p], s[n];
upper { var x[n] in [-3, 3]; minimize mean(logistic(s * (X @ w))) + sumsq(x); }
lower fit { var w[p]; minimize mean(sigmoid(x) * logistic(-s * (X @ w))) + REST; }
"""


@pytest.mark.parametrize("objective", ["exp(-y) - y * (1 + x)", "sqrt(1 + y^2) - (1 + x) * y"])
def test_curvature_that_dies_out_on_a_slope_is_no_solution(objective: str) -> None:
    result = bl.solve(bl.parse(SLOPE.replace("OBJECTIVE", objective)), progress=False)
    assert result.status == "infeasible"
    assert "unbounded" in result.message
    assert result.certificate.kind == "none"


@pytest.mark.parametrize("objective", ["exp(-y)", "sqrt(1 + y^2) - y"])
def test_a_least_value_at_infinity_has_no_response(objective: str) -> None:
    model = bl.parse(SLOPE.replace("OBJECTIVE", objective))
    result = bl.solve(model, backend="direct", progress=False)
    assert not result.success
    assert "at infinity" in " ".join(result.certificate.reasons)


def test_separable_data_need_a_penalty() -> None:
    draw = np.random.default_rng(0)
    X = draw.standard_normal((30, 3))
    data = {"X": X, "s": np.sign(X @ [1.0, -2.0, 0.5])}
    for rest, certified in (("0", False), ("1e-4 * sumsq(w)", True)):
        model = bl.parse(SEPARABLE.replace("REST", rest), data=data)
        result = bl.solve(model, backend="direct", progress=False)
        assert result.success is certified, result.certificate.reasons
        if not certified:
            reasons = " ".join(result.certificate.reasons)
            assert "unbounded" in reasons or "a penalty on the lower variables" in reasons


def test_wrong_units_hide_no_slope() -> None:
    """F falls along x_1 by a hundredth of what it falls along x_2, which its bound holds."""
    o = AutoOracle(
        lambda x, y: 0.5 * (x[0] - 3) ** 2 + 100 * x[1] + 0.5 * (y**2).sum(),
        lambda x, y: 0.5 * (y**2).sum(),
        vec(0.5, 1.0),
        vec(1.0),
        domain_x=ProductSet([Block("box", 0, 1, 2, vec(-5.0, 0.0), vec(5.0, 10.0))], 2),
    )
    units = Units(vec(2.0**-20, 2.0**20), vec(1.0))
    x, y = vec(1.0, 0.0), vec(0.0)
    assert check(o, x, y).kind == "none"
    scaled = check(ScaledOracle(o, units), x / units.x, y)
    assert scaled.kind == "none"
    assert any("falls by" in reason for reason in scaled.reasons)
    best = check(ScaledOracle(o, units), vec(3.0, 0.0) / units.x, y)
    assert best.kind == "local", best.reasons


PORTFOLIO = """
param S[3, 3] in psd = [[0.012, 0.001, 0], [0.001, 0.01, -0.001], [0, -0.001, 0.011]];
upper {
  var mu[3] in [-1, 1], g in [0.5, 10] start 2;
  minimize -dot([0.03, 0.02, -0.01], w) + 2 * w' @ S @ w + 0.01 * sumsq(mu);
}
lower portfolio { var w[3] in simplex; minimize g * w' @ S @ w / 2 - dot(mu, w); }
"""


def test_a_variable_that_changes_nothing_at_the_start_has_no_unit() -> None:
    result = bl.solve(bl.parse(PORTFOLIO), progress=False)
    # Without a unit of 1e9 for g, which has slopes of rounding where mu is 0.
    assert result.success
    assert result.F < -0.0132


def test_a_difference_is_taken_on_the_scale_of_phi() -> None:
    # The best penalty is a fifty-thousandth of its domain, where Phi bends on its own scale.
    text = """
    upper { var a in [1e-6, 100] start 1; minimize (y - 1 / 1.002)^2 + 0.1 * (y - 1 / 1.002)^3; }
    lower fit { var y; minimize (y - 1)^2 + a * y^2 + 1e-3 * y^4; }
    """
    result = bl.solve(bl.parse(text), backend="direct", progress=False)
    assert result.success, result.message


def test_penalties_of_all_sizes_are_no_reason_for_a_ridge() -> None:
    text = """
    dim n, p;
    param X[n, p], y[n];
    upper { var lam[p] in [-80, 80] start 0; minimize sumsq(w); }
    lower fit { var w[p]; minimize sumsq(X @ w - y) + sum(exp(lam) * w^2); }
    """
    rng = np.random.default_rng(0)
    X, y, lam = rng.normal(size=(20, 3)), rng.normal(size=20), np.array([-70.0, 2.0, 70.0])
    o = bl.compile(bl.parse(text, X=X, y=y))
    found = o.response(lam)
    # The last weight has no part in the others.
    A = X[:, :2].T @ X[:, :2] + np.diag(np.exp(lam[:2]))
    w = np.linalg.solve(A, X[:, :2].T @ y)
    np.testing.assert_allclose(found[:2], w, rtol=1e-9)
    left = X[:, 2] @ (y - X[:, :2] @ w) / np.exp(lam[2])
    np.testing.assert_allclose(found[2], left, rtol=1e-6)


@pytest.mark.parametrize(
    ("y", "kind"),
    [(0.0, "local"), (1e-27, "local"), (1e-15, "local"), (1e-10, "none"), (1e-3, "none")],
)
def test_responses_that_are_0_at_the_start_have_the_size_of_those_beside(y, kind) -> None:
    # x, y, f and their starts are 0: nothing there says what rounding is.
    o = AutoOracle(
        lambda x, y: ((x - 1) ** 2).sum() + y.sum() * 3.0,
        lambda x, y: 100.0 * ((y - x) ** 2).sum(),
        vec(0.0),
        vec(0.0, 0.0),
        domain_x=box(1, 0.0, 2.0),
    )
    assert check(o, vec(0.0), vec(y, y)).kind == kind


@pytest.mark.parametrize("away", [1e-7, 1e-12])
def test_a_minimiser_that_is_about_to_vanish_is_no_kink(
    away: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond x = 2 / 27^(1/2) the left well of f has gone and y jumps into the right one, where F
    is larger; from there y is better at x itself. No other start is looked at here.
    """
    o = oracle_of(
        "upper { var x; minimize (y + 0.4)^2; }"
        "lower l { var y start -1; minimize y^4 / 4 - y^2 / 2 - x * y; }"
    )
    x, y = vec(2 / 27**0.5 - away), vec(-(3**-0.5) - (away / 3**0.5) ** 0.5)
    monkeypatch.setattr(LowerCheck, "search", lambda self: None)
    c = check(o, x, y)
    assert c.kind == "none"
    assert c.lower_gap == pytest.approx(0.75, abs=1e-3)
    assert len(c.reasons) == 1
