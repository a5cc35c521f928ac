"""Bad input of constrained problems: a clear sentence, never a quiet wrong answer."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

import bilevelpy as bl

pytest.importorskip("pyscipopt")


def solve(text: str, **options):
    return bl.solve(bl.parse(text), **options)


def refusal(text: str, **options) -> str:
    with pytest.raises(bl.BilevelError) as error:
        solve(text, **options)
    return str(error.value)


# --- followers without a point ------------------------------------------------------------------


def test_a_follower_that_is_infeasible_at_the_start_is_no_obstacle() -> None:
    """y >= 3 - x and y <= 1: feasible from x = 2 on."""
    result = solve("""
    upper { var x in [0, 4] start 0; minimize x + y; }
    lower f { var y in [0, 1]; minimize y; subject to need: y + x >= 3; }
    """)
    assert result.success
    assert (result.F, float(result["x"])) == pytest.approx((3, 2), abs=1e-6)


def test_a_follower_that_is_never_feasible_is_named_with_its_rows() -> None:
    result = solve("""
    upper { var x in [0, 4]; minimize x + one.y + two.y; }
    lower one { var y in [0, 1]; minimize y; }
    lower two { var y in [0, 1]; minimize y; subject to fine: y <= 0.9; need: y + x >= 9; }
    """)
    assert result.status == "infeasible"
    assert "the follower `two` has no feasible point at any x" in result.message
    assert "`two.need` cannot hold within the bounds" in result.message
    assert np.isnan(result.F)


# --- unbounded levels ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lower",
    [
        "var y in [0, 1]; minimize (y - x)^2;",
        "var y in [0, 1]; minimize y; subject to c: y >= x - 1e9;",
    ],
)
def test_a_leader_without_bound(lower: str) -> None:
    result = solve(f"upper {{ var x; minimize x + y; }} lower f {{ {lower} }}")
    assert result.status == "unbounded"
    assert "without bound" in result.message or "no bound" in result.message


def test_a_follower_without_bound_makes_the_problem_infeasible() -> None:
    result = solve("upper { var x in [0, 1]; minimize x; } lower f { var y; minimize y - x; }")
    assert result.status == "infeasible"
    assert "`f` is unbounded at every x" in result.message


def test_a_follower_without_bound_at_some_x_only() -> None:
    """min x y over y >= 0 has a solution for x >= 0: the leader's least x is 0."""
    result = solve(
        "upper { var x in [-1, 1]; minimize x; } lower f { var y in [0, inf]; minimize x*y; }"
    )
    assert result.success
    assert pytest.approx(0, abs=1e-7) == result.F


# --- contradictions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "domain", "code"),
    [("", "[3, 1]", "BLV0312"), ("param a = 3, b = 1;", "[a, b]", "BLV0426")],
)
def test_bounds_that_cross(data: str, domain: str, code: str) -> None:
    message = refusal(f"""
    {data} upper {{ var x in {domain}; minimize x; }} lower f {{ var y; minimize (y - x)^2; }}
    """)
    assert code in message


@pytest.mark.parametrize(
    ("data", "domain", "reason"),
    [
        ("param low[2] = [0, 0.5]; param high = 0.7;", "integers(low, high)", "no whole number"),
        ("param low in [0, inf] = inf;", "[low, inf]", "no finite"),
    ],
)
def test_domains_without_a_number(data: str, domain: str, reason: str) -> None:
    found = refusal(f"{data} upper {{ var x[2] in {domain}; minimize sum(x); }}")
    assert "BLV0312" in found
    assert reason in found


def test_a_row_whose_sides_cross_is_a_row_that_nothing_satisfies() -> None:
    result = solve("""
    upper { var x; minimize x; subject to fine: x >= 0; c: 3 <= x <= 1; }
    lower f { var y; minimize (y - x)^2; }
    """)
    assert result.status == "infeasible"
    assert "`c` cannot hold" in result.message


def test_rows_that_contradict_each_other_are_named_and_no_others() -> None:
    leader = solve("""
    upper { var x in [0, 9]; minimize x + y; subject to a: x >= 3; b: x <= 1; c: x <= 8; }
    lower f { var y in [0, 1]; minimize (y - x)^2; }
    """)
    assert leader.status == "infeasible"
    assert re.search(r"leader's constraints: `a` and `b` contradict each other", leader.message)
    follower = solve("""
    upper { var x in [0, 9]; minimize x + y; }
    lower f { var y; minimize (y - x)^2; subject to c: y <= 8; a: y >= 3; b: y <= 1; }
    """)
    assert follower.status == "infeasible"
    assert re.search(r"follower `f` .* `f.a` and `f.b` contradict each other", follower.message)


# --- engines and backends -----------------------------------------------------------------------


CONSTRAINED = """
upper { var x in [0, 4]; minimize x + y; }
lower f { var y in [0, 1]; minimize y; subject to need: y + x >= 3; }
"""


