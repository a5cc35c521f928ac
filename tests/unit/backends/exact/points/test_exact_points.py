"""Good points without a proof: branches of responses, local solutions, the search, and what the
answer says of them.
"""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.engine.outcome import Interlude, Limits, Outcome
from bilevelpy.backends.exact.points.local import LocalPhase, is_attained
from bilevelpy.backends.exact.relaxations.conditions import conditions
from bilevelpy.backends.exact.relaxations.relax import Relaxed
from bilevelpy.backends.exact.responses.followers import FEASIBLE, Followers
from bilevelpy.backends.exact.responses.progress import Progress
from bilevelpy.backends.nlp.branches import branch, extension
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rewriting.separate import separate
from bilevelpy.reductions.rows import System, system

pytest.importorskip("pyscipopt")
pytest.importorskip("casadi")


def made(text: str) -> System:
    return separate(lift(system(bl.parse(text).bound)))


def local(text: str, starts: int = 8) -> Progress:
    """The best of some local solutions."""
    program = made(text)
    relaxed, settled = conditions(program)
    state = Progress()
    followers = Followers(program, lambda: Limits(seconds=5.0, feasible=FEASIBLE))
    rng = np.random.default_rng(0)
    LocalPhase(followers, state, relaxed, settled, rng, time.perf_counter() + 120).run(starts)
    return state


def test_a_branch_is_held_by_what_has_multipliers() -> None:
    text = """
    upper { var x in [0, 4]; minimize x + y; }
    lower f { var y in [-5, 5]; minimize y; subject to a: y >= x - 3; b: y >= -9; }
    """
    program = made(text)
    found = branch(program, 0, np.array([0.5, -2.5]))
    assert found.fixed == ()
    assert [r for r, _ in found.rows] == [0]
    # One column and its multiplier; y(x) = x - 3 is the only equation with x.
    further = extension(program, [found], 2)
    assert further.start.tolist() == [-2.5, 0.0]
    at = np.array([2.0, -1.0, -1.0, -1.0])
    assert further.rows.violation(at).max() == pytest.approx(0, abs=1e-12)


def test_responses_that_jump_are_followed_to_the_edge() -> None:
    # Ye and Zhu 2010, example 4.3: for x < 1 the follower jumps to y = x - 3; 5/4 at (1, 1).
    text = """
    upper { var x in [0, 4]; minimize (x - 0.5)^2 + (y - 2)^2; }
    lower f { var y; minimize y^3 - 3 * y; subject to a: y >= x - 3; }
    """
    state = local(text)
    assert state.objective == pytest.approx(1.25, abs=2e-3)


def test_design_centring() -> None:
    # Stein and Still: the largest disk between a parabola, a line and a bound, by three followers.
    text = """
    upper {
      var x[3] start 1;
      minimize -pi * x[3]^3;
      subject to
        a: -y[1] - y[2]^2 <= 0;
        b: 0.25 * y[3] + y[4] <= 0.75;
        c: y[6] >= -1;
    }
    dim k = 6;
    lower f {
      var y[k] start 1;
      minimize y[1] + y[2]^2 - 0.25 * y[3] - y[4] + y[6];
      subject to
        d: (x[1] - y[1])^2 + (x[2] - y[2])^2 <= x[3]^2;
        e: (x[1] - y[3])^2 + (x[2] - y[4])^2 <= x[3]^2;
        g: (x[1] - y[5])^2 + (x[2] - y[6])^2 <= x[3]^2;
    }
    """
    assert local(text).objective == pytest.approx(-1.431928, abs=1e-4)


def test_a_value_that_is_not_attained_is_doubted() -> None:
    # Zlobec 2001: for x > 0 the response is 0 and F = x; at x = 0 it is 1.
    text = """
    upper { var x in [0, 1]; minimize x + y; }
    lower f { var y in [0, 1]; maximize y; subject to a: x * y <= 0; }
    """
    followers = Followers(made(text), lambda: Limits(seconds=5.0, feasible=FEASIBLE))
    (doubt,) = is_attained(followers, np.array([1e-7, 0.0]), np.ones(2))
    assert "without being attained" in doubt
    assert is_attained(followers, np.array([0.5, 0.0]), np.ones(2)) == ()
    assert not bl.solve(bl.parse(text), backend="exact", time_limit=30).success


def test_kinks_below_and_a_leader_without_bounds() -> None:
    # w = sign(x) max(|x| - 1, 0): (x - 2)^2 + (x - 1)^2 is least at 3/2.
    text = """
    upper { var x; minimize (x - 2)^2 + w^2; }
    lower g { var w; minimize (w - x)^2 / 2 + abs(w); }
    """
    result = bl.solve(bl.parse(text), time_limit=60)
    assert result.success
    assert pytest.approx(0.5, abs=1e-6) == result.F
    assert result["x"] == pytest.approx(1.5, abs=1e-4)


