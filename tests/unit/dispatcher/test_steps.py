"""Models whose lower answer is what T steps reach: declared, chosen for, solved and certified."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends import registry

# Validation case 6.1; with T steps from y = 0 of length s: y_T = P x, P = A^-1 (I - (I - sA)^T).
TOY = """
model toy;
dim n;
param A[n, n];
upper { var x[n] start 2; minimize sumsq(x - 1)/2 + dot(y, A @ y)/2; }
lower L {
  var y[n];
  minimize dot(y, A @ y)/2 - dot(x, y);
  assume STEPS;
}
"""
# f has two valleys: which of them three steps from y = 0.1 are on the way to is all that counts.
WELLS = """
model wells;
upper { var x in [-1, 1] start 0.2; minimize (y - 0.3)^2 + 0.01*x^2; }
lower L { var y start 0.1; minimize y^4/4 - y^2/2 - x*y; assume steps(3, 0.1); }
"""


def toy(steps: str, kappa: float = 10.0, n: int = 6) -> bl.Model:
    A = np.diag(np.geomspace(1.0, kappa, n))
    return bl.parse(TOY.replace("STEPS", steps), data={"A": A})


@pytest.mark.parametrize("T", [1, 10, 60])
def test_the_answer_is_that_of_the_steps(T: int) -> None:
    result = bl.solve(toy(f"steps({T}, 2/11)"))
    assert (result.backend, result.status) == ("itd", "converged")
    assert result.decision.row == 14
    A = np.diag(np.geomspace(1.0, 10.0, 6))
    P = np.linalg.inv(A) @ (np.eye(6) - np.linalg.matrix_power(np.eye(6) - 2 / 11 * A, T))
    x = np.linalg.solve(np.eye(6) + P.T @ A @ P, np.ones(6))
    assert result["x"] == pytest.approx(x, abs=1e-6)
    assert result["y"] == pytest.approx(P @ x, abs=1e-6)
    assert f"{T}-step model" in result.certificate.reasons[0]
    assert result.certificate.details["steps"] == T
    assert result.certificate.directional_check < 1e-6


def test_no_convexity_is_asked_for() -> None:
    result = bl.solve(bl.parse(WELLS))
    assert (result.backend, result.status) == ("itd", "converged")
    x, y = float(result["x"]), 0.1
    for _ in range(3):
        y -= 0.1 * (y**3 - y - x)
    assert float(result["y"]) == pytest.approx(y, abs=1e-12)
    grid = np.linspace(-1, 1, 20001)
    path = np.full_like(grid, 0.1)
    for _ in range(3):
        path -= 0.1 * (path**3 - path - grid)
    lowest = np.min((path - 0.3) ** 2 + 0.01 * grid**2)
    assert float(result.F) == pytest.approx(lowest, abs=1e-7)


def test_bounds_below_stop_the_steps() -> None:
    result = bl.solve(
        bl.parse(
            "model m; upper { var x start 0.5; minimize (y - 2)^2 + 0.1*(x - 1)^2; }"
            "lower L { var y in [0, 1]; minimize (y - x)^2/2; assume steps(4, 0.5); }"
        )
    )
    # y_4 = (1 - 2^-4) x up to the bound: a kink at x = 16/15, beyond which only x pulls back.
    assert float(result["x"]) == pytest.approx(16 / 15, abs=1e-5)
    assert float(result["y"]) == pytest.approx(1.0, abs=1e-5)


def test_a_wrong_end_is_refuted() -> None:
    result = bl.solve(toy("steps(10, 2/11)"), options={"lower_steps": 11})
    assert not result.success
    assert "y is not where 10 steps" in result.message


def test_every_other_backend_refuses_and_names_the_line() -> None:
    decision = bl.dispatch(bl.analyze(toy("steps(10, 2/11)")))
    assert decision.ranked == ("itd",)
    assert set(decision.rejected) == set(registry.names()) - {"itd"}
    named = [decision.rejections[n] for n in ("direct", "aid", "pbgd", "saba", "exact", "nlp")]
    assert all(r.line == 9 for r in named)


@pytest.mark.parametrize(
    ("steps", "code", "said"),
    [
        ("steps(2.5, 1)", "BLV0504", "whole number from 1"),
        ("steps(0, 1)", "BLV0504", "whole number from 1"),
        ("steps(3, -1)", "BLV0504", "positive and finite"),
        ("steps(3)", "BLV0218", "`steps(T, s)`"),
        ("stps(3, 1)", "BLV0224", "did you mean `steps`"),
    ],
)
def test_wrong_steps(steps: str, code: str, said: str) -> None:
    with pytest.raises(bl.ModelError) as error:
        bl.analyze(toy(steps))
    assert code in str(error.value)
    assert said in str(error.value)


def test_steps_belong_to_a_follower_and_to_all_of_them() -> None:
    with pytest.raises(bl.ModelError, match="`upper` takes no steps"):
        bl.parse(
            "model m; upper { var x; minimize x^2 + y; assume steps(1, 1); }"
            "lower L { var y; minimize (y - x)^2; }"
        )
    two = bl.parse(
        "model m; upper { var x; minimize (x - 1)^2 + y + z; }"
        "lower L { var y; minimize (y - x)^2; assume steps(2, 0.1); }"
        "lower M { var z; minimize (z - x)^2; }"
    )
    with pytest.raises(bl.ModelError, match="all followers take the same steps"):
        bl.analyze(two)


@pytest.mark.parametrize("target", ["gams-emp", "mps-aux", "pyomo", "nl", "blvpy"])
def test_conditions_are_not_exported_for_steps(tmp_path, target: str) -> None:
    with pytest.raises(bl.ExportError, match="BLV0701"):
        bl.export(toy("steps(10, 2/11)"), to=target, path=tmp_path / "out.txt")
