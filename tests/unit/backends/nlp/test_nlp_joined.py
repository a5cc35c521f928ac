"""Games and shadow prices in the backend `nlp`, and upper variables that no follower reads."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.nlp.inner import Inner
from bilevelpy.backends.nlp.joined import examined
from bilevelpy.backends.nlp.reduced import Reduced
from bilevelpy.numerics.certificate.local import certify_local
from bilevelpy.numerics.certificate.local_probe import Probe, probe, tangent
from bilevelpy.numerics.followers.response import JointResponse
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.rows import system

pytest.importorskip("casadi")


def solved(text: str, backend: str = "nlp", **data: object) -> bl.Result:
    return bl.solve(bl.parse(text, **data), backend=backend, progress=False)


def kind(result: bl.Result) -> str:
    assert result.certificate is not None
    return result.certificate.kind


def test_a_leader_before_two_nash_followers() -> None:
    # Siddiqui and Gabriel 2013: Q = 6, q = (2, 2), profit 12.
    found = solved("""set F = {"a", "b"};
    upper { var Q in [0, 10] start 1; maximize (13 - Q - sum(f.q[i] for i in F))*Q - Q; }
    lower f[i in F] nash {
      var q in [0, inf];
      maximize (13 - Q - sum(f.q[j] for j in F))*q - q; }""")
    assert kind(found) == "local"
    assert float(found["Q"]) == pytest.approx(6.0, abs=1e-5)
    assert np.allclose(found["q"], 2.0, atol=1e-5)
    assert pytest.approx(12.0, abs=1e-6) == found.F


def test_a_smooth_game_that_is_not_quadratic() -> None:
    # exp(q_i) = x - q_j/2 in equilibrium: by symmetry exp(q) + q/2 = x, and F = (q - 1)^2 has its
    # optimum at q = 1, x = e + 1/2.
    found = solved("""set F = {"a", "b"};
    upper { var x in [0, 10] start 1; minimize sum((f.q[i] - 1)^2 for i in F); }
    lower f[i in F] nash {
      var q in [0, 5];
      minimize exp(q) - x*q + 0.5*q*(sum(f.q[j] for j in F) - q); }""")
    assert kind(found) == "local"
    assert float(found["x"]) == pytest.approx(np.e + 0.5, abs=1e-3)
    assert pytest.approx(0.0, abs=1e-6) == found.F


PRICE = """dim n;
param a[n], d;
upper { var x in [0, 40] start 5; maximize dual(g.meet)*x - 3*x; }
lower g {
  var y[n] in [0, 30];
  minimize sum(a[j]*y[j] + 0.5*y[j]^2 for j in n);
  subject to meet: sum(y) == d - x; }"""


@pytest.mark.parametrize("seed", range(3))
def test_prices_agree_with_the_global_backend(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = {"a": rng.uniform(5, 30, 3), "d": float(rng.uniform(40, 80))}
    ours, exact = solved(PRICE, **data), solved(PRICE, "exact", **data)
    assert kind(ours) == "local"
    assert pytest.approx(exact.F, rel=1e-5) == ours.F
    assert np.allclose(ours.dual("g.meet"), exact.dual("g.meet"), atol=1e-4)


def test_a_degenerate_price_is_the_leader_s_choice() -> None:
    # At x = 10 the two rows say the same: prices with a sum of 10 are valid, and the leader, who is
    # paid the price of the second alone, takes all of it.
    found = solved("""
    upper { var x in [0, 10] start 4; maximize dual(f.two) - (x - 10)^2; }
    lower f { var y in [0, 20]; maximize 20*y - 0.5*y^2;
      subject to one: y <= 10; two: y <= x; }""")
    assert kind(found) == "local"
    # Below 10 the price of `two` is 20 - x: at 10 it is 10, and x = 9.5 gives 10.5 - 0.25.
    assert float(found["x"]) == pytest.approx(9.5, abs=1e-4)
    assert pytest.approx(10.25, abs=1e-5) == found.F


def test_a_price_at_its_declared_bound_is_no_local_optimum() -> None:
    found = solved("""
    upper { var x in [1, 10] start 4; maximize dual(f.two); }
    lower f { var y in [0, 20]; maximize 20*y - 0.5*y^2;
      subject to two: y <= x; assume dual(two) in [0, 15]; }""")
    assert kind(found) == "none"
    assert found.certificate is not None
    assert any("declared bound" in r for r in found.certificate.reasons)


def test_a_stationary_point_at_which_a_player_gains_is_no_equilibrium() -> None:
    # q = 1/2 suits the leader and meets the conditions, but it is each player's worst.
    found = solved("""set F = {"a", "b"};
    upper { var x in [0, 1] start 0.2; minimize sum((f.q[i] - 0.5)^2 for i in F) + x; }
    lower f[i in F] nash {
      var q in [0, 1];
      minimize -(q - 0.5)^2 + 0.1*q*(sum(f.q[j] for j in F) - q); }""")
    if kind(found) == "local":
        assert np.allclose(np.abs(found["q"] - 0.5), 0.5, atol=1e-6)
        assert pytest.approx(0.5, abs=1e-6) == found.F


def test_prices_of_followers_that_are_not_convex_are_refused() -> None:
    text = """
    upper { var x in [0, 1]; maximize dual(f.cap); }
    lower f { var q in [0, 2]; minimize -q^2 + q^4; subject to cap: q <= x; }"""
    with pytest.raises(bl.BackendError, match="convex"):
        solved(text)


def test_multipliers_that_do_not_fit_are_found_out() -> None:
    made = system(
        bl.parse("""
    upper { var x in [0, 10]; maximize dual(f.two)*x; }
    lower f { var y in [0, 20]; maximize 20*y - 0.5*y^2; subject to two: y <= x; }""").bound
    )
    program = kkt(made, "a test", force=True)
    full = np.zeros(program.columns.count)
    names = {name: j for j, name in enumerate(program.columns.names)}
    full[[names["x"], names["y"]]] = 5.0
    seen = Probe(1, 0.0, None)
    given = certify_local(made, full[: made.columns.count], seen, convex=True)
    assert given.kind == "local"
    refuted = examined(program, full, given)  # the price must be 15, not 0
    assert refuted.kind == "none"
    assert "stat." in refuted.reasons[0]


def test_a_claim_needs_points_beside_x() -> None:
    made = system(
        bl.parse("""
    upper { var x in [0, 10]; minimize (x - y)^2; }
    lower f { var y; minimize (y - x)^2; }""").bound
    )
    v = np.array([3.0, 3.0])
    assert certify_local(made, v, Probe(0, 0.0, None), convex=True).kind == "none"
    assert certify_local(made, v, Probe(4, 0.0, None), convex=True).kind == "local"


def test_what_no_follower_reads_is_chosen_exactly() -> None:
    # An epigraph: its value max(0, 1 - y) + max(0, x - 2) is piecewise smooth.
    made = system(
        bl.parse("""
    upper {
      var x in [0, 3] start 1;
      var loss[2] in [0, inf];
      minimize sum(loss) + 0.1*x^2;
      subject to a: loss[1] >= 1 - y; b: loss[2] >= x - 2;
    }
    lower f { var y; minimize (y - x/2)^2; }""").bound
    )
    inner = Inner.of(made)
    assert inner is not None
    names = {name: j for j, name in enumerate(made.columns.names)}
    assert {made.columns.names[j] for j in inner.own} == {"loss[1]", "loss[2]"}
    v = np.zeros(made.columns.count)
    v[names["x"]], v[names["y"]] = 1.0, 0.5
    answer = inner.solve(v)
    assert answer is not None
    values, lagrangian = answer
    assert values[names["loss[1]"]] == pytest.approx(0.5, abs=1e-7)
    assert values[names["loss[2]"]] == pytest.approx(0.0, abs=1e-7)
    # dV/dy = -1 (the first row), dV/dx = 0.2 x.
    slope = lagrangian.linear.toarray()[0] + lagrangian.quadratic[0] @ v
    assert slope[names["y"]] == pytest.approx(-1.0, abs=1e-6)
    assert slope[names["x"]] == pytest.approx(0.2, abs=1e-6)


def test_nothing_below_reads_the_leader() -> None:
    # y = 1 whatever x is: the best x is what is left of F.
    found = bl.solve(
        bl.parse("""upper { var x in [-1, 1] start 0.9; minimize (x - 0.2*y)^2; }
        lower f { var y; minimize (y - 1)^2; }"""),
        backend="nlp",
        options={"form": "reduced"},
        progress=False,
    )
    assert float(found["x"]) == pytest.approx(0.2, abs=1e-6)


def test_many_followers_with_ties_do_what_suits_the_leader() -> None:
    # w > 0 wants b, w < 0 wants a: F = (x - 0.2)^2 + 0.05 x - 0.5.
    text = """set K = 1..150; param w[K];
    upper {
      var x in [-1, 1] start 0.5;
      minimize (x - 0.2)^2 + sum(0.1*x*f.a[k] - w[k]*f.b[k] for k in K) / 150;
    }
    lower f[k in K] {
      var a in [0, 1], b in [0, 1];
      minimize -(a + b);
      subject to c: a + b <= 1; }"""
    found = solved(text, w=np.where(np.arange(150) % 2 == 0, 1.0, -1.0))
    assert kind(found) == "local"
    assert float(found["x"]) == pytest.approx(0.175, abs=1e-5)
    assert pytest.approx(0.025**2 + 0.05 * 0.175 - 0.5, abs=1e-6) == found.F


def test_ties_that_are_no_convex_choice_give_no_claim() -> None:
    text = """set K = 1..150;
    upper { var x in [-1, 1] start 0.5; minimize x^2 - sum((f.b[k] - 0.4)^2 for k in K) / 150; }
    lower f[k in K] {
      var a in [0, 1], b in [0, 1];
      minimize -(a + b);
      subject to c: a + b <= 1; }"""
    found = solved(text)
    assert kind(found) == "none"
    assert found.certificate is not None
    assert "not be unique" in found.certificate.reasons[0]


def test_a_scan_moves_the_entries_of_a_block_together() -> None:
    made = system(
        bl.parse("""set K = 1..3;
        upper { var c in [0.01, 100] start 50; var box[K] in [0, 2]; minimize sum(y) + c; }
        lower f { var y[K]; minimize sum(y[k]^2/2 - y[k]*(box[k] + c) for k in K); }""").bound
    )
    joint = JointResponse(made)
    run = Reduced(made, joint, float("inf"), 1e-6, lambda values, objective: False)
    found = run.scan(made.columns.start, float("inf"))
    seen = [v[run.chosen] for v in found]
    assert len(seen) == 64
    assert all(np.ptp(x[1:]) == 0.0 for x in seen)
    # Ratios between 0.01 and 100, and the best first: the least c with the least box.
    assert np.allclose(seen[0], [0.01, 0, 0, 0])
    ratios = np.unique(np.round(np.log10([x[0] for x in seen]), 9))
    assert np.allclose(np.diff(ratios), np.diff(ratios)[0])


def test_points_beside_x_lie_along_the_rows_that_hold_it() -> None:
    # F falls along x1 + x2 = 4 only: every step straight across the row, and every step inside, is
    # worse or no point at all.
    made = system(
        bl.parse("""upper { var x[2] in [0, 10]; minimize -2*x[1]*y - x[2];
          subject to cap: x[1] + x[2] <= 4; }
        lower f { var y; minimize (y - 1)^2; }""").bound
    )
    v = np.array([1.0, 3.0, 1.0])
    seen = probe(made, v, lambda at: at, np.random.default_rng(0))
    assert seen.fall > 1e-3
    assert seen.place is not None
    assert seen.place[0] > 1.0
    end = np.array([4.0, 0.0, 1.0])
    assert probe(made, end, lambda at: at, np.random.default_rng(0)).fall == 0.0


def test_the_nearest_direction_that_keeps_the_rows() -> None:
    normals = np.array([[1.0, 1.0], [0.0, -1.0]])
    assert np.allclose(tangent(np.array([1.0, 0.0]), normals), [0.0, 0.0], atol=1e-12)
    assert np.allclose(tangent(np.array([-1.0, 1.0]), normals), [-1.0, 1.0])
    assert np.allclose(tangent(np.array([1.0, 1.0]), normals[:1]), [0.0, 0.0], atol=1e-12)
