"""The backend `nlp`: known optima of problems with constraints, honest claims, refusals."""

from __future__ import annotations

import math
import signal
import sys
import time
from types import SimpleNamespace
from typing import Any

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.nlp import run as nlp_run
from bilevelpy.backends.nlp.run import Run
from bilevelpy.numerics.certificate.local import certify_local
from bilevelpy.numerics.certificate.local_probe import probe
from bilevelpy.numerics.programs import interior_point
from bilevelpy.numerics.programs.interior_point import InteriorPoint
from bilevelpy.reductions.rows import system
from bilevelpy.result import Certificate

pytest.importorskip("casadi")


def test_quadratic_follower_with_rows() -> None:
    # Bard 1988: 17 at (1, 0); (5, 2) with 25 is a local optimum.
    text = """
    upper { var x in [0, 10] start 1; minimize (x - 5)^2 + (2 * y + 1)^2; }
    lower fit {
      var y in [0, inf];
      minimize (y - 1)^2 - 1.5 * x * y;
      subject to
        a: -3 * x + y + 3 <= 0;
        b: x - 0.5 * y - 4 <= 0;
        c: x + y - 7 <= 0;
    }
    """
    result = bl.solve(bl.parse(text), backend="nlp")
    assert result.success
    assert result.certificate is not None
    assert result.certificate.kind == "local"
    assert pytest.approx(17, abs=1e-5) == result.F


def test_a_nonlinear_follower() -> None:
    # min exp(y) - x y: y = log x; the leader's optimum by a fine grid.
    text = """
    upper { var x in [0.1, 5]; minimize (x - 2)^2 + y^2; }
    lower fit { var y in [0, 3]; minimize exp(y) - x * y; }
    """
    result = bl.solve(bl.parse(text), backend="nlp")
    x = np.linspace(0.1, 5, 400001)
    phi = (x - 2) ** 2 + np.clip(np.log(x), 0, 3) ** 2
    assert result.success
    assert pytest.approx(phi.min(), abs=1e-7) == result.F


def test_a_nonconvex_follower_is_not_left_at_a_stationary_point() -> None:
    # Sinha, Malo, Deb 2014, TP7: a stationary response gives -1.98; best known -1.96.
    text = """
    upper {
      var x[2] in [0, inf] start 1;
      minimize -(x[1] + y[1]) * (x[2] + y[2]) / (x[1] * y[1] + x[2] * y[2] + 1);
      subject to
        u: x[1] - x[2] <= 0;
        v: sumsq(x) <= 100;
    }
    dim k = 2;
    lower fit {
      var y[k] in [0, inf] start 0.5;
      minimize (x[1] + y[1]) * (x[2] + y[2]) / (x[1] * y[1] + x[2] * y[2] + 1);
      subject to
        a: y[1] <= x[1];
        b: y[2] <= x[2];
    }
    """
    result = bl.solve(bl.parse(text), backend="nlp")
    assert pytest.approx(-1.960784, abs=1e-4) == result.F
    assert any("not known to be convex" in r for r in result.certificate.reasons)


def test_many_followers_by_the_reduced_form() -> None:
    text = """
    dim m = 40;
    set I = 1..m;
    param a[I];
    upper { var x in [0, 10] start 9; minimize sum((fit.y[i] - a[i])^2 for i in I); }
    lower fit[i in I] { var y in [0, inf]; minimize 0.5 * y^2 - x * y; subject to cap: y <= a[i]; }
    """
    a = np.linspace(1, 5, 40)
    model = bl.parse(text, a=a)
    result = bl.solve(model, backend="nlp", options={"form": "reduced"})
    # From x = 5 on every follower is at its cap.
    assert result.success
    assert pytest.approx(0, abs=1e-6) == result.F


