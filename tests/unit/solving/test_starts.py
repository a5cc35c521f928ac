"""Start values by label, and in whatever form data may have."""

import numpy as np
import pandas as pd
import pytest
import torch

import bilevelpy as bl

TEXT = """
model s;
dim n, p;
set ROAD = {"up", "down"};
param X[n, p], y[n];
upper { var lam[p] in [-8, 8], t[ROAD] in [0, 5]; minimize sum((w - 1)^2) + sum((t - 2)^2); }
lower fit { var w[p]; minimize mean((X @ w - y)^2) + sum(exp(lam) * w^2); }
"""
X = np.random.default_rng(3).normal(size=(9, 3))


@pytest.fixture(scope="module")
def model() -> bl.Model:
    table = pd.DataFrame(X, columns=["age", "size", "rooms"])
    return bl.parse(TEXT, X=table, y=X @ [1.0, 2.0, 3.0])


@pytest.mark.parametrize("backend", ["aid", "nlp"])
@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("lam", pd.Series({"rooms": 1.0, "age": 2.0, "size": 3.0}), [2, 3, 1]),
        ("lam", pd.DataFrame({"l": {"rooms": 1.0, "age": 2.0, "size": 3.0}}), [2, 3, 1]),
        ("lam", pd.Series([1.0, 2.0, 3.0]), [1, 2, 3]),
        ("upper.t", pd.Series({"down": 4.0, "up": 3.0}), [3, 4]),
        ("t", {"down": 4.0, "up": 3.0}, [3, 4]),
        ("t", 1.5, [1.5, 1.5]),
        ("lam", torch.tensor([1.0, 2, 3], requires_grad=True), [1, 2, 3]),
        ("lam", np.arange(6.0)[::-2], [5, 3, 1]),
    ],
)
def test_values_are_aligned_by_label(model, backend, name, value, wanted) -> None:
    run = bl.solve(model, start={name: value}, max_iter=0, verify=False, backend=backend)
    assert run.history[0].iteration == 0
    if backend == "aid":
        assert np.array_equal(run[name.rpartition(".")[2]], wanted)


@pytest.mark.parametrize(
    ("name", "value", "code", "words"),
    [
        ("lam", pd.Series({"rooms": 1.0, "age": 2.0, "cost": 3.0}), "BLV0428", "`lam` and `X`"),
        ("t", pd.Series({"down": 4.0, "left": 3.0}), "BLV0410", '"left"'),
        ("t", {"down": 4.0}, "BLV0409", "no value for"),
        ("lam", pd.Series([1.0, 2.0]), "BLV0402", "2 entries"),
    ],
)
def test_labels_that_do_not_fit_are_errors(model, name, value, code, words) -> None:
    with pytest.raises(bl.DataError, match="from `start`") as caught:
        bl.solve(model, start={name: value})
    assert [d.code for d in caught.value.diagnostics] == [code]
    assert words in str(caught.value)
