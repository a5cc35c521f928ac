"""The KKT system of lower levels with rows: responses, hypergradients, ends."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.backends.constrained.kkt import KKT, KKTOptions
from bilevelpy.numerics.lower.response import Accuracy
from bilevelpy.numerics.qp.rows import Held, Nothing, Rows, Sides, solve
from bilevelpy.numerics.qp.saddle import saddle
from bilevelpy.numerics.rows.response import ConstrainedLower
from tests.unit.backends.constrained.coupled import ACTIVE, QUADRATIC, model, oracle, quadratic_data

LOGISTIC = """
model monotone;
dim n;
dim p = 5;
set I = 1..4;
param X[n, p], s[n], Xv[n, p], sv[n];
upper { var lam[p] in [-6, 4] start -1; minimize mean(logistic(-sv * (Xv @ w))); }
lower fit {
  var w[p] in [-2, 2];
  minimize mean(logistic(-s * (X @ w))) + sum(exp(lam) * w^2) / 2;
  subject to
    rising[i in I]: w[i] <= w[i + 1];
    balance: sum(w) == 0;
}
"""
# The slope of the row moves with x: y = (1 + x) / (1 + x^2) on the row x y <= ..., else 1 + x.
PRODUCT = """
model product;
upper { var x in [0.1, 3] start 0.5; minimize (y - 1)^2 + (z - x)^2; }
lower f {
  var y start 0;
  var z in [0, inf] start 0;
  minimize (y - 1 - x)^2 + (z - 1)^2;
  subject to cap: exp(x) * y + z <= 2;
}
"""
SHARES = """
model shares;
dim n;
param c[n], t[n];
upper { var x[n] in [-1, 1] start 0; minimize sumsq(y - t) + 0.1 * sumsq(x); }
lower f {
  var y[n] in simplex;
  minimize sumsq(y) / 2 - dot(c + x, y);
  subject to pair: y[1] + y[2] <= 0.5;
}
"""
CAPS = """
model caps;
dim n;
param Q[n, n], t[n];
upper { var C in [0.05, 5] start 0.2; minimize sumsq(a - t) + 0.01 * C^2; }
lower f {
  var a[n] in [0, inf];
  minimize dot(a, Q @ a) / 2 - sum(a);
  subject to cap: a <= C;
}
"""
# Merely convex, with one response: slack variables, epigraphs, a bias.
MACHINE = """
model machine;
dim n;
dim p;
dim v;
param X[n, p], s[n], Xv[v, p], sv[v];
upper { var c in [-4, 4] start 0; minimize mean(logistic(-sv * (Xv @ w + b))); }
lower fit {
  var w[p]; var b; var xi[n] in [0, inf];
  minimize sumsq(w) / 2 + exp(c) * sum(xi);
  subject to margin: s * (X @ w + b) >= 1 - xi;
}
"""
QUANTILES = """
model quantiles;
dim n;
dim p;
dim v;
param X[n, p], s[n], Xv[v, p], sv[v];
upper { var l[p] in [-6, 4] start -1; minimize sumsq(Xv @ w - sv); }
lower fit {
  var w[p]; var u[n] in [0, inf]; var d[n] in [0, inf];
  minimize sum(exp(l) * w^2) / 2 + 0.7 * sum(u) + 0.3 * sum(d);
  subject to balance: X @ w + u - d == s;
}
"""
LASSO = """
model lasso;
dim n;
dim p;
dim v;
param X[n, p], s[n], Xv[v, p], sv[v];
upper { var l[2] in [-6, 2] start -2; minimize mean(logistic(-sv * (Xv @ w + b))); }
lower fit {
  var w[p]; var b; var a[p];
  minimize mean(logistic(-s * (X @ w + b))) + exp(l[1]) * sum(a) + exp(l[2]) * sumsq(w);
  subject to up: w <= a; down: -w <= a;
}
"""


def machine(seed: int = 0, n: int = 12, p: int = 3) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    w, X, Xv = (draw.standard_normal(shape) for shape in (p, (n, p), (20, p)))
    s, sv = (np.sign(A @ w + 0.3 + draw.standard_normal(len(A))) for A in (X, Xv))
    return {"X": X, "s": s, "Xv": Xv, "sv": sv}


def fit() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    X, Xv = draw.standard_normal((2, 40, 5))
    w = np.array([-1.0, -1.0, 0.0, 0.5, 1.5])
    s, sv = (np.sign(A @ w + 0.5 * draw.standard_normal(40)) for A in (X, Xv))
    return {"X": X, "s": s, "Xv": Xv, "sv": sv}


def shares() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(1)
    return {"c": draw.uniform(0, 0.5, 5), "t": np.array([0.4, 0.4, 0.1, 0.1, 0.0])}


CASES = [
    (QUADRATIC, quadratic_data(0)),
    (QUADRATIC, quadratic_data(1)),
    (LOGISTIC, fit()),
    (PRODUCT, {}),
    (SHARES, shares()),
    (CAPS, {"Q": np.diag([1.0, 2.0, 4.0, 20.0]) + 0.1, "t": np.array([1.0, 0.5, 0.1, 0.0])}),
    (MACHINE, machine()),
    (QUANTILES, machine(1, 14, 4)),
    (LASSO, machine(2, 20, 6)),
]


@pytest.mark.parametrize(("text", "data"), CASES)
def test_hypergradients_agree_with_differences(text: str, data: dict[str, np.ndarray]) -> None:
    o = oracle(text, **data)
    draw = np.random.default_rng(2)
    x = o.domain_x.project(o.x0 + 0.1 * torch.from_numpy(draw.standard_normal(o.n)))
    state = KKT().init(o, x, o.y0, KKTOptions(), torch.Generator()).inner
    direction = torch.from_numpy(draw.standard_normal(o.n))
    response, h = state.response, 1e-5
    up, down = (response.evaluate(x + t * direction, None, o.y0).F for t in (h, -h))
    slope = (up - down) / (2 * h)
    assert float(state.point.g @ direction) == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_a_row_that_pushes_little_holds_all_the_same() -> None:
    """One whose multiplier is 1e-10 of another one's: beside the kink, not on it."""
    o = oracle("""model little; upper { var C in [0, 2] start 1; minimize a; }
    lower f { var a; var b in [0, inf]; minimize (a - 1)^2 / 2 + (b + 1000)^2 / 2;
              subject to cap: a <= C; }""")
    for at, slope in ((1 - 1e-7, 1.0), (1 + 1e-7, 0.0)):
        x = torch.tensor([at], dtype=torch.float64)
        state = KKT().init(o, x, o.y0, KKTOptions(), torch.Generator()).inner
        assert float(state.point.g[0]) == pytest.approx(slope, abs=1e-9)