def test_a_point_that_is_no_minimum_fails_the_probe() -> None:
    text = """
    upper { var x in [0, 10]; minimize (x - 5)^2 + y; }
    lower fit { var y in [0, inf]; minimize (y - x)^2; subject to a: y <= 3; }
    """
    made = system(bl.parse(text).bound)

    def respond(v: np.ndarray) -> np.ndarray:
        return np.array([v[0], min(v[0], 3.0)])

    v = np.array([2.0, 2.0])
    seen = probe(made, v, respond, np.random.default_rng(0))
    found = certify_local(made, v, seen, convex=True)
    assert found.kind == "none"
    assert "not locally optimal" in found.reasons[0]
    best = np.array([5.0, 3.0])
    seen = probe(made, best, respond, np.random.default_rng(0))
    assert certify_local(made, best, seen, convex=True).kind == "local"
    # A probe that had no time to compare anything supports no claim.
    late = probe(made, best, respond, np.random.default_rng(0), deadline=-math.inf)
    assert late.tried == 0
    assert certify_local(made, best, late, convex=True).kind == "none"


def test_probes_find_a_narrow_cone_at_the_edge_of_a_piece() -> None:
    """F is linear where a.x <= 0, and higher by 50 beyond: it falls in 7 degrees of 360 beside 0,
    which single random directions miss in three of four draws.
    """
    text = """
    dim n = 2; param a[n], slope[n];
    upper { var x[n] in [-9, 9]; minimize dot(slope, x) + 50 * y; }
    lower fit { var y in [0, 1]; minimize -dot(a, x) * y; }
    """
    found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        a, b = np.linalg.qr(rng.standard_normal((2, 2)))[0]
        made = system(bl.parse(text, a=a, slope=-(b + 8 * a)).bound)

        def respond(v: np.ndarray, a: np.ndarray = a) -> np.ndarray:
            return np.array([*v[:2], float(a @ v[:2] > 1e-9)])

        seen = probe(made, np.zeros(3), respond, rng)
        assert seen.tried <= 40
        found += seen.fall > 0.0
    assert found >= 11


def test_probes_return_to_an_equation_of_the_leader() -> None:
    """A step off `sum(y) == B` was dropped, and nothing was left to compare with."""
    text = """
    dim n; param a[n], c[n], B;
    upper {
      var t[n] in [-5, 5];
      minimize sum(c * y) + 0.1 * sumsq(t);
      subject to target: sum(y) == B;
    }
    lower fit { var y[n] in [0, 10]; minimize sumsq(y - a) / 2 + sum(t * y); }
    """
    rng = np.random.default_rng(0)
    for n in (5, 12):
        a, c = rng.uniform(1, 8, n), rng.uniform(-3, 3, n)
        B = 0.8 * a.sum()
        model = bl.parse(text, a=a, c=c, B=B)
        made = system(model.bound)

        def respond(v: np.ndarray, a: np.ndarray = a) -> np.ndarray:
            t = v[: a.size]
            return np.concatenate([t, np.clip(a - t, 0.0, 10.0)])

        # Feasible, and not the best: every t alike.
        seen = probe(made, respond(np.full(2 * n, 0.2 * a.mean())), respond, rng)
        assert seen.tried > 5
        assert seen.fall > 0.0
        assert abs(seen.place[n:].sum() - B) <= 1e-8
        result = bl.solve(model, backend="nlp")
        assert result.certificate.kind == "local", result.certificate.reasons
        # With t = a - y, y between 0 and 10, it is a convex program.
        y = cp.Variable(n)
        limits = [cp.sum(y) == B, y >= 0, y <= 10, cp.abs(a - y) <= 5]
        least = cp.Problem(cp.Minimize(c @ y + 0.1 * cp.sum_squares(a - y)), limits).solve()
        assert pytest.approx(least, abs=1e-4) == result.F


