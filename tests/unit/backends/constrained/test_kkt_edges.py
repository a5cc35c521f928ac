"""``kkt`` where the lower rows cannot be met at every x: edges, starts, rows that they imply."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import bilevelpy as bl
from bilevelpy.numerics.certificate.coupled import examine_rows
from bilevelpy.numerics.lower.response import Accuracy
from bilevelpy.numerics.rows.feasibility_cuts import cut_at
from bilevelpy.numerics.rows.response import constrained_lower
from bilevelpy.options import SolveOptions
from tests.unit.backends.constrained.coupled import model, oracle

# Rows can be met up to x = 1, where F = 1 + 1.
LINE = """
model line;
upper { var x in [-3, 3] start START; minimize (x - 2)^2 + y^2; }
lower f { var y; minimize (y - x)^2; subject to low: y >= x; high: y <= HIGH; }
"""
# The edge is x_1 + x_2 = 1; y is 1 along it, and so is z: the best point is (1, 0) with F = 3.
PLANE = """
model plane;
upper { var x[2] in [-3, 3] start 0; minimize (x[1] - 2)^2 + (x[2] - 1)^2 + z^2; }
lower f {
  var y; var z;
  minimize (y - x[1])^2 + (z - y)^2;
  subject to low: y >= x[1] + x[2]; high: y <= 1;
}
"""
ROWS = """
model rows;
dim n;
dim m;
param A[m, n], b[m], B[m, n], t[n], c[n];
upper { var x[n] in [-2, 2] start 0; minimize sumsq(x - t) + 0.1 * sumsq(y); }
lower f {
  var y[n] in [-1, 1];
  minimize sumsq(y - c) / 2 + dot(x, y);
  subject to rows: A @ y <= b + B @ x;
}
"""


def data(seed: int, n: int = 4, m: int = 6) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        "A": draw.standard_normal((m, n)),
        "b": draw.uniform(0.1, 0.5, m),
        "B": 2 * draw.standard_normal((m, n)),
        "t": 2 * draw.standard_normal(n),
        "c": draw.standard_normal(n),
    }


@pytest.mark.parametrize("start", ["0", "2.5"])
def test_an_optimum_at_the_edge(start: str) -> None:
    text = LINE.replace("START", start).replace("HIGH", "1")
    found = bl.solve(bl.parse(text), backend="kkt")
    assert found.success
    assert float(found["x"]) == pytest.approx(1.0, abs=1e-7)


def test_an_edge_in_the_plane() -> None:
    found = bl.solve(bl.parse(PLANE), backend="kkt")
    assert found.success
    assert found["x"] == pytest.approx(np.array([1.0, 0.0]), abs=1e-5)
    assert pytest.approx(3.0, abs=1e-6) == found.F


def test_points_on_the_edge_are_not_optima_by_that() -> None:
    o, facts = oracle(PLANE), bl.analyze(bl.parse(PLANE))
    for x, kind in (((1.0, 0.0), "local"), ((0.7, 0.3), "none"), ((1.3, -0.3), "none")):
        at = torch.tensor(x, dtype=torch.float64), torch.tensor([1.0, 1.0], dtype=torch.float64)
        rng = torch.Generator().manual_seed(0)
        assert examine_rows(o, *at, facts, SolveOptions(), rng)[0].kind == kind


@pytest.mark.parametrize("seed", range(4))
def test_ends_agree_with_nlp(seed: int) -> None:
    made = model(ROWS, **data(seed))
    found, other = (bl.solve(made, backend=b) for b in ("kkt", "nlp"))
    assert found.success
    assert other.F + 1e-3 * abs(other.F) >= found.F


def test_rows_that_no_x_leaves_open() -> None:
    text = LINE.replace("START", "0").replace("HIGH", "-4")
    found = bl.solve(bl.parse(text), backend="kkt")
    assert found.status is bl.Status.INFEASIBLE
    assert "no feasible point at any x" in found.message


@pytest.mark.parametrize("seed", range(3))
def test_implied_rows_hold_wherever_rows_can_be_met(seed: int) -> None:
    """Against linear programs for the follower's feasible set."""
    d = data(seed)
    o, draw = oracle(ROWS, **d), np.random.default_rng(seed)
    points = [torch.from_numpy(draw.uniform(-2, 2, 4)) for _ in range(60)]

    def can_be_met(x: torch.Tensor) -> bool:
        right = d["b"] + d["B"] @ x.numpy()
        return linprog(np.zeros(4), A_ub=d["A"], b_ub=right, bounds=(-1, 1)).status == 0

    met = [can_be_met(x) for x in points]
    assert any(met)
    cuts = [cut_at(o, x) for x in points]
    assert [cut is None for cut in cuts] == met
    for cut in cuts:
        if cut is not None:
            inside = [cut.value(o, x) for x, meets in zip(points, met, strict=True) if meets]
            assert max(inside) <= 1e-9


