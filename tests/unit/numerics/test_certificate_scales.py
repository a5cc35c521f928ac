"""Certificates of points that no scale is known of: hardly off a start at 0, and on plateaus."""

from __future__ import annotations

import math

import pytest
import torch

import bilevelpy as bl
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.certificate.coupled import examine_rows
from bilevelpy.numerics.certificate.examine import certify
from bilevelpy.options import SolveOptions

# F(x, y(x)) = (x - 3)^2 + x^2 + c near 0, with and without a row below.
QUADRATIC = """
model quadratic;
param c;
upper { var x start 0; minimize (x - 3)^2 + y^2 + c; }
lower follower { var y; minimize (y - x)^2; %s }
"""
# Toy of BLOCC, min over all x: F falls at 0 on either side of the kink of the response.
KINK = """
model kink;
upper { var x start 0; minimize exp(2 - y) / (2 + cos(6 * x)) + log((4 * x - 2)^2 + 1) / 2; }
lower follower { var y; minimize (y - 2 * x)^2; subject to cap: y <= x; }
"""
# y = clip((x - 1)^3, -1, 1), F = y^2: flat beyond 2, 0 at 1.
CLIPPED = """
model clipped;
upper { var x in [-9, 9] start 0; minimize y^2; }
lower follower { var y; minimize (y - (x - 1)^3)^2; subject to cap: -1 <= y <= 1; }
"""


def judged(model: bl.Model, x: float, y: float) -> tuple[bl.Certificate, torch.Tensor | None]:
    o, facts = TorchOracle(model.bound), bl.analyze(model)
    at = [torch.tensor([v], dtype=torch.float64) for v in (x, y)]
    rng = torch.Generator().manual_seed(0)
    if o.g.size:
        return examine_rows(o, *at, facts, SolveOptions(), rng)
    return certify(o, *at, facts, SolveOptions(), rng), None


@pytest.mark.parametrize("row", ["", "subject to cap: y <= 100;"])
@pytest.mark.parametrize("c", [0.0, 1e6])
@pytest.mark.parametrize("x", [0.0, 1e-8, -1e-12])
def test_hardly_off_the_start(row: str, c: float, x: float) -> None:
    model = bl.parse(QUADRATIC % row, data={"c": c})
    assert judged(model, x, x)[0].kind == "none"
    assert judged(model, 1.5, 1.5)[0].kind == "local"


@pytest.mark.parametrize("x", [5.6e-8, 1e-8, -1e-8])
def test_hardly_off_a_start_at_a_kink(x: float) -> None:
    assert judged(bl.parse(KINK), x, min(x, 2 * x))[0].kind == "none"


def test_small_units_are_scales() -> None:
    text = "model nano; upper { var x start 0; minimize 1e18 * ((x - 3e-9)^2 + y^2); }"
    text += "lower follower { var y; minimize (y - x)^2; subject to cap: y <= 1; }"
    assert judged(bl.parse(text), 1.5e-9, 1.5e-9)[0].kind == "local"
    assert judged(bl.parse(text), 1.4e-9, 1.4e-9)[0].kind == "none"


def test_rows_below_may_leave_a_plateau() -> None:
    found, place = judged(bl.parse(CLIPPED), 4.0, 1.0)
    assert found.kind == "none"
    assert "plateau" in found.reasons[0]
    assert place is not None
    assert abs(float(place[0]) - 1.0) < 1.0
    flat = CLIPPED.replace("minimize y^2", "minimize -y^2")
    assert judged(bl.parse(flat), 4.0, 1.0)[0].kind == "local"  # nothing is lower


# Drivers leave the road beyond a toll of 4.
TOLL = """
model toll;
upper { var t in [0, 9] start 9; maximize t * a; %s }
lower way {
  var a in [0, inf], b in [0, inf];
  minimize (1 + t) * a + 5 * b;
  subject to all: a + b == 1;
}
"""