def test_probes_keep_to_a_budget_where_bounds_clip_them() -> None:
    text = """
    set F; param a[F];
    upper {
      var r[F] in [0, 10];
      minimize sum((q[f] - a[f])^2 for f in F) + sum(r);
      subject to budget: sum(r) <= 20;
    }
    lower firm[f in F] {
      var q in [0, 20];
      minimize q^2 / 2 - r[f] * q;
      subject to c: q <= 3 + r[f];
    }
    """
    a = np.random.default_rng(3).uniform(0, 4, 80)
    model = bl.parse(text, a=a, F=[f"f{k}" for k in range(80)])
    result = bl.solve(model, backend="nlp", time_limit=60)
    assert result.certificate.kind == "local", result.certificate.reasons
    # r = q: the least of (r - a)^2 + r under the budget.
    low, high = 0.0, 8.0
    for _ in range(60):
        price = 0.5 * (low + high)
        low, high = (price, high) if np.maximum(a - (1 + price) / 2, 0).sum() > 20 else (low, price)
    r = np.maximum(a - (1 + low) / 2, 0)
    assert pytest.approx(((r - a) ** 2).sum() + r.sum(), abs=1e-3) == result.F


TOLLS = """
set NODE; set ARC within NODE * NODE; set TOLLED within ARC; set OD;
param t0[ARC], slope[ARC], supply[OD, NODE];
upper { var t[TOLLED] in [0, 8]; maximize sum(t[e] * v[e] for e in TOLLED); }
lower drivers {
  var x[OD, ARC] in [0, inf], v[ARC] in [0, inf];
  minimize sum(t0 * v + slope * v^2 / 2) + sum(t[e] * v[e] for e in TOLLED);
  subject to
    total[e in ARC]: v[e] == sum(x[k, e] for k in OD);
    balance[k in OD, n in NODE]: sum(x[k, i, j] for (i, j) in ARC where i == n)
        - sum(x[k, i, j] for (i, j) in ARC where j == n) == supply[k, n];
}
"""


def test_each_form_helps_where_the_other_is_lost() -> None:
    """Conditions lose their way where flows are degenerate; F along the responses does not."""
    nodes = [f"{i}{j}" for i in range(3) for j in range(3)]
    near = [(a, b) for a in nodes for b in nodes]
    arcs = [(a, b) for a, b in near if abs(int(a[0]) - int(b[0])) + abs(int(a[1]) - int(b[1])) == 1]
    rng = np.random.default_rng(2)
    supply = np.zeros((2, 9))
    supply[0, [0, 8]], supply[1, [2, 6]] = (5, -5), (4, -4)
    t0, slope = rng.integers(2, 10, len(arcs)).astype(float), rng.uniform(0.1, 1, len(arcs))
    sets = {"NODE": nodes, "ARC": arcs, "TOLLED": [arcs[0], arcs[9], arcs[14]], "OD": ["p", "q"]}
    model = bl.parse(TOLLS, data={**sets, "t0": t0, "slope": slope, "supply": supply})
    result = bl.solve(model, backend="nlp", time_limit=60)
    reduced = bl.solve(model, backend="nlp", options={"form": "reduced"}, time_limit=60)
    assert result.certificate.kind == "local", result.certificate.reasons
    assert reduced.F - 1e-5 * abs(reduced.F) <= result.F


def test_start_values_and_a_callback_that_stops() -> None:
    text = """
    upper { var x in [0, 10]; minimize (x - 5)^2 + y^2; }
    lower fit { var y in [0, 3]; minimize (y - x)^2; }
    """
    seen = []

    def stop(state: object) -> bool:
        seen.append(state)
        return True

    result = bl.solve(bl.parse(text), backend="nlp", start={"x": 1.0}, callback=stop)
    assert len(seen) == 1
    assert result.status == "interrupted"
    assert math.isfinite(result.F)
    with pytest.raises(bl.UsageError, match="no variable `z`"):
        bl.solve(bl.parse(text), backend="nlp", start={"z": 1.0})