@pytest.mark.parametrize("package", ["pyscipopt"])
def test_a_missing_engine_names_the_extra(package: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = refusal(CONSTRAINED)
    assert "[exact]" in message
    assert package in message


def test_a_missing_interior_point_solver_names_the_extra(monkeypatch) -> None:
    """Also where only kinks with moving coefficients need it."""
    monkeypatch.setitem(sys.modules, "casadi", None)
    smooth = """
    upper { var x in [0, 4]; minimize x + y; }
    lower f { var y in [0, 1]; minimize exp(y) - x*y; subject to need: y + x >= 0.5; }
    """
    kinked = """
    upper { var x in [0, 4]; minimize x + y; }
    lower f { var y; minimize y^2 + exp(x)*abs(y - 1); }
    """
    for text in (smooth, kinked):
        message = refusal(text, backend="nlp")
        assert "[nlp]" in message
        assert "casadi" in message


@pytest.mark.parametrize("backend", ["direct", "aid", "qnbo", "nbo", "itd", "f2ba", "bome"])
def test_a_discrete_follower_is_refused_by_gradients(backend: str) -> None:
    text = """
    upper { var x in [0, 1]; minimize (x - 0.3)^2 + y; }
    lower f { var y in integers(0, 3); minimize (y - x)^2; }
    """
    message = refusal(text, backend=backend)
    assert "BLV0602" in message
    assert "continuous variables" in message
    assert "discrete lower variable `y`" in message
    assert solve(text).success


# --- rows in the wrong place --------------------------------------------------------------------


def test_the_dual_of_an_upper_constraint() -> None:
    message = refusal("""
    upper { var x in [0, 1]; minimize x + dual(cap); subject to cap: x <= 0.5; }
    lower f { var y in [0, 1]; minimize (y - x)^2; subject to c: y <= 1; }
    """)
    assert "BLV0216" in message
    assert "constraint of `upper`" in message
    assert "`f.c`" in message


def test_coupling_that_belongs_into_the_follower() -> None:
    """The road can carry 2; written in `upper`, the follower does not know it."""
    text = """
    upper {{ var t in [0, 1]; maximize t * y; {upper} }}
    lower f {{ var y in [0, 9]; minimize 0.5 * y^2 - (8 - t) * y; {lower} }}
    """
    row = "subject to road: y <= 2;"
    wrong = solve(text.format(upper=row, lower=""))
    assert wrong.status == "infeasible"
    assert "`road` by 5" in wrong.message
    assert "put it into the follower?" in wrong.message
    right = solve(text.format(upper="", lower=row))
    assert right.success
    assert pytest.approx(2, abs=1e-6) == right.F


def test_a_bound_that_moves_is_written_as_a_row() -> None:
    message = refusal("""
    upper { var x in [0, 3]; minimize y - x; } lower f { var y in [x, 4]; minimize y; }
    """)
    assert "BLV0221" in message
    assert "a bound that moves is a constraint" in message
    moved = solve("""
    upper { var x in [0, 3]; minimize y - 2*x; }
    lower f { var y in [0, 4]; minimize y; subject to low: y >= x; }
    """)
    assert pytest.approx(-3, abs=1e-6) == moved.F


def test_a_third_level_is_refused_once_with_the_way_out() -> None:
    """Anandalingam's three levels; `models/applications/trilevel.blv` is the way out."""
    text = """
    upper { var x in [0, inf]; minimize -7*x - 3*middle.y + 4*bottom.z; }
    lower middle { var y in [0, inf]; maximize y; }
    lower bottom { var z in [0, 0.5]; maximize z; subject to
      a: x + y + z <= 3; b: x + y - z <= 1; c: x + y + z >= 1; d: -x + y + z <= 1; }
    """
    with pytest.raises(bl.ModelError) as error:
        bl.parse(text)
    assert [d.code for d in error.value.diagnostics] == ["BLV0214"]
    assert "third level" in str(error.value)
    nested = text.replace("maximize y; }", "maximize y;").rstrip() + " }"
    with pytest.raises(bl.ModelError) as error:
        bl.parse(nested)
    assert "two levels" in str(error.value)


def test_a_bound_of_a_price_that_makes_the_problem_infeasible() -> None:
    """The leader wants a price of 3, which is valid at x = 5 (1 to 5); the model says at most 2."""
    text = """
    upper {{ var x in [0, 10]; minimize x; subject to least: dual(f.need) >= 3; }}
    lower f {{ var y in [0, inf], z in [0, 5]; minimize 5*y + z; subject to need: y + z >= x;
              assume dual(need) in [0, {most}]; }}
    """
    tight = solve(text.format(most=2))
    assert tight.status == "stalled"
    assert "the declared bound 2" in tight.message
    assert "too tight" in tight.message
    assert pytest.approx(5, abs=1e-6) == solve(text.format(most=10)).F
