"""One model in several threads, in copies and in other processes."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import bilevelpy as bl

TEXT = """
model s;
dim n, p;
param X[n, p], y[n];
upper { var lam[p] in [-8, 8] start 0; minimize sum((w - 1)^2); }
lower fit { var w[p]; minimize mean(log(1 + exp(-y * (X @ w)))) + sum(exp(lam) * w^2); }
"""


@pytest.fixture
def model() -> bl.Model:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 6))
    return bl.parse(TEXT, X=X, y=np.sign(X[:, 0] + rng.normal(size=60)))


def test_threads_do_not_disturb_each_other(model: bl.Model) -> None:
    alone = bl.solve(model)
    before = [pool["num_threads"] for pool in threadpool_info()]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: bl.solve(model), range(8)))
    assert all(np.array_equal(a["lam"], alone["lam"]) for a in answers)
    assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_a_callback_may_solve_the_same_model(model: bl.Model) -> None:
    inner = []
    outer = bl.solve(model, callback=lambda state: inner.append(bl.solve(model, max_iter=1).F))
    assert inner
    assert outer.F == bl.solve(model).F


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies_of_a_model_that_was_solved(model: bl.Model, copied) -> None:
    answer = bl.solve(model)
    assert bl.solve(copied(model)).F == answer.F
    assert copied(answer).F == answer.F
