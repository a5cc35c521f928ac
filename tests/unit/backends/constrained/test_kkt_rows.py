"""``kkt`` where the upper level has rows: derivatives along responses, ends, certificates."""

from __future__ import annotations

from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.numerics.certificate.coupled import examine_rows
from bilevelpy.numerics.rows.response import constrained_lower
from bilevelpy.numerics.rows.sample import RowsSampler
from bilevelpy.options import SolveOptions
from tests.unit.backends.constrained.coupled import model, oracle

COUPLED = """
model coupled;
dim n;
dim m;
dim p;
dim k;
param Q[m, m], B[m, n], A[p, m], D[p, n], a[p], t[m], G[k, m], h[k];
upper {
  var x[n] in [-3, 3] start 0;
  minimize sumsq(y - t) + 0.1 * sumsq(x);
  subject to budget: sum(x) <= 1; couple: G @ y + sumsq(x) / 10 <= h;
}
lower f {
  var y[m];
  minimize dot(y, Q @ y) / 2 - dot(B @ x, y);
  subject to rows: A @ y <= a + D @ x; moving: exp(x[1]) * y[1] + y[2] <= 1;
}
"""
# y = min(x, 1): on the row x + y <= 2.5 the leader stops at x = 1.5.
CAPPED = """
model capped;
upper { var x in [-5, 5] start 0; minimize (x - 3)^2 + (y - 2)^2; subject to sum: x + y <= 2.5; }
lower f { var y; minimize (y - x)^2; subject to cap: y <= 1; }
"""
# A lower level without rows, and one row of the leader that reads its response.
GROUPS = """
model groups;
dim n;
dim p;
dim v;
param X[n, p], s[n], Xv[v, p], sv[v], top;
upper {
  var l[p] in [-8, 4] start -2;
  minimize mean(logistic(-sv * (Xv @ w)));
  subject to kept: mean(logistic(-s * (X @ w))) <= top; total: sum(l) >= -20;
}
lower fit { var w[p] in [-1, 1]; minimize mean(logistic(-s * (X @ w))) + sum(exp(l) * w^2) / 2; }
"""


