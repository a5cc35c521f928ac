"""Models of one level with functions of a caller's: no lower level, and nothing written out."""

import numpy as np
import pytest
import torch

import bilevelpy as bl

A = np.array([[2.0, 0.5], [0.5, 1.0]])


def shifted(x):
    return (x - 1.3) ** 2


def form(x):
    return x @ torch.from_numpy(A) @ x


def by_numpy(x):
    return np.square(np.asarray(x) - 1.3)


ONE = "extern g(x) -> []; upper {{ var x in {set}; {F}; }}"
TWO = "dim n = 2; extern g(x[n]) -> []; upper {{ var x[n]{set}; {F}; }}"


@pytest.mark.parametrize("backend", ["auto", "aid", "zo"])
@pytest.mark.parametrize(
    ("text", "g", "x"),
    [
        (ONE.format(set="[0, 3]", F="minimize g(x)"), shifted, 1.3),
        (ONE.format(set="[0, 1]", F="minimize g(x)"), shifted, 1.0),
        (ONE.format(set="[0, 3]", F="maximize -g(x) - x"), shifted, 0.8),
        (ONE.format(set="[0, 3]", F="minimize g(x)"), by_numpy, 1.3),
        (ONE.format(set="[0, 3]", F="minimize abs(x - 1.3) + 0 * g(x)"), shifted, 1.3),
        (TWO.format(set="", F="minimize g(x) + sum(x)"), form, -np.linalg.solve(2 * A, [1, 1])),
    ],
)
def test_the_optimum_is_found(text, g, x, backend) -> None:
    result = bl.solve(bl.parse(text, externs={"g": g}), backend=backend, progress=False)
    assert result.success
    np.testing.assert_allclose(result.upper["x"], x, atol=1e-6)


def test_other_sets_and_ends() -> None:
    model = bl.parse(TWO.format(set=" in simplex", F="minimize g(x)"), externs={"g": form})
    result = bl.solve(model, progress=False)
    assert result.success
    np.testing.assert_allclose(result.upper["x"], [0.25, 0.75], atol=1e-6)
    model = bl.parse(ONE.format(set="[-inf, 3]", F="minimize x + 0 * g(x)"), externs={"g": shifted})
    assert bl.solve(model, progress=False).status == "unbounded"


def test_what_is_written_in_the_model_goes_to_a_global_search() -> None:
    model = bl.parse("upper { var x in [0, 3]; minimize (x - 1.3)^2; }")
    assert bl.dispatch(model).chosen == "exact"
    with pytest.raises(bl.BackendError, match="needs a lower level"):
        bl.solve(model, backend="aid", progress=False)


def test_rows_are_refused() -> None:
    text = "extern g(x) -> []; upper { var x; minimize g(x); subject to c: x + g(x) >= 2; }"
    with pytest.raises(bl.BackendError, match="constraints in the upper level"):
        bl.solve(bl.parse(text, externs={"g": shifted}), progress=False)
