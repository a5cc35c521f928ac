"""Shadow prices of rows beside semidefinite matrices, against slopes of the optimal value."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.errors import BackendError

C = np.array([[1.0, 2.0, 0.2], [2.0, 0.5, -0.4], [0.2, -0.4, 0.8]])

SHARP = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)
QUADRATIC = """dim n; param C[n, n];
upper { var t in [0.5, 3]; minimize (Y[1, 1] - 0.5)^2 + 0.1*t; }
lower f {
  var Y[n, n] in psd;
  minimize sum((Y - C)^2);
  subject to
    total: trace(Y) == t;
    most[i in n]: Y[i, i] <= 0.4*t;
    least: Y[1, 3] >= 0.3;
    wide: -1 <= Y[2, 3] <= 1;
}
report price = dual(f.total);
report each = dual(f.most);
"""
LOGDET = """dim n; param C[n, n];
upper { var t in [0.5, 3]; minimize (Y[1, 1] - 0.5)^2 + 0.1*t; }
lower f {
  var Y[n, n] in psd;
  maximize logdet(Y) - sum((C + 2*eye(n)) * Y);
  subject to
    total: trace(Y) >= t + 2;
    least: Y[1, 3] >= 0.3;
  assume unique;
}
report price = dual(f.total);
"""


def quadratic(t: float, e: dict[str, float]) -> float:
    Y = cp.Variable((3, 3), PSD=True)
    rows = [cp.trace(Y) == t + e.get("total", 0.0), Y[0, 2] >= 0.3 + e.get("least", 0.0)]
    rows += [Y[i, i] <= 0.4 * t + e.get(f"most{i}", 0.0) for i in range(3)]
    rows += [Y[1, 2] <= 1, Y[1, 2] >= -1]
    value: float = cp.Problem(cp.Minimize(cp.sum_squares(Y - C)), rows).solve(
        solver="CLARABEL", **SHARP
    )
    return value


def logdet(t: float, e: dict[str, float]) -> float:
    Y = cp.Variable((3, 3), PSD=True)
    rows = [cp.trace(Y) >= t + 2 + e.get("total", 0.0), Y[0, 2] >= 0.3 + e.get("least", 0.0)]
    f = cp.log_det(Y) - cp.trace((C + 2 * np.eye(3)) @ Y)
    value: float = cp.Problem(cp.Maximize(f), rows).solve(solver="CLARABEL", **SHARP)
    return value


@pytest.mark.parametrize(("text", "value"), [(QUADRATIC, quadratic), (LOGDET, logdet)])
def test_prices(text: str, value: object) -> None:
    assert callable(value)
    result = bl.solve(bl.parse(text, C=C))
    assert result.backend == "conic"
    assert result.success
    t = float(result["t"])

    def slope(name: str) -> float:
        return float(value(t, {name: 1e-3}) - value(t, {name: -1e-3})) / 2e-3

    assert result.reports["price"] == pytest.approx(slope("total"), abs=1e-3)
    assert result.dual("f.least") == pytest.approx(slope("least"), abs=1e-3)
    if "each" in result.reports:
        each = [slope(f"most{i}") for i in range(3)]
        assert max(abs(p) for p in each) > 1e-2  # one of them is tight
        assert result.reports["each"] == pytest.approx(each, abs=1e-3)
        assert result.dual("f.wide") == pytest.approx(0.0, abs=1e-6)


def test_a_leader_who_reads_them_is_refused() -> None:
    text = QUADRATIC.replace("0.1*t;", "0.1*dual(f.total);")
    with pytest.raises(BackendError, match=r"shadow price of `f\.total` is read"):
        bl.solve(bl.parse(text, C=C))
