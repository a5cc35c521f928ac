"""Absolute values and maxima in both levels: further variables in every format of rows.

The optima are known from pieces: between kinks F(x, y(x)) is a polynomial.
"""

from __future__ import annotations

import pytest

import bilevelpy as bl
from bilevelpy.exporters.verify import verify

# The follower stays at x within [1, 2] and at 1 below; |x - 1| pulls the leader down, y up.
LINEAR = """model linear;
upper { var x in integers(-5, 5); minimize 2*abs(x - 1) + max(y - 2, 3 - y, x);
  subject to near: abs(x - y) <= 3; }
lower f {
  var y in [-10, 10], z in [0, 4];
  minimize abs(y - x) + 2*max(y - 3, z, 1 - y) - z;
  subject to room: abs(y - z) + z <= 6; }"""
# y follows x: (x - 1)^2 + |x - 2| is least at 1.5.
QUADRATIC = """model quadratic;
upper { var x in [-5, 5]; minimize (x - 1)^2 + abs(y - 2); }
lower f { var y in [-10, 10]; minimize abs(y - x) + 2*max(y - 3, 0, 1 - y); }"""


def passed(text: str, to: str, tmp_path, **options: object) -> float:
    model = bl.parse(text)
    suffix = {"lp": "lp", "mps": "mps", "ampl": "mod", "casadi": "py", "mps-aux": "mps"}[to]
    path = tmp_path / f"m.{suffix}"
    bl.export(model, to=to, path=path, options=options)
    report = verify(model.bound, to, path)
    assert report.passed, report.message
    return float("nan") if report.F is None else report.F


@pytest.mark.parametrize("form", ["sos1", "indicators"])
def test_kinks_of_both_levels_in_matrices(form: str, tmp_path) -> None:
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    assert passed(LINEAR, "lp", tmp_path, reformulation=form) == pytest.approx(2.0, abs=1e-5)
    assert passed(QUADRATIC, "mps", tmp_path, reformulation=form) == pytest.approx(0.75, abs=1e-5)
    assert "kink.1 and so on" in (tmp_path / "m.lp").read_text()


def test_constants_for_kinks_follow_from_bounds(tmp_path) -> None:
    pytest.importorskip("swiglpk", reason="needs GLPK (pip install swiglpk)")
    options = {"reformulation": "big-m", "dual_bound": 9}
    assert passed(LINEAR, "ampl", tmp_path, **options) == pytest.approx(2.0, abs=1e-6)


def test_kinks_of_both_levels_for_mibs(tmp_path) -> None:
    pytest.importorskip("highspy", reason="needs HiGHS (pip install highspy)")
    pytest.importorskip("pyscipopt", reason="needs SCIP (pip install pyscipopt)")
    passed(LINEAR, "mps-aux", tmp_path, force=True)
    again = bl.solve(bl.read(tmp_path / "m.mps"), time_limit=20, progress=False)
    assert pytest.approx(2.0, abs=1e-6) == again.F


def test_what_the_leader_wants_large_is_refused(tmp_path) -> None:
    text = "upper { var x in [-1, 2]; maximize abs(x) + y; } lower f { var y in [0, 1]; "
    text += "minimize (y - x)^2; }"
    with pytest.raises(bl.ExportError, match="BLV0701"):
        passed(text, "lp", tmp_path)


def test_casadi_comes_to_small_products_from_larger_ones(tmp_path) -> None:
    # From its start Ipopt does not reach a point with products below 1e-7 within 3,000 iterations.
    pytest.importorskip("casadi", reason="needs casadi (pip install casadi)")
    text = """upper { var p in [0.5, 5]; maximize p*y1 - y1; }
    lower f { var y1 in [0.001, 100], y2 in [0.001, 100]; maximize 0.4*log(y1) + 0.6*log(y2);
      subject to b: p*y1 + 2*y2 <= 10; }"""
    assert passed(text, "casadi", tmp_path) == pytest.approx(3.2, rel=1e-5)
