"""F over all best responses at the answer: linear followers, and followers with whole numbers."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl

pytest.importorskip("pyscipopt")

TIED = """
upper {{ var x in {x}; minimize x - y[1]; }}
lower l {{ var y[2] in {y}; maximize y[1] + y[2]; subject to c: y[1] + y[2] + x <= 6; }}
"""


@pytest.mark.parametrize(
    ("x", "y"), [("[0, 3]", "[0, 5]"), ("integers(0, 3)", "integers(0, 5)"), ("binary", "[0, 5]")]
)
def test_the_interval_of_a_follower_that_does_not_care(x: str, y: str) -> None:
    """At x = 0 every split of 6 is a best response, with y[1] from 1 to 5."""
    result = bl.solve(bl.parse(TIED.format(x=x, y=y)), backend="exact")
    assert result.success, result.message
    assert result.certificate is not None
    details = result.certificate.details
    assert details["F_optimistic"] == pytest.approx(-5, abs=1e-5)
    assert details["F_pessimistic"] == pytest.approx(-1, abs=1e-5)
    assert any("is not unique" in r for r in result.certificate.reasons)


def test_a_whole_follower_with_one_best_response_has_no_interval() -> None:
    text = TIED.format(x="integers(0, 3)", y="integers(0, 5)").replace("+ y[2];", "+ 2 * y[2];")
    result = bl.solve(bl.parse(text), backend="exact")
    assert result.success
    details = result.certificate.details
    assert details["F_optimistic"] == pytest.approx(details["F_pessimistic"], abs=1e-6)


def test_a_response_that_grows_without_end_says_so() -> None:
    """The follower does not care about z, which the leader wants to be small."""
    text = """
    upper { var x in [0, 1]; minimize x + z; }
    lower l { var y in [0, 1], z in [0, inf]; minimize y; subject to c: y + x >= 1; }
    """
    result = bl.solve(bl.parse(text), backend="exact")
    assert result.success, result.message
    assert pytest.approx(0.0, abs=1e-6) == result.F
    assert np.isinf(result.certificate.details["F_pessimistic"])


@pytest.mark.parametrize(
    ("x", "more"),
    [("[0, 2]", ""), ("integers(0, 2)", ""), ("integers(0, 2)", ", k in integers(0, 1)")],
)
def test_the_worst_response_counts_where_the_best_has_no_bound(x: str, more: str) -> None:
    """The follower does not care about y: the leader may hope for all, and gets nothing."""
    text = f"""upper pessimistic {{ var x in {x}; minimize x - y; }}
    lower f {{ var y in [0, inf], z in [0, 1]{more}; minimize z; }}"""
    found = bl.solve(bl.parse(text), backend="exact", time_limit=30)
    assert found.certificate.kind == "global", found.message
    assert pytest.approx(0.0, abs=1e-6) == found.F
    assert np.isneginf(found.certificate.details["F_optimistic"])
    none = bl.solve(bl.parse(text.replace("x - y", "x + y")), backend="exact", time_limit=30)
    assert none.status == "infeasible"
    assert "worst one" in none.message


@pytest.mark.parametrize(("F", "status"), [("x + 5*y", "stalled"), ("5*y - x", "converged")])
def test_a_pessimistic_infimum_is_not_called_an_optimum(F: str, status: str) -> None:
    # y = 0 beyond x = 0.3, 1 before it, and either one there: x + 5y comes near 0.3 from above,
    # but is 5.3 at the worst of both; -x + 5y is least at x = 1, where nothing ties.
    text = f"""upper pessimistic {{ var x in [-1, 1]; minimize {F}; }}
    lower f {{ var y in [0, 1]; minimize (x - 0.3)*y; }}"""
    found = bl.solve(bl.parse(text), backend="exact", progress=False)
    assert found.status == status, found.message
    assert found.certificate is not None
    assert (found.certificate.kind == "global") == (status == "converged")
    if status == "stalled":
        assert "infimum" in found.message