def test_responses_agree_with_clarabel() -> None:
    data = fit()
    o = oracle(LOGISTIC, **data)
    found = ConstrainedLower(o, 1e-10, False, False).respond(o.x0, o.y0, Accuracy(change=1.0))
    w = cp.Variable(5)
    loss = cp.sum(cp.logistic(-cp.multiply(data["s"], data["X"] @ w))) / 40
    rows = [w[:-1] <= w[1:], cp.sum(w) == 0, w >= -2, w <= 2]
    penalty = np.exp(-1.0) * cp.sum_squares(w) / 2
    cp.Problem(cp.Minimize(loss + penalty), rows).solve(solver=cp.CLARABEL)
    assert found.ended == "reached"
    assert found.residual < 1e-9
    assert np.allclose(found.y, w.value, atol=1e-5)


def test_the_toy_with_an_active_row() -> None:
    made = model(ACTIVE, w=6.0, q=0.0, x0=1.2)
    found = bl.solve(made, backend="kkt")
    assert found.success
    assert float(found["x"]) == pytest.approx(0.986225, abs=1e-5)
    assert pytest.approx(1.721879, abs=1e-5) == found.F


@pytest.mark.parametrize(
    ("text", "data"),
    [(QUADRATIC, quadratic_data(3)), (SHARES, shares()), (LASSO, machine(2, 20, 6))],
)
def test_ends_agree_with_nlp(text: str, data: dict[str, np.ndarray]) -> None:
    made = model(text, **data)
    found, other = (bl.solve(made, backend=b) for b in ("kkt", "nlp"))
    assert found.success
    assert other.success
    assert pytest.approx(other.F, rel=1e-5) == found.F


def test_rows_that_cannot_be_met_are_no_response() -> None:
    text = """model none; upper { var x start 1; minimize x^2 + y^2; }
    lower f { var y; minimize y^2; subject to low: y <= -1; high: y >= x; }"""
    for start in ("1", "-3"):  # x = -1 is the largest at which they can
        found = bl.solve(bl.parse(text.replace("start 1", f"start {start}")), backend="kkt")
        assert found.success
        assert float(found["x"]) == pytest.approx(-1.0, abs=1e-5)