def test_an_infeasible_problem_has_a_certificate() -> None:
    text = """
    upper { var x in [0, 5]; maximize x; subject to cap: y <= 0; }
    lower fit { var y in [-10, 2]; maximize y; }
    """
    result = bl.solve(bl.parse(text))
    assert result.status == "infeasible"
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    details = result.certificate.details
    assert details["violated"] == {"cap": pytest.approx(2)}
    assert details["best_response"] == {"y": pytest.approx(2)}


def test_better_points_are_shown_and_a_run_can_be_stopped() -> None:
    text = """
    upper { var x in [-1, 1]; minimize x + y; }
    lower fit { var y in [-1, 1]; minimize x * y^2 / 2 - y^4 / 4; }
    """
    seen = []
    result = bl.solve(
        bl.parse(text), backend="exact", time_limit=30, start={"x": 0.5}, callback=seen.append
    )
    assert result.success
    assert len(seen) >= 1
    values = [s.F for s in seen]
    assert values == sorted(values, reverse=True)
    assert len(result.history) == len(seen) + 1
    stopped = bl.solve(
        bl.parse(text), backend="exact", time_limit=30, start={"x": 0.5}, callback=lambda s: True
    )
    assert stopped.status == "interrupted"
    assert np.isfinite(stopped.F)


@pytest.mark.parametrize("loss", ["norm2(y - t)", "sum(abs(y - t))", "sumsq(y - t)"])
def test_a_value_that_no_point_can_pass_ends_the_run(loss: str) -> None:
    """The leader steers each y_i to t_i: F = 0, and no norm is below."""
    result = bl.solve(
        bl.parse(
            f"""
            dim m = 4;
            param t[m];
            upper {{ var x[m] in [0, 9]; minimize {loss}; }}
            lower l {{ var y[m]; minimize sumsq(y)/2 - dot(x, y) + 0.2 * y[1] * y[3];
                      subject to b: sum(y) <= 30; nn: y >= 0; }}
            """,
            t=[1.0, 2.0, 3.0, 1.0],
        ),
        time_limit=60,
    )
    assert result.success, result.message
    assert pytest.approx(0, abs=1e-6) == result.F
    assert result.certificate is not None
    assert result.certificate.details["bound"] >= -1e-6


TRANSPORT = """
param a[2] = [0.4, 0.6], b[2] = [0.5, 0.5];
upper { var C[2, 2] in [0, 2] start 0.5; minimize (P[1, 1] - 0.3)^2 + 1e-3 * sumsq(C); }
lower transport {
  var P[2, 2] in [0, 1] start 0.1;
  minimize sum(C * P) - 0.3 * entropy(P);
  subject to
    r[i in 2]: sum(P[i, j] for j in 2) == a[i];
    c[j in 2]: sum(P[i, j] for i in 2) == b[j];
}
"""


@pytest.mark.parametrize("backend", ["exact", "nlp"])
def test_points_where_a_follower_has_no_value_are_passed_over(backend: str) -> None:
    """Entropies of plans beyond a bound by rounding; F is that of the other backend."""
    result = bl.solve(bl.parse(TRANSPORT), backend=backend, time_limit=8, progress=False)
    assert pytest.approx(1.41723e-4, rel=1e-2) == result.F


def test_the_start_is_a_point_where_no_search_finds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose time was over before its first local solution had no point. Best there is
    y = (2/3, 2/3, 4/3), with prices 7/3 and 10/3; the answer may be sharper.
    """
    text = """
    upper { var x[2] in [0, 3] start 1; maximize dot(dual(meet.need), x) - 2 * x[1]; }
    lower meet { var y[3] in [0, inf]; minimize sum(i * y[i] + y[i]^2 for i in 1..3);
      subject to need[j in 1..2]: y[j] + y[3] >= 1 + x[j]; }
    """
    solve = Relaxed.solve

    def over(
        self: Relaxed, limits: Limits, sign: float = 1.0, interlude: Interlude | None = None
    ) -> Outcome:
        if interlude is None:
            return solve(self, limits, sign)
        interlude.point()
        return Outcome("time_limit", None, math.inf, -math.inf, 0, 0.0)

    monkeypatch.setattr(Relaxed, "solve", over)
    monkeypatch.setattr(LocalPhase, "run", lambda self, starts: None)
    result = bl.solve(bl.parse(text), backend="exact", time_limit=20)
    assert not result.success
    assert result.F > 17 / 3 - 2 - 1e-6
