"""What is said to wrong names, options, starts and choices, before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl

RIDGE = """
model ridge;
upper { var lam in [-5, 5] start 0; minimize (w - 1)^2; }
lower fit { var w; minimize (w - 2)^2 + exp(lam) * w^2; }
"""
KINKED = """
model lasso;
upper { var x in [0, 3]; minimize (y - 1)^2/2; }
lower L { var y; minimize (y - 2)^2/2
  + x*max(y, -2*y); }
"""


@pytest.fixture(scope="module")
def ridge() -> bl.Model:
    return bl.parse(RIDGE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"backend": "drect"}, "did you mean `direct`"),
        ({"backend": "aid", "options": {"lower_stpes": 1}}, "did you mean `lower_step"),
        ({"backend": "aid", "options": {"lower_steps": -1}}, "lower_steps"),
        ({"backend": "bagdc", "options": {"order": "paralel"}}, "sequential, parallel"),
        ({"tols": 1e-3}, "did you mean `tol`"),
        ({"tol": 0.0}, "between 0 and 1"),
        ({"tol": float("nan")}, "between 0 and 1"),
        ({"max_iter": -1}, "must not be negative"),
        ({"max_iter": 1.5}, "a whole number"),
        ({"time_limit": 0.0}, "must be positive"),
        ({"time_limit": float("nan")}, "must be positive"),
        ({"seed": -1}, "must not be negative"),
        ({"start": {"lamb": 0.0}}, "did you mean `lam`"),
        ({"start": {"lam": float("nan")}}, "`lam` must be finite, found nan"),
        ({"start": {"w": float("inf")}}, "`w` must be finite, found inf"),
        ({"start": {"lam": "a lot"}}, "takes numbers"),
        ({"start": {"lam": np.zeros(3)}}, "has shape"),
    ],
)
def test_usage(ridge: bl.Model, arguments, said: str) -> None:
    with pytest.raises(bl.BilevelError) as error:
        bl.solve(ridge, **arguments)
    assert said in str(error.value)


def test_a_start_that_is_not_finite_is_shown_with_its_place() -> None:
    model = bl.parse(
        "model m; dim n = 3; upper { var x[n]; minimize sumsq(x - y); }"
        "lower L { var y[n]; minimize sumsq(y - x); }"
    )
    with pytest.raises(bl.UsageError, match=r"found nan at index \[1\]"):
        bl.solve(model, start={"x": [0.0, float("nan"), 1.0]})


def test_an_objective_without_a_value_at_the_start_says_so() -> None:
    model = bl.parse(
        "model m; upper { var x start 0; minimize (x - y)^2 + log(x); }"
        "lower L { var y; minimize (y - x)^2; }"
    )
    result = bl.solve(model, backend="direct")
    assert result.status == "diverged"
    assert "not finite at the start" in result.message


def test_a_forced_choice_names_fact_and_line() -> None:
    model = bl.parse(KINKED)
    with pytest.raises(bl.BackendError) as error:
        bl.solve(model, backend="direct")
    said = str(error.value)
    assert "error[BLV0602]" in said
    assert "model.blv:5" in said or "<text>:5" in said or ":5:" in said
    assert "max(y, -2*y)" in said
    assert "`force`" in said


def test_rejections_name_fact_and_line_in_the_decision() -> None:
    decision = bl.dispatch(bl.analyze(bl.parse(KINKED)))
    rejection = decision.rejections["direct"]
    assert rejection.line == 5
    assert "max" in rejection.fact
    assert f":{rejection.line}" in decision.rejected["direct"]
    assert decision.to_json()["rejections"]["direct"]["line"] == 5
    assert set(decision.rejections) == set(decision.rejected)


def test_force_overrides_and_warns() -> None:
    """6.3: the certificate refutes what the forced method finds."""
    model = bl.parse(
        "model m; upper { var x; minimize (x - b)^2/2 + (a - 1)^2/2; }"
        "lower L { var a; var b start 5; minimize a^2/2 - x*a; }"
    )
    result = bl.solve(model, backend="nbo", force=True, max_iter=50)
    assert "was forced" in result.warnings[0]
    assert not result.success
    assert "not unique" in " ".join(result.certificate.reasons)


def test_compare_refuses_unknown_names_before_the_first_solve(ridge: bl.Model) -> None:
    with pytest.raises(bl.UsageError, match="did you mean `aid`"):
        bl.compare(ridge, backends=["direct", "aidd"])
    with pytest.raises(bl.UsageError, match="at least one"):
        bl.compare(ridge, backends=[])
    with pytest.raises(bl.BilevelError, match="did you mean `tol`"):
        bl.compare(ridge, backends=["direct"], tols=1e-3)