INVERSE = """
model inverse;
dim n;
dim m;
param Q[m, m], B[m, n], t[m], A[3, m], xs[n];
upper { var x[n] in [-3, 3] start xs; minimize sumsq(y - t); ROWS }
lower f {
  var y[m];
  minimize dot(y, Q @ y) / 2 - dot(B @ x, y) + sum(exp(y));
  subject to r: A @ y <= 1; s: sum(y) == 1;
}
"""


@pytest.mark.parametrize("rows", ["", "subject to b: sum(x) <= 3;"])
@pytest.mark.parametrize("seed", range(3))
def test_a_start_at_the_optimum_is_an_answer(rows: str, seed: int) -> None:
    """F is 0 there but for rounding, as its derivatives are: they are no scale of themselves."""
    draw = np.random.default_rng(seed)
    L = draw.standard_normal((6, 6))
    data = {
        "Q": L @ L.T / 6 + 0.2 * np.eye(6), "B": draw.standard_normal((6, 3)),
        "A": draw.standard_normal((3, 6)), "xs": draw.uniform(-0.5, 0.5, 3), "t": np.zeros(6),
    }  # fmt: skip
    text = INVERSE.replace("ROWS", rows)
    o = oracle(text, **data)
    y = constrained_lower(o, 1e-12).respond(o.x0, o.y0, Accuracy(change=1.0)).y.numpy()
    for off in (0.0, 1e-12):
        data["t"] = y + off * draw.standard_normal(6)
        found = bl.solve(model(text, **data), backend="kkt")
        assert found.success
        assert found.F < 1e-20


NEARLY_LINEAR = """
model nearly_linear;
dim n;
dim m;
dim r;
param c[m], B[m, n], A[r, m], a[r], t[m], w[n];
upper {
  var x[n] in [-2, 2] start w;
  minimize sumsq(y - t) + 0.05 * sumsq(x);
  subject to b: sum(x) <= 2;
}
lower f {
  var y[m] in [0, 2];
  minimize dot(c + B @ x, y) + sumsq(y) / 2000;
  subject to s: A @ y <= a;
}
"""


@pytest.mark.parametrize("seed", [5, 11])
def test_differences_that_cross_several_kinks_are_taken_over_shorter_ways(seed: int) -> None:
    """Responses of a follower with next to no curvature jump, nearly, within the probes."""
    draw = np.random.default_rng(seed)
    data = {
        "c": draw.standard_normal(10), "B": draw.standard_normal((10, 4)),
        "A": draw.uniform(0, 1, (6, 10)), "a": draw.uniform(1, 3, 6),
        "t": draw.uniform(0, 1.5, 10), "w": draw.uniform(-1, 1, 4),
    }  # fmt: skip
    found = bl.solve(model(NEARLY_LINEAR, **data), backend="kkt")
    assert found.success
    assert found.certificate.kind == "local"