SEVERAL = """
model several;
upper {{ var x in [-2, 2] start 0; minimize (x - 1)^2 + (y - 1)^2 + {weight} * z; }}
lower f {{
  var y; var z;
  minimize (y - x)^2;
  subject to floor: z >= -1; roof: z <= 1;
}}
"""


def test_several_responses_are_no_answer_where_the_leader_would_choose() -> None:
    found = bl.solve(bl.parse(SEVERAL.format(weight=0.5)), backend="kkt")
    assert not found.success
    assert "the best response is not unique, and F falls along others" in found.message
    chosen = bl.solve(bl.parse(SEVERAL.format(weight=0.5)), backend="nlp")
    assert pytest.approx(-0.5) == chosen.F
    same = bl.solve(bl.parse(SEVERAL.format(weight=0)), backend="kkt")
    assert same.success
    assert any("F does not change along others" in r for r in same.certificate.reasons)


def test_a_bias_that_is_open_is_no_answer() -> None:
    """Where all samples lie inside the margin, the bias is any of an interval."""
    text = MACHINE.replace("c in [-4, 4] start 0", "c in [-9, -8] start -8.5")
    data = machine(0, 13) | {"s": np.array([1.0, -1.0] * 6 + [1.0])}
    data["X"] = np.concatenate([data["X"][:12], np.zeros((1, 3))])
    even = {k: v[:12] if k in ("X", "s") else v for k, v in data.items()}
    found = bl.solve(bl.parse(text, **even), backend="kkt")
    assert "the best response is not unique" in found.message


def test_a_lower_level_without_end_at_the_start_says_nothing_about_other_points() -> None:
    text = """model u; upper { var x in [-2, 2] start -1; minimize (x - 1)^2 + (y - 1)^2; }
    lower f { var y in [0, inf]; var z; minimize x * y + (z - x)^2; subject to r: z <= 10 + y; }"""
    found = bl.solve(bl.parse(text), backend="kkt")
    assert found.status is bl.Status.DIVERGED
    assert "the lower objective falls for ever at the start" in found.message


def test_a_plateau_is_flat_whatever_rounding_says() -> None:
    """The response lies at a vertex for all x nearby: the hypergradient is rounding, or 0."""
    found = bl.solve(bl.parse(QUANTILES, **machine(1, 40, 8)), backend="kkt")
    assert found.success


def test_what_it_does_not_take() -> None:
    for text, reason in (
        ("var y; minimize y^2;", "is for lower levels with constraints"),
        ("var y; var z; minimize -y * z; subject to r: y + z <= 1;", "convex"),
        ("var y; minimize x * y; subject to r: y <= 1; s: y >= 0;", "jumps"),
        ("var y; minimize (y - x)^2; subject to r: y^2 <= 1;", "affine"),
    ):
        made = bl.parse(f"upper {{ var x in [0, 1]; minimize x + y; }} lower f {{ {text} }}")
        decision = bl.dispatch(bl.analyze(made))
        assert reason in decision.rejected["kkt"]


def test_single_precision_first() -> None:
    made = model(LOGISTIC, **fit())
    found, whole = (bl.solve(made, backend="kkt", dtype=d) for d in ("float32", "float64"))
    assert found.success
    assert abs(found.F - whole.F) < 1e-8
    with pytest.raises(bl.UsageError, match="`blocc` with constraints need float64"):
        bl.solve(made, backend="blocc", dtype="float32")


# --- quadratic programs ---------------------------------------------------------------------------


def program(seed: int) -> tuple[np.ndarray, np.ndarray, Rows]:
    draw = np.random.default_rng(seed)
    n, r = 8, 5
    A = draw.standard_normal((n, n))
    rows = draw.standard_normal((r, n))
    inside = draw.uniform(-0.5, 0.5, n)
    low, high = rows @ inside - 0.1, rows @ inside + 0.2
    low[0] = high[0] = rows[0] @ inside
    low[1], high[2] = -np.inf, np.inf
    floor, roof = np.full(n, -0.6), np.full(n, 0.6)
    floor[3], roof[4] = -np.inf, np.inf
    return (
        A @ A.T + 0.1 * np.eye(n),
        3 * draw.standard_normal(n),
        Rows(rows, low, high, floor, roof),
    )


