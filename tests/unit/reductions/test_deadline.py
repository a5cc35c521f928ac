"""Work on expressions ends when its time is up."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.backend import Exact
from bilevelpy.backends.exact.options import ExactOptions
from bilevelpy.backends.nlp.backend import NLP
from bilevelpy.backends.nlp.options import NLPOptions
from bilevelpy.options import SolveOptions
from bilevelpy.reductions import scalar as sc
from bilevelpy.system.deadline import TooLong, check, until

TREE = sc.mul(sc.Num(2.0), sc.Col(0), sc.Col(1))


def test_reductions_end_after_the_end() -> None:
    with until(-math.inf), pytest.raises(TooLong):
        sc.derivative(TREE, 0)
    check()  # and go on outside
    assert sc.derivative(TREE, 0) is not None


def test_the_earlier_end_holds() -> None:
    with until(-math.inf), until(time.perf_counter() + 1e3), pytest.raises(TooLong):
        check()


@pytest.mark.parametrize(("backend", "given"), [(NLP(), NLPOptions()), (Exact(), ExactOptions())])
def test_a_model_that_takes_too_long_to_write_out_is_an_error_that_says_so(backend, given) -> None:
    text = """
    model logistic; dim n, p; param X[n, p], y[n];
    upper { var t in [-2, 2]; minimize mean(logistic(-y * (X @ w))); }
    lower f { var w[p]; minimize mean(logistic(-y * (X @ w))) + exp(t) * sumsq(w);
      subject to cap: sum(w) <= 1; }
    """
    rng = np.random.default_rng(0)
    model = bl.parse(text, data={"X": rng.normal(size=(30, 4)), "y": np.ones(30)})
    with pytest.raises(bl.BackendError, match="could not write the model out row by row"):
        backend.solve(model.bound, SolveOptions(time_limit=1e-9), given, True)


ROWS = """
dim n; param A[n, 3] = 1;
upper { var x[3] in [-1, 1]; minimize sum(x) + sumsq(y); }
lower f { var y[3] in [-9, 9]; minimize sumsq(y - x);
  subject to r[i in n]: sum(A[i, j] * y[j] for j in 3) <= 1; }
"""


@pytest.mark.parametrize(
    ("module", "backend"),
    [
        ("reductions.trees", "exact"),
        ("reductions.rewriting.separate", "exact"),
        ("backends.nlp.complementarity", "nlp"),
    ],
)
def test_work_row_by_row_looks_at_the_time_with_every_row(module, backend, monkeypatch) -> None:
    looks = 0

    def count() -> None:
        nonlocal looks
        looks += 1

    monkeypatch.setattr(f"bilevelpy.{module}.check", count)
    model = bl.parse(ROWS, data={"A": np.random.default_rng(0).normal(size=(40, 3))})
    options = {"form": "conditions", "starts": 1} if backend == "nlp" else {}
    bl.solve(model, backend=backend, options=options, time_limit=20.0)
    assert looks >= 40
