"""The exact backend: known optima, certificates, infeasible and unbounded problems, refusals."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.certificate.status import end_of
from bilevelpy.backends.exact.engine.outcome import Outcome
from bilevelpy.backends.exact.engine.scip import Model

pytest.importorskip("pyscipopt")

BARD = """
upper {{ var x in [0, inf] start 1; minimize x - 4 * y; {upper} }}
lower fit {{
  var y in [0, inf];
  minimize y;
  subject to
    a: -x - y <= -3;
    b: -2 * x + y <= 0;
    c: 2 * x + y <= 12;
    d: 3 * x - 2 * y <= 4;
}}
"""


def bard(upper: str = "") -> str:
    return BARD.format(upper=upper)


def test_linear_follower_is_solved_to_the_global_optimum() -> None:
    result = bl.solve(bl.parse(bard()))
    assert result.backend == "exact"
    assert result.success
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    assert pytest.approx(-12, abs=1e-7) == result.F
    assert result["x"] == pytest.approx(4, abs=1e-7)
    assert result.certificate.details["bound"] == pytest.approx(-12, abs=1e-6)


def test_quadratic_follower() -> None:
    # Bard 1988: 17 at (1, 0); a local optimum with 25 at (5, 2), the high point is 2.
    text = """
    upper { var x in [0, 10] start 4; minimize (x - 5)^2 + (2 * y + 1)^2; }
    lower fit {
      var y in [0, inf];
      minimize (y - 1)^2 - 1.5 * x * y;
      subject to
        a: -3 * x + y + 3 <= 0;
        b: x - 0.5 * y - 4 <= 0;
        c: x + y - 7 <= 0;
    }
    """
    result = bl.solve(bl.parse(text))
    assert result.success
    assert pytest.approx(17, abs=1e-4) == result.F
    assert result["x"] == pytest.approx(1, abs=1e-4)


def test_equations_ranges_and_maximising_followers() -> None:
    text = """
    upper { var x in [0, 4]; maximize 2 * y[1] - x; }
    lower fit {
      dim k = 2;
      var y[k];
      maximize 3 * y[1] + y[2];
      subject to
        total: y[1] + y[2] == 5;
        range: 1 <= y[1] <= x + 1;
        second: 0 <= y[2] <= 5;
    }
    """.replace("dim k = 2;", "")
    result = bl.solve(bl.parse("dim k = 2;\n" + text))
    assert result.success
    assert result["x"] == pytest.approx(4, abs=1e-6)
    assert result["y"] == pytest.approx([5, 0], abs=1e-6)
    # One more unit of the total goes to y[2] at a gain of 1.
    assert result.dual("fit.total") == pytest.approx(1, abs=1e-6)
    assert result.dual("fit.range") == pytest.approx(2, abs=1e-6)


def test_a_family_of_independent_followers() -> None:
    text = """
    set I = 1..5;
    param a[I];
    upper { var x in [0, 10]; minimize sum((fit.y[i] - a[i])^2 for i in I); }
    lower fit[i in I] {
      var y in [0, inf];
      minimize 0.5 * y^2 - x * y;
      subject to
        cap: y <= a[i] + 1;
    }
    """
    a = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    result = bl.solve(bl.parse(text, a=a))
    grid = np.linspace(0, 10, 20001)
    best = (np.minimum(grid[:, None], a + 1) - a) ** 2
    assert result.success
    assert pytest.approx(best.sum(1).min(), abs=1e-5) == result.F


def test_infeasible_coupling_names_the_row_and_the_best_response() -> None:
    text = """
    upper { var x in [0, 5]; maximize x; subject to cap: y <= 0; }
    lower fit { var y in [-10, 2]; maximize y; }
    """
    result = bl.solve(bl.parse(text))
    assert result.status == "infeasible"
    assert not result.success
    assert "`cap` by 2" in result.message
    assert "y = 2" in result.message
    assert np.isnan(result.F)


@pytest.mark.parametrize(
    ("lower", "words"),
    [
        ("var y in [0, 1]; minimize y; subject to a: y >= 2 + x;", "no feasible point"),
        ("var y; minimize x + y; subject to a: y <= 2 + x;", "unbounded"),
    ],
)
def test_a_follower_without_solution_is_explained(lower: str, words: str) -> None:
    text = f"upper {{ var x in [0, 5]; minimize x; }} lower fit {{ {lower} }}"
    result = bl.solve(bl.parse(text))
    assert result.status == "infeasible"
    assert words in result.message


def test_an_unbounded_leader() -> None:
    text = """
    upper { var x; minimize x + y; }
    lower fit { var y in [0, 1]; minimize y; subject to a: y >= -1 - x^2 / 1e9 + x / 1e3; }
    """.replace("- x^2 / 1e9 ", "")
    result = bl.solve(bl.parse(text))
    assert result.status == "unbounded"
    assert -np.inf == result.F


def test_an_unbounded_relaxation_is_not_an_unbounded_problem() -> None:
    # The leader alone would let y grow without bound; no best response does.
    text = """
    upper { var x in [0, 1]; minimize x - y; }
    lower fit { var y in [0, inf]; minimize y; subject to a: y >= x; }
    """
    result = bl.solve(bl.parse(text))
    assert result.success
    assert pytest.approx(0, abs=1e-7) == result.F


def test_binary_leader_and_ties() -> None:
    text = """
    upper { var x in binary; maximize y[1]; }
    dim k = 2;
    lower fit {
      var y[k] in [0, 1];
      maximize y[1] + y[2];
      subject to
        one: y[1] + y[2] <= 1;
        off: y[1] <= x;
    }
    """
    result = bl.solve(bl.parse(text))
    assert result.success
    assert result["x"] == 1
    assert pytest.approx(1) == result.F
    assert result.certificate is not None
    details = result.certificate.details
    assert details["F_optimistic"] == pytest.approx(1, abs=1e-6)
    assert details["F_pessimistic"] == pytest.approx(0, abs=1e-6)
    assert any("not unique" in r for r in result.certificate.reasons)


def test_the_time_limit_keeps_the_best_point() -> None:
    rng = np.random.default_rng(0)
    n = 40
    text = """
    dim n; param A[n, n], c[n];
    upper { var x[n] in [0, 1]; minimize sum(c[i] * x[i] for i in n) + 5 * sum(y[j] for j in n)
        - sum(x[i] * y[i] for i in n); }
    lower fit {
      var y[n] in [0, 10];
      minimize sum(y[j] for j in n);
      subject to
        row[i in n]: sum(A[i, j] * y[j] for j in n) >= 1 - x[i];
    }
    """
    A = rng.random((n, n)) * (rng.random((n, n)) < 0.3) + np.eye(n)
    model = bl.parse(text, A=A, c=rng.random(n))
    result = bl.solve(model, time_limit=1.0)
    assert result.status in ("time_limit", "converged")
    assert result.time["solve"] < 4.0


def test_without_verification_nothing_is_converged() -> None:
    result = bl.solve(bl.parse(bard()), verify=False)
    assert result.status == "stalled"
    assert result.certificate is None


def test_the_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyscipopt", None)
    with pytest.raises(bl.BackendError, match="extra `exact`"):
        bl.solve(bl.parse(bard()), backend="exact")


def test_a_point_that_is_no_best_response_gets_no_certificate() -> None:
    from bilevelpy.numerics.certificate.constrained import Claim, examine_point, verdict
    from bilevelpy.reductions.rows import system

    made = system(bl.parse(bard()).bound)
    high_point = np.array([3.0, 6.0])  # rows hold, F = -21, and the follower would leave it
    claim = Claim(True, -21.0, 0.0)
    found = verdict(made, claim, examine_point(made, high_point))
    assert found.kind == "none"
    assert found.lower_gap == pytest.approx(3.5)
    assert "falls by" in found.reasons[0]


def test_a_violated_upper_row_gets_no_certificate() -> None:
    from bilevelpy.numerics.certificate.constrained import Claim, examine_point, verdict
    from bilevelpy.reductions.rows import system

    made = system(bl.parse(bard("subject to u: x + y <= 7;")).bound)
    seen = examine_point(made, np.array([4.0, 4.0]))
    found = verdict(made, Claim(True, -12.0, 0.0), seen)
    assert found.kind == "none"
    assert found.upper_feasibility == pytest.approx(1.0)
    assert any("`u`" in r for r in found.reasons)


LARGE = """
upper { var x in [0, 10] start 1; minimize 1e8 * ((y1 - 3)^2 + (y2 - 1)^2 + 0.1 * x^2); }
lower f {
  var y1 in [0, 4], y2 in [0, 4];
  minimize y1^2 + y2^2 - x * y1;
  subject to r: y1 + y2 >= 1.5;
}
"""


def test_a_large_objective_is_told_in_units() -> None:
    """Its row would have to hold to an absolute 1e-6. Here y1 = x / 2 and y2 = 0: F is least at
    x = 3 / 0.7 (in units of 1e8).
    """
    result = bl.solve(bl.parse(LARGE), backend="exact", time_limit=5)
    assert pytest.approx(1e8 * (10 - 9 * 0.25 / 0.35), rel=1e-6) == result.F
    assert result.certificate.kind == "global"


@pytest.mark.parametrize(
    ("objective", "best"),
    [("1e6 * x - 1e6 * y + (y - 3)^2", 0.0),
     ("1e8 * (y - 3)^2 + 1e3 * (x - 1)^2", 1e3 * 4 / (1 + 1e-5))],
)  # fmt: skip
def test_small_differences_of_large_terms(objective: str, best: float) -> None:
    """The follower answers y = x, where the large terms cancel."""
    text = f"""
    upper {{ var x in [0, 10] start 9; minimize {objective}; }}
    lower f {{ var y in [0, 9]; minimize (y - x)^2; }}
    """
    result = bl.solve(bl.parse(text), backend="exact", time_limit=5)
    assert pytest.approx(best, rel=1e-5, abs=1e-6) == result.F
    assert result.certificate.kind == "global"


def test_what_tolerances_hide_is_no_global_optimum() -> None:
    """The y that SCIP takes for x is off by 1e-6, which is worth more than all the rest."""
    text = """
    upper { var x in [0, 10] start 9; minimize 1e8 * x * x - 1e8 * y * x + 0.5 * x - 0.1 * y; }
    lower f { var y in [0, 20]; minimize (y - x)^2; }
    """
    result = bl.solve(bl.parse(text), backend="exact", time_limit=2)
    assert result.certificate.kind != "global"


def test_trouble_that_stays_leaves_a_local_optimum() -> None:
    found = Outcome("trouble", np.zeros(1), 1.0, -np.inf, 0, 0.0)
    status, message = end_of(found, SimpleNamespace(kind="local"), 5.0, "")
    assert status is bl.Status.CONVERGED
    assert message.endswith("was not proved: numerical trouble")
    assert end_of(found, SimpleNamespace(kind="none"), 5.0, "")[0] is bl.Status.STALLED


def test_numerical_trouble_is_met_by_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """One linear program that SCIP cannot solve does not end a run."""
    run, calls = Model._optimize, []

    def fails_once(self: Model) -> None:
        calls.append(self.scip.getParam("lp/presolving"))
        if len(calls) == 1:
            raise OSError("SCIP: error in LP solver!")
        run(self)

    monkeypatch.setattr(Model, "_optimize", fails_once)
    model = bl.parse(
        "upper { var x in [0, 3]; minimize (x - 1)^2 + y; } lower f { var y in [0, 9]; "
        "minimize (y - x)^2; subject to r: y >= 1; }"
    )
    result = bl.solve(model, backend="exact", time_limit=5)
    assert calls[:2] == [True, False]
    assert pytest.approx(1.0, abs=1e-5) == result.F
    assert result.certificate.kind == "global"
