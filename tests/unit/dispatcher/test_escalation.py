"""Which backend goes on where one has failed, and what is told of it."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy import solving
from bilevelpy.backends import registry
from bilevelpy.backends.base import Accept, Cost
from bilevelpy.dispatcher import successor
from bilevelpy.dispatcher.escalation import MOST
from bilevelpy.numerics.driver.measure import Finish, Measure
from bilevelpy.result import Status

QUADRATIC = """
model follow;
upper { var x start 2; minimize (x - 1)^2 + y^2; }
lower L { var y; minimize (y - x)^2; }
"""
KINKED = """
model lasso;
upper { var x in [0, 3] start 0.2; minimize (y - 1)^2/2 + 1; }
lower L { var y; minimize (y - 2)^2/2 + x*max(y, -2*y); }
"""
MERELY_CONVEX = """
model counterexample;
dim n = 3;
upper { var x[n]; minimize sumsq(x - b)/2 + sum((a - 1)^2)/2; }
lower L { var a[n]; var b[n] start 5; minimize sumsq(a)/2 - dot(x, a); }
"""


@pytest.fixture
def solved() -> bl.Model:
    return bl.parse(QUADRATIC)


class Broken:
    """Accepts everything and ends as it is told."""

    title, reference = "Fails", ""
    options = registry.get("direct").options

    def __init__(self, name: str, status: Status, F: float = 1.0) -> None:
        self.name, self.status, self.F = name, status, F

    def accepts(self, structure):
        return Accept("everything")

    def cost(self, structure):
        return Cost(0.0, 0.0)

    def init(self, oracle, x, y, options, rng):
        return x, y

    def step(self, oracle, state, options):
        return state

    def measure(self, oracle, state):
        x, y = state
        return Measure(x, y, self.F, oracle.f(x, y), 1.0, 1.0, 1.0, 1.0, Finish(self.status, "end"))


def with_first(monkeypatch, backend) -> None:
    """Make ``backend`` the one that the dispatcher ranks first."""
    from bilevelpy.dispatcher import conditions, rules

    dispatch = sys.modules["bilevelpy.dispatcher.dispatch"]
    rule = rules.Rule(0, "test", backend.name, (conditions.ALWAYS,), "for the test")
    monkeypatch.setattr(dispatch, "RULES", (rule, *rules.RULES))
    known = registry.all_backends()
    monkeypatch.setattr(registry, "all_backends", lambda: [backend, *known])
    get = registry.get
    monkeypatch.setattr(
        registry, "get", lambda name: backend if name == backend.name else get(name)
    )


@pytest.mark.parametrize(
    ("status", "F", "said"),
    [
        (Status.STALLED, 1.0, "came to no certified end at F = 1"),
        (Status.CONVERGED, 1.0, "came to no certified end at F = 1"),  # refuted by the certificate
        (Status.DIVERGED, float("nan"), "diverged"),
    ],
)
def test_a_failure_is_followed_by_the_next_backend(monkeypatch, solved, status, F, said) -> None:
    with_first(monkeypatch, Broken("broken", status, F))
    result = bl.solve(solved)
    assert (result.status, result.backend) == ("converged", "direct")
    assert result.decision.chosen == "broken"
    assert result.decision.notes == (f"`broken` {said}; went on with `direct`",)
    assert result.decision.notes[0] in result.warnings
    assert result.decision.to_json()["notes"] == list(result.decision.notes)
    iterations = [record.iteration for record in result.history]
    assert iterations == sorted(iterations)


def test_limits_are_final(monkeypatch, solved) -> None:
    with_first(monkeypatch, Broken("broken", Status.TIME_LIMIT))
    result = bl.solve(solved)
    assert (result.status, result.backend, result.decision.notes) == ("time_limit", "broken", ())


def test_a_run_with_a_checkpoint_is_continued_like_any_other(monkeypatch, tmp_path) -> None:
    """Small models with kinks go to the global solver next, which keeps its best point."""
    with_first(monkeypatch, Broken("broken", Status.STALLED))
    model = bl.parse(KINKED)
    assert bl.solve(model).backend == "exact"
    result = bl.solve(model, checkpoint=tmp_path / "run.ckpt")
    assert result.backend == "exact"
    assert (tmp_path / "run.ckpt").exists()


def test_a_backend_that_was_asked_for_is_the_only_one(monkeypatch, solved) -> None:
    with_first(monkeypatch, Broken("broken", Status.STALLED))
    result = bl.solve(solved, backend="broken")
    assert (result.status, result.backend) == ("stalled", "broken")


def test_attempts_are_limited(solved) -> None:
    facts = bl.analyze(solved)
    failed = replace(bl.solve(solved), status=Status.STALLED)
    tried = registry.names()[: MOST + 1]
    assert successor(facts, failed, tried) is None
    assert successor(facts, failed, tried[:1]) is not None


def test_a_solved_model_has_no_successor(solved) -> None:
    assert successor(bl.analyze(solved), bl.solve(solved), []) is None


def test_negative_curvature_leads_to_a_method_without_convexity(solved) -> None:
    seen = "negative curvature of the lower level was met at a response"
    result = replace(bl.solve(solved), status=Status.STALLED, warnings=(seen,))
    found = successor(bl.analyze(solved), result, ["direct"])
    assert found is not None
    assert found[0] in ("pbgd", "exact")
    assert "negative curvature" in found[1]


def test_several_solutions_lead_to_a_method_that_chooses(solved) -> None:
    """Facts that call the solution unique are dropped once the certificate has seen others."""
    result = bl.solve(bl.parse(MERELY_CONVEX), backend="direct", force=True)
    assert result.status == "stalled"
    found = successor(bl.analyze(solved), result, ["direct"])
    assert found is not None
    name, note = found
    assert name == "slbamm"
    assert note == "`direct` met several lower solutions at F = 12; went on with `slbamm`"


def test_merely_convex_models_never_see_the_methods_that_are_wrong_there() -> None:
    decision = bl.dispatch(bl.analyze(bl.parse(MERELY_CONVEX)))
    assert decision.chosen == "slbamm"
    assert not {"direct", "aid", "itd", "nbo", "qnbo"} & set(decision.ranked)
    result = bl.solve(bl.parse(MERELY_CONVEX))
    assert (result.status, result.backend, result.decision.notes) == ("converged", "slbamm", ())
    assert abs(result.F) < 1e-6


class Crashing(Broken):
    """Raises in its first step."""

    def init(self, oracle, x, y, options, rng):
        raise ZeroDivisionError("by design")


def test_a_broken_successor_loses_nothing(monkeypatch, solved) -> None:
    """The first answer is kept, the crash is told, and the search goes on."""
    with_first(monkeypatch, Broken("broken", Status.STALLED))
    direct = Crashing("direct", Status.STALLED)
    get = registry.get
    monkeypatch.setattr(registry, "get", lambda name: direct if name == "direct" else get(name))
    result = bl.solve(solved)
    assert result.status == "converged"
    assert result.backend not in ("broken", "direct")
    assert any("backend `direct` failed: ZeroDivisionError" in n for n in result.decision.notes)


MANY_KINKS = """
model many_kinks;
dim n;
param t[n];
upper { var x[n] start 0.5; minimize sum((y - t)^2) + 0.1 * sum(x^2); }
lower L { var y[n] in [0, 1]; minimize sum((y - x)^2); }
"""


def test_many_kinks_at_once_are_left_to_a_penalty() -> None:
    """y = clip(x, 0, 1): x = clip(t / 1.1, 0, 1), at a kink of F(x, y(x)) wherever t is outside
    [0, 1.1].
    """
    t = np.random.default_rng(1).uniform(-1.0, 2.0, 60)
    x = np.clip(t / 1.1, 0.0, 1.0)
    found = bl.solve(bl.parse(MANY_KINKS, data={"t": t}), max_iter=5000)
    assert found.success
    exact = float(((x - t) ** 2).sum() + 0.1 * (x**2).sum())
    assert pytest.approx(exact, rel=1e-6) == found.F


def test_kinks_are_followed_by_a_penalty_before_the_rest(solved: bl.Model) -> None:
    facts = bl.analyze(solved)
    result = replace(bl.solve(solved), status=Status.STALLED, warnings=("the response has a kink",))
    following = successor(facts, result, ["direct"])
    assert following is not None
    assert following[0] == "pbgd"
    assert "kinks of the response" in following[1]


def test_kinks_between_pieces_are_followed_by_the_conditions_that_know_them() -> None:
    """150 shares of a quadratic follower, a leader without bounds: `direct` ends between pieces."""
    draw = np.random.default_rng(0)
    n = 150
    A = draw.standard_normal((n, n))
    data = {"A": A @ A.T / n + 0.1 * np.eye(n), "t": draw.dirichlet(np.ones(n))}
    text = """dim n; param A[n, n], t[n];
        upper { var x[n]; minimize sumsq(y - t) / 2 + 1e-3 * sumsq(x) / 2; }
        lower choose { var y[n] in simplex; minimize quad(y, A) / 2 - dot(x, y); }"""
    model = bl.parse(text, data=data)
    facts = bl.analyze(model)
    words = "steps from piece to piece lead no further; the hypergradient is 2e-4"
    ended = bl.solve(model, backend="direct", verify=False, max_iter=0)
    result = replace(ended, status=Status.STALLED, message=words)
    following = successor(facts, result, ["direct"])
    assert following is not None
    assert following[0] == "kkt"


MANY_MINIMA = """
model many_minima;
dim n = 2;
param c[n] = [0, 0.3];
upper { var x start 0; minimize (x - 2)^2 + sum((y - 2 - c)^2); }
lower L { var y[n] start 0; minimize sum(sin(x + y - c)); }
"""


def test_a_global_search_without_a_certificate_is_where_the_next_one_starts() -> None:
    """x + y_i - c_i is 3 pi / 2, F = 2 (3 pi / 2 - 4)^2 / 3 (validation case 6.8)."""
    found = bl.solve(bl.parse(MANY_MINIMA), time_limit=60)
    assert found.success
    assert pytest.approx(2 * (1.5 * np.pi - 4) ** 2 / 3, rel=1e-5) == found.F


SPARSE = """
model sparse;
dim n, p;
param X[n, p], y[n];
upper { var a in [-5, 3] start -2; minimize sumsq(w - 1); }
lower fit { var w[p]; minimize mean(huber(X @ w - y, 0.7)) + sum(exp(a) * abs(w)); }
"""


@pytest.mark.parametrize(("limit", "share"), [(40.0, 30.0), (math.inf, solving.ALONE)])
def test_a_global_search_leaves_time_for_a_local_method(
    limit: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = np.random.default_rng(0).standard_normal((8, 2))
    model = bl.parse(SPARSE, data={"X": X, "y": X @ [2.0, 1.0] + 0.1})
    decision = bl.dispatch(bl.analyze(model))
    assert decision.chosen == "exact"
    assert "direct" in decision.ranked
    given: list[float] = []
    whole = solving.solve_whole

    def late(*arguments: Any) -> bl.Result:
        given.append(arguments[4].time_limit)
        short = replace(arguments[4], time_limit=1.0)
        found = whole(*arguments[:4], short, *arguments[5:])
        return replace(found, status=Status.TIME_LIMIT, certificate=None)

    monkeypatch.setattr(solving, "solve_whole", late)
    result = bl.solve(model, time_limit=limit, progress=False)
    assert given == [pytest.approx(share, abs=1.0)]
    assert result.success
    assert result.backend == "direct"
    assert any("its part of the time" in note for note in result.warnings)
    # Who names it, gets nothing else, and all the time.
    named = bl.solve(model, backend="exact", time_limit=limit, progress=False)
    assert named.backend == "exact"
    assert given[1] == limit


CONSTRAINED = """
upper { var x in [0, 2] start 1; minimize (y[1] - 0.3)^2 + 0.1 * x^2; }
dim n = 2;
lower L { var y[n] in [0, 1]; minimize x * y[1] - entropy(y); subject to one: sum(y) == 1; }
"""


def test_a_global_search_ends_where_a_local_method_takes_the_model() -> None:
    decision = bl.dispatch(bl.analyze(bl.parse(CONSTRAINED)))
    assert decision.chosen == "exact"
    assert solving._following(decision) == "kkt"
    whole = CONSTRAINED.replace("in [0, 2] start 1", "in binary")
    assert solving._following(bl.dispatch(bl.analyze(bl.parse(whole)))) is None


# Entropic transport whose costs the leader learns.
TRANSPORT = """
model transport; dim n = 3;
param a[n] = [0.2, 0.3, 0.5], b[n] = [0.4, 0.35, 0.25];
param T[n, n] = [[0.07, 0.13, 0.02], [0.02, 0.2, 0.15], [0.25, 0.1, 0.06]];
upper { var C[n, n] in [0, 3] start 1; minimize sum((P - T)^2) + 0.001 * sumsq(C); }
lower move {
  var P[n, n] in [0, 1] start 0.1;
  minimize sum(C * P) - 0.2 * sum(entropy(P));
  subject to
    rows[i in n]: sum(P[i, j] for j in n) == a[i];
    columns[j in n]: sum(P[i, j] for i in n) == b[j];
}
"""


def test_a_local_method_follows_on_entropic_transport(monkeypatch) -> None:
    monkeypatch.setattr(solving, "ALONE", 0.2)
    result = bl.solve(bl.parse(TRANSPORT), progress=False)
    assert (result.status, result.backend) == ("converged", "kkt")
    assert "went on with `kkt`" in " ".join(result.decision.notes)
    assert "failed" not in " ".join(result.decision.notes)
    # Plans of the follower by Sinkhorn's scaling at the answer.
    scaled = np.exp(-result["C"] / 0.2)
    a, b = np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.35, 0.25])
    for _ in range(2000):
        scaled *= (a / scaled.sum(1))[:, None]
        scaled *= b / scaled.sum(0)
    assert np.abs(scaled - result["P"]).max() < 1e-5


def test_entropic_transport_is_proved_where_there_is_time() -> None:
    """Its conditions have logarithms, which SCIP takes as variables of their own."""
    exact, local = (
        bl.solve(bl.parse(TRANSPORT), progress=False, backend=b) for b in ("exact", "kkt")
    )
    assert exact.certificate.kind == "global"
    assert pytest.approx(local.F, rel=1e-6) == exact.F
