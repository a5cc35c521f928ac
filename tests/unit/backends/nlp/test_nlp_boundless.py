"""``nlp`` where F has no bound, and beside it, where it has one far away."""

import pytest

import bilevelpy as bl

BELOW = "lower l { var y in [0, 1]; minimize (y - x)^2; }"


def solved(upper: str, below: str = BELOW) -> bl.Result:
    model = bl.parse(f"upper {{ {upper} }} {below}")
    return bl.solve(model, backend="nlp", time_limit=20, progress=False)


@pytest.mark.parametrize(
    "upper",
    [
        "var x in [0, 1]; var z; maximize x * z;",
        "var x; minimize x^3 + y;",
        "var x; maximize exp(x) + y;",
        "var x; var z in [-inf, 3]; minimize z + x^2; subject to c: z <= x;",
    ],
)
def test_f_without_a_bound(upper: str) -> None:
    result = solved(upper)
    assert result.status == "unbounded"
    assert ("rises" if "maximize" in upper else "falls") + " without bound" in result.message


def test_f_without_a_bound_where_the_response_moves_too() -> None:
    free = "lower l { var y; minimize (y - x)^2; }"
    assert solved("var x; maximize x + y;", free).status == "unbounded"


@pytest.mark.parametrize(
    ("upper", "F"),
    [
        ("var x in [0, 1e12]; maximize x * x + y;", 1e24),
        ("var x in [0, 1]; var z; maximize x * z; subject to c: z <= 1e6;", 1e6),
        ("var x; minimize exp(-x) + y;", 1.0),
        ("var x; minimize (x - 1e4)^2 - 1e8 + y;", -1e8 + 1.0),
    ],
)
def test_f_with_a_bound(upper: str, F: float) -> None:
    result = solved(upper)
    assert result.status == "converged"
    assert pytest.approx(F, rel=1e-6) == result.F


@pytest.mark.parametrize("backend", ["direct", "aid", "nbo"])
def test_values_that_leave_the_numbers_are_no_optimum(backend: str) -> None:
    model = bl.parse(f"upper {{ var x; maximize exp(x) + y; }} {BELOW}")
    result = bl.solve(model, backend=backend, progress=False)
    assert result.status == "unbounded"
    assert "rises without bound" in result.message