def coupled(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    n, m, p, k = 3, 6, 4, 2
    L = draw.standard_normal((m, m))
    return {
        "Q": L @ L.T / m + 0.2 * np.eye(m),
        "B": draw.standard_normal((m, n)),
        "A": draw.standard_normal((p, m)),
        "D": 0.3 * draw.standard_normal((p, n)),
        "a": draw.uniform(0.2, 1, p),
        "t": draw.standard_normal(m),
        "G": draw.standard_normal((k, m)),
        "h": draw.uniform(0.1, 0.5, k),
    }


def groups(seed: int) -> dict[str, np.ndarray | float]:
    draw = np.random.default_rng(seed)
    n, p, v = 40, 4, 30
    w = draw.standard_normal(p)
    X, Xv = draw.standard_normal((n, p)), draw.standard_normal((v, p))
    s = np.sign(X @ w + draw.standard_normal(n))
    sv = np.sign(Xv @ (w + 0.5 * draw.standard_normal(p)) + draw.standard_normal(v))
    return {"X": X, "s": s, "Xv": Xv, "sv": sv, "top": 0.5}


@pytest.mark.parametrize(("text", "data"), [(COUPLED, coupled(0)), (GROUPS, groups(0))])
def test_derivatives_along_responses_agree_with_differences(text: str, data: dict) -> None:
    o = oracle(text, **data)
    draw = np.random.default_rng(2)
    x = o.domain_x.project(o.x0 + 0.2 * torch.from_numpy(draw.standard_normal(o.n)))
    d, h = torch.from_numpy(draw.standard_normal(o.n)), 1e-5
    at = RowsSampler(constrained_lower(o, 1e-10))
    here, up, down = at(o, x, o.y0), at(o, x + h * d, o.y0), at(o, x - h * d, o.y0)
    assert float(here.slope @ d) == pytest.approx((up.F - down.F) / (2 * h), rel=1e-5)
    change = (up.rows - down.rows) / (2 * h)
    assert (here.slopes @ d).numpy() == pytest.approx(change.numpy(), rel=1e-5, abs=1e-8)


def test_a_closed_form() -> None:
    found = bl.solve(bl.parse(CAPPED), backend="kkt")
    assert found.success
    assert float(found["x"]) == pytest.approx(1.5, abs=1e-6)
    assert pytest.approx(3.25, abs=1e-6) == found.F


@pytest.mark.parametrize(
    ("text", "data"), [(COUPLED, coupled(1)), (COUPLED, coupled(2)), (GROUPS, groups(1))]
)
def test_ends_agree_with_nlp(text: str, data: dict) -> None:
    made = model(text, **data)
    found, other = (bl.solve(made, backend=b) for b in ("kkt", "nlp"))
    assert found.success
    assert found.certificate.upper_feasibility < 1e-7
    assert other.F + 1e-5 * abs(other.F) >= found.F


def test_no_point_of_a_grid_is_better() -> None:
    """Two upper variables; the follower by Clarabel at every point."""
    data = coupled(5)
    data |= {"B": data["B"][:, :2], "D": data["D"][:, :2]}
    found = bl.solve(model(COUPLED, **data), backend="kkt")
    assert found.success
    y, x = cp.Variable(6), cp.Parameter(2)
    e = cp.Parameter(nonneg=True)
    rows = [data["A"] @ y <= data["a"] + data["D"] @ x, e * y[0] + y[1] <= 1]
    L = np.linalg.cholesky(data["Q"])
    follower = cp.Problem(cp.Minimize(cp.sum_squares(L.T @ y) / 2 - (data["B"] @ x) @ y), rows)
    best = np.inf
    for a in np.linspace(-3, 3, 19):
        for b in np.linspace(-3, 3, 19):
            x.value, e.value = np.array([a, b]), np.exp(a)
            follower.solve(solver=cp.CLARABEL)
            fits = (data["G"] @ y.value + (a * a + b * b) / 10 <= data["h"]).all() and a + b <= 1
            if fits:
                best = min(best, np.sum((y.value - data["t"]) ** 2) + 0.1 * (a * a + b * b))
    assert np.isfinite(best)
    assert best + 1e-6 >= found.F


def test_certificates_refuse_points_that_could_fall_or_break_rows() -> None:
    made = bl.parse(CAPPED)
    o, facts = oracle(CAPPED), bl.analyze(made)

    def judged(x: float, y: float) -> bl.Certificate:
        at = (torch.tensor([v], dtype=torch.float64) for v in (x, y))
        rng = torch.Generator().manual_seed(0)
        return examine_rows(o, *at, facts, SolveOptions(), rng)[0]

    assert judged(1.5, 1.0).kind == "local"
    assert any("falls" in r for r in judged(1.2, 1.0).reasons)
    assert any("`sum` is violated" in r for r in judged(1.6, 1.0).reasons)
    assert judged(1.5, 0.9).kind == "none"


def test_rows_that_no_x_meets() -> None:
    text = CAPPED.replace("x + y <= 2.5", "x <= -20")
    found = bl.solve(bl.parse(text), backend="kkt")
    assert found.status is bl.Status.INFEASIBLE
    text = CAPPED.replace("x + y <= 2.5", "y - x >= 1")
    found = bl.solve(bl.parse(text), backend="kkt")
    assert not found.success
    assert "no x was found at which the best response meets" in found.message


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    made, path = model(COUPLED, **coupled(1)), tmp_path / "run.json"
    whole = bl.solve(made, backend="kkt")
    bl.solve(made, backend="kkt", max_iter=4, checkpoint=path)
    resumed = bl.solve(made, backend="kkt", checkpoint=path, resume=True)
    assert resumed.success
    assert pytest.approx(whole.F, rel=1e-6) == resumed.F
