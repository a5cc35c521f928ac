"""Slopes that are nothing beside one that a bound holds, and saddles at bounds, end no run."""

import pytest

import bilevelpy as bl

FOLLOWER = "lower low { var y in [0, 1]; minimize (y - x + 0.5)^2; }"


def solved(upper: str, backend: str) -> bl.Result:
    return bl.solve(bl.parse(f"model m; upper {{ {upper} }} {FOLLOWER}"), backend=backend)


@pytest.mark.parametrize("backend", ["direct", "aid", "qnbo"])
@pytest.mark.parametrize(
    ("upper", "best"),
    [
        ("var x in [1, 2], z in [-5, 5]; minimize 1e9 * (x - 1) - z + y;", -4.5),
        ("var x in [1, 2], z in [-5, 5]; minimize 1e9 * (x - 1) + (z - 3)^2 + y;", 0.5),
        (
            "var x in [1, 2], z in [0, 50]; minimize 1e12 * (x - 1) - sqrt(1 + z) + y;",
            0.5 - 51**0.5,
        ),
    ],
)
def test_a_slope_that_a_bound_holds_hides_no_other(upper: str, best: float, backend: str) -> None:
    result = solved(upper, backend)
    assert result.success
    assert abs(result.F - best) < 1e-4


@pytest.mark.parametrize("backend", ["direct", "aid"])
def test_a_leader_who_gains_without_an_end_is_told_so(backend: str) -> None:
    # Both slopes vanish at the start, a saddle at the bound of x; further out x stays at its bound
    # with a slope that grows with z.
    result = solved("var x in [0, 1], z; maximize x * z;", backend)
    assert result.status is bl.Status.UNBOUNDED


@pytest.mark.parametrize("backend", ["direct", "aid"])
def test_a_saddle_at_a_bound_is_left(backend: str) -> None:
    result = solved("var x in [0, 1], z in [-1, 3]; maximize x * z;", backend)
    assert result.success
    assert abs(result.F - 3.0) < 1e-6


@pytest.mark.parametrize("backend", ["kkt", "blocc"])
@pytest.mark.parametrize(
    ("upper", "best"),
    [
        ("var x in [1, 2], z in [-5, 5]; minimize 1e9 * (x - 1) - z + y;", -4.5),
        ("var x in [0, 1], z in [-1, 3]; minimize -x * z;", -3.0),
    ],
)
def test_the_same_with_lower_rows(upper: str, best: float, backend: str) -> None:
    follower = FOLLOWER.replace("}", "subject to cap: y <= 0.9 * x; }")
    result = bl.solve(bl.parse(f"model m; upper {{ {upper} }} {follower}"), backend=backend)
    # A method of first order may stop early, but says so.
    assert result.success == (abs(result.F - best) < 1e-4)
    assert result.success or backend == "blocc"


@pytest.mark.parametrize("backend", ["direct", "aid"])
@pytest.mark.parametrize(
    ("upper", "ends"),
    [
        ("var x in [1e-3, inf] start 1; maximize log(x) - (y - 0.5)^2;", True),
        ("var x; minimize -log(1 + x^2) + y;", True),
        ("var x start 1; maximize log(x) - log(1 + x) + y;", False),
        ("var x; minimize exp(-x) + y;", False),
    ],
)
def test_a_logarithm_has_no_end_and_a_limit_is_one(upper: str, ends: bool, backend: str) -> None:
    model = bl.parse(f"model m; upper {{ {upper} }} lower low {{ var y; minimize (y - 1)^2; }}")
    result = bl.solve(model, backend=backend)
    assert (result.status is bl.Status.UNBOUNDED) is ends