@pytest.mark.parametrize("seed", range(5))
def test_programs_agree_with_clarabel(seed: int) -> None:
    H, c, rows = program(seed)
    y = cp.Variable(len(c))
    value = rows.A @ y
    finite = [
        e
        for k in range(len(rows.low))
        for e in (
            [value[k] >= rows.low[k]] if np.isfinite(rows.low[k]) else [],
            [value[k] <= rows.high[k]] if np.isfinite(rows.high[k]) else [],
        )
    ]
    constraints = [part for e in finite for part in e]
    constraints += [y[j] >= rows.floor[j] for j in np.flatnonzero(np.isfinite(rows.floor))]
    constraints += [y[j] <= rows.roof[j] for j in np.flatnonzero(np.isfinite(rows.roof))]
    cp.Problem(cp.Minimize(cp.quad_form(y, cp.psd_wrap(H)) / 2 + c @ y), constraints).solve(
        solver=cp.CLARABEL
    )
    cold = solve(H, c, rows, None)
    warm = solve(H, c, rows, Sides(np.zeros(len(rows.low)), np.zeros(len(c))))
    assert isinstance(cold, Held)
    assert isinstance(warm, Held)
    assert np.allclose(cold.y, y.value, atol=1e-6)
    assert np.allclose(warm.y, cold.y, atol=1e-9)


def test_rows_that_depend_on_one_another() -> None:
    H, c, rows = program(0)
    doubled = Rows(
        np.concatenate([rows.A, 2 * rows.A[:1]]),
        np.concatenate([rows.low, 2 * rows.low[:1]]),
        np.concatenate([rows.high, 2 * rows.high[:1]]),
        rows.floor,
        rows.roof,
    )
    once, twice = solve(H, c, rows, None), solve(H, c, doubled, None)
    assert isinstance(once, Held)
    assert isinstance(twice, Held)
    assert np.allclose(once.y, twice.y, atol=1e-7)


@pytest.mark.parametrize("kind", ["at most", "at least", "exactly"])
def test_vertices_that_a_row_and_a_bound_describe_alike(kind: str) -> None:
    """``y = e_j`` of ``sum(y) <= 1``, ``0 <= y <= 1``: from a set with both of them held, and from
    none, the exchanges end without an interior point. The least of ``sumsq(y) + c'y`` over a
    simplex is the projection of ``-c / 2``.
    """
    draw = np.random.default_rng(1)
    count, J = 20, 4
    c = draw.uniform(-12.0, 0.0, (count, J))
    A = np.kron(np.eye(count), np.ones((1, J)))
    one, none = np.ones(count), np.full(count, np.inf)
    low, high = {"at most": (-none, one), "at least": (-one, none), "exactly": (one, one)}[kind]
    A = -A if kind == "at least" else A
    m = count * J
    rows = Rows(A, low, high, np.zeros(m), np.ones(m))
    best = c.argmin(axis=1)
    held = np.where(np.arange(J) == best[:, None], 1.0, -1.0).ravel()
    side = {"at most": one, "at least": -one, "exactly": 0.0 * one}[kind]
    falling = np.sort(-c / 2, axis=1)[:, ::-1]
    level = (np.cumsum(falling, axis=1) - 1.0) / np.arange(1, J + 1)
    shift = np.take_along_axis(level, (falling > level).sum(axis=1)[:, None] - 1, 1)
    for guess in (Sides(side, held), Sides(0.0 * one, np.zeros(m))):
        before = rows.tally.systems
        found = solve(2.0 * np.eye(m), c.ravel(), rows, guess)
        assert isinstance(found, Held)
        assert np.allclose(found.y, np.maximum(-c / 2 - shift, 0.0).ravel(), atol=1e-12)
        assert rows.tally.systems - before <= 8


def test_more_rows_than_variables_are_told_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    """SuperLU lets BLAS write to standard output where it meets such a matrix."""
    draw = np.random.default_rng(0)
    A, ends = draw.standard_normal((800, 21)), draw.standard_normal(800)
    assert saddle(np.eye(21), A, np.arange(21), np.arange(800), np.zeros(21), ends) is None
    assert capfd.readouterr() == ("", "")


def test_an_empty_set_has_no_solution() -> None:
    rows = Rows(
        np.ones((1, 2)), np.array([3.0]), np.array([np.inf]), np.full(2, -1.0), np.full(2, 1.0)
    )
    assert solve(np.eye(2), np.zeros(2), rows, None) is Nothing.INFEASIBLE