def test_an_interruption_keeps_the_best_point() -> None:
    text = """
    upper { var x in [0.1, 5]; minimize (x - 2)^2 + y^2; }
    lower fit { var y in [0, 3]; minimize exp(y) - x * y; }
    """

    def interrupt(state: Any) -> None:
        raise KeyboardInterrupt

    result = bl.solve(bl.parse(text), backend="nlp", callback=interrupt)
    assert result.status.value == "interrupted"
    assert math.isfinite(result.F)
    assert result.message == "interrupted; the best point is kept"


def test_ctrl_c_inside_of_ipopt_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """CasADi takes it for a failed evaluation, and the next start went on."""
    rows = system(bl.parse("upper { var x in [-3, 3]; minimize (x - 1)^4; }").bound)
    program = InteriorPoint(rows.objective, rows.upper_rows)
    program.solve(np.array([2.0]), np.array([-3.0]), np.array([3.0]))

    def clock() -> float:
        if sys._getframe(1).f_code.co_name == "eval":
            signal.raise_signal(signal.SIGINT)
        return time.perf_counter()

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(interior_point, "time", SimpleNamespace(perf_counter=clock))
    with pytest.raises(KeyboardInterrupt):
        program.solve(np.array([2.0]), np.array([-3.0]), np.array([3.0]))
    assert signal.getsignal(signal.SIGINT) is before


def test_the_missing_solver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "casadi", None)
    text = "upper { var x in [0, 1]; minimize x; } lower f { var y in [0, 1]; minimize (y - x)^2; }"
    with pytest.raises(bl.BackendError, match="extra `nlp`"):
        bl.solve(bl.parse(text), backend="nlp")


def test_whole_numbers_are_refused() -> None:
    text = "upper { var x in binary; minimize x; } lower f { var y in [0, 1]; minimize (y - x)^2; }"
    with pytest.raises(bl.BackendError, match="continuous"):
        bl.solve(bl.parse(text), backend="nlp")


def test_probes_leave_time_for_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
    upper { var x[5] in [0.1, 5]; minimize sum((x - 2)^2) + sumsq(y); }
    lower fit { var y[5] in [0, 3]; minimize sum(exp(y) - x * y); }
    """
    whole, ends = Run._respond, []

    def slow(self: Run, v: np.ndarray) -> np.ndarray | None:
        time.sleep(0.1)
        return whole(self, v)

    def judged(*arguments: Any, deadline: float, **known: Any) -> Certificate:
        ends.append(deadline - time.perf_counter())
        return certify_local(*arguments, deadline=deadline, **known)

    monkeypatch.setattr(Run, "_respond", slow)
    monkeypatch.setattr(nlp_run, "certify_local", judged)
    result = bl.solve(bl.parse(text), backend="nlp", options={"starts": 1}, time_limit=1.5)
    assert ends[-1] > 0.0
    assert result.success


PRICED = """
model priced;
upper { var t in [0, 5] start 1; maximize t * f[1]; }
lower flow {
  var f[2] in [0, 2];
  minimize (1 + t) * f[1] + 4 * f[2];
  subject to meet: sum(f) == DEMAND;
}
report price = dual(flow.meet);
"""


def test_reports_of_prices_of_a_linear_follower() -> None:
    """At t = 3 both roads cost 4, which is what one more traveller costs."""
    result = bl.solve(bl.parse(PRICED.replace("DEMAND", "3")), backend="nlp")
    assert result.success
    assert abs(result.reports["price"] - 4) < 1e-5
    assert abs(result.dual("flow.meet") - 4) < 1e-5


def test_a_price_that_is_not_unique_is_told() -> None:
    """With all capacity in use, any price from that of the last road on will do."""
    result = bl.solve(bl.parse(PRICED.replace("DEMAND", "4")), backend="nlp")
    assert np.isnan(result.reports["price"])
    assert any("shadow price of `flow.meet` is not known" in w for w in result.warnings)