@pytest.mark.parametrize("row", ["", "subject to cap: t + a <= 20;"])
def test_a_toll_that_nobody_pays_is_no_optimum(row: str) -> None:
    model = bl.parse(TOLL % row)
    o, facts = TorchOracle(model.bound), bl.analyze(model)
    x, y = torch.tensor([9.0], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    found = examine_rows(o, x, y, facts, SolveOptions(), torch.Generator().manual_seed(0))[0]
    assert found.kind == "none"
    assert "(a plateau), and F(x, y(x)) is higher" in found.reasons[0]


def test_a_row_above_beside_the_start() -> None:
    text = "model above; upper { var x start 1.5e-11; minimize (x - 3)^2 + y; "
    text += "subject to r: y <= 2; }"
    text += "lower follower { var y; minimize (y - x^2)^2; subject to q: y >= x; }"
    assert judged(bl.parse(text), 0.0, 0.0)[0].kind == "none"


def test_a_start_at_a_bound_where_the_response_begins_to_move() -> None:
    text = "model agent; upper { var b in [0, 1]; maximize 2 * e - e^2 / 2 - b^2 / 2; }"
    text += "lower effort { var e in [0, 0.4]; maximize b * e - e^2 / 2; }"
    found = bl.solve(bl.parse(text), backend="direct")
    assert found.success
    assert abs(found.F - 0.64) < 1e-8


# F at (2.7190830, 5.1629226) is 0.1054581; at a distance of 9e4 it is 8e9.
FAR = """
model far;
upper { var x start %r; minimize %r * ((x - 3)^2 + (y - 5)^2); }
lower follower { var y; minimize (y - 2 * x)^2 + 0.001 * y^4; }
"""


@pytest.mark.parametrize("start", [9e4, -1e6])
@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_what_is_left_of_F_counts_beside_the_fall_from_a_far_start(
    start: float, factor: float
) -> None:
    model = bl.parse(FAR % (start, factor))
    found = bl.solve(model)
    assert found.success
    assert abs(found.F / factor - 0.105458147860435) < 1e-6
    certificate, _ = judged(model, 2.7237000935611873, 5.170881903183215)  # F = 0.10554
    assert certificate.kind == "none"
    assert "not locally optimal" in certificate.reasons[0]


def test_a_run_from_far_to_an_optimum_at_0_ends() -> None:
    """There F is all that is left of itself, at every point."""
    text = FAR.replace("(x - 3)^2 + (y - 5)^2", "x^2 + y^2") % (1e5, 1.0)
    found = bl.solve(bl.parse(text))
    assert found.success
    assert found.F < 1e-3


def test_derivatives_that_overflow_are_named() -> None:
    """The message said that the upper objective was not finite, and gave its finite value."""
    text = "model large; param a[2]; upper { var x in [-5, 5] start 0; minimize (sum(y) - 1)^2; } "
    text += "lower fit { var y[2]; minimize mean(logistic(-a * y)) + exp(x) * sumsq(y); }"
    found = bl.solve(bl.parse(text, data={"a": [1e200, 1.0]}))
    assert found.status == "diverged"
    assert "both objectives are finite at the start" in found.message


# y = t / (1 + exp(x)): one weight with data and a penalty.
SHRUNK = """
model shrunk;
param t;
upper { var x in [-20, 40] start 0; minimize (y + 1)^2; }
lower fit { var y; minimize (y - t)^2 / 2 + exp(x) * y^2 / 2; }
"""


@pytest.mark.parametrize(("t", "kind"), [(1.0, "local"), (-1.0, "none")])
def test_a_slope_that_fades_towards_a_bound(t: float, kind: str) -> None:
    """F falls to 1 as x grows, or is 0 where nothing is penalised: both are flat at 33."""
    x = 33.0
    y = t / (1.0 + math.exp(x))
    found, _ = judged(bl.parse(SHRUNK, data={"t": t}), x, y)
    assert found.kind == kind
    found, _ = judged(bl.parse(SHRUNK, data={"t": t}), 10.0, t / (1.0 + math.exp(10.0)))
    assert found.kind == "none"


def test_a_penalty_without_a_best_value_ends_certified() -> None:
    result = bl.solve(bl.parse(SHRUNK, data={"t": 1.0}), progress=False, time_limit=20)
    assert result.success
    assert pytest.approx(1.0, abs=1e-6) == result.F
