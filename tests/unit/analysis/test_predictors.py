"""Which objectives are functions of affine predictors, and how they fall apart."""

import numpy as np
import pytest
import scipy.sparse as sp

import bilevelpy as bl
from bilevelpy.analysis.forms.predictors import find_predictors
from bilevelpy.ir import expr as ir
from bilevelpy.ir.build import Builder
from bilevelpy.ir.types import Axis, AxisKind

FIT = frozenset({"fit"})


@pytest.fixture
def b():
    return Builder()


def dims(*names):
    return [Axis(name, AxisKind.DIM) for name in names]


def test_logistic_with_penalties_has_two_predictors(b):
    n, p = dims("n", "p")
    X, y = b.param("X", (n, p)), b.param("y", (n,))
    w, lam = b.var("fit", "w", (p,)), b.var("upper", "lam", (p,))
    c = b.var("fit", "c", ())
    score = b.add(
        (b.product([(X, (0, 1)), (w, (1,))], (0,), {0: n, 1: p}), b.align(c, (None,), (n,)))
    )
    loss = b.reduce("mean", b.apply("softplus", b.scale(-1, b.mul(y, score))), (0,))
    f = b.add((loss, b.reduce("sum", b.mul(b.apply("exp", lam), b.apply("square", w)), (0,))))
    found = find_predictors(b, f, FIT)
    assert found is not None
    by_rank = {len(p.samples): p for p in found}
    assert set(by_rank) == {0, 1}
    margin, weights = by_rank[1], by_rank[0]
    assert (margin.batch, margin.samples, margin.classes) == ((), (0,), ())
    assert [t.contracted for t in margin.terms] in ([1, 0], [0, 1])
    assert (weights.batch, weights.samples, weights.classes) == ((0,), (), ())


def test_softmax_mixes_the_classes_only(b):
    n, p, k = dims("n", "p", "k")
    X, W = b.param("X", (n, p)), b.var("fit", "W", (p, k))
    Y = b.param("Y", (n, k))
    Z = b.product([(X, (0, 1)), (W, (1, 2))], (0, 2), {0: n, 1: p, 2: k})
    f = b.reduce(
        "mean", b.sub(b.reduce("logsumexp", Z, (1,)), b.reduce("sum", b.mul(Y, Z), (1,))), (0,)
    )
    (found,) = find_predictors(b, f, FIT)
    assert (found.batch, found.samples, found.classes) == ((), (0,), (1,))
    (term,) = found.terms
    assert term.coefficient is X
    assert term.order == (0, 1)


def test_a_root_over_the_samples_is_another_form(b):
    n, p = dims("n", "p")
    X, w = b.param("X", (n, p)), b.var("fit", "w", (p,))
    r = b.product([(X, (0, 1)), (w, (1,))], (0,), {0: n, 1: p})
    f = b.apply("sqrt", b.reduce("sum", b.apply("square", r), (0,)))
    found = find_predictors(b, f, FIT)
    # Every dimension is mixed, so samples become classes that the variable does not carry.
    assert found is None


def test_two_coupled_predictors_are_another_form(b):
    n, p = dims("n", "p")
    X = b.param("X", (n, p))
    u, v = b.var("fit", "u", (p,)), b.var("fit", "v", (p,))
    left, right = (b.product([(X, (0, 1)), (w, (1,))], (0,), {0: n, 1: p}) for w in (u, v))
    assert find_predictors(b, b.reduce("sum", b.mul(left, right), (0,)), FIT) is None


def test_a_family_gives_batches(b):
    i, n, p = dims("i", "n", "p")
    X, w = b.param("X", (i, n, p)), b.var("fit", "w", (i, p))
    z = b.product([(X, (0, 1, 2)), (w, (0, 2))], (0, 1), {0: i, 1: n, 2: p})
    f = b.reduce("sum", b.apply("square", z), (1,))
    (found,) = find_predictors(b, f, FIT)
    assert (found.batch, found.samples, found.classes) == ((0,), (1,), ())


def test_upper_variables_in_the_predictor_leave_the_variable_itself(b):
    n, p = dims("n", "p")
    X, w, s = b.param("X", (n, p)), b.var("fit", "w", (p,)), b.var("upper", "s", (p,))
    z = b.product([(X, (0, 1)), (s, (1,)), (w, (1,))], (0,), {0: n, 1: p})
    f = b.reduce("sum", b.apply("exp", z), (0,))
    (found,) = find_predictors(b, f, FIT)
    assert isinstance(found.node, ir.VarRef)
    assert found.classes == (0,)


def test_sparse_data_take_as_many_passes_as_dense_ones():
    text = (
        "model t; dim n, p; param X[n, p], y[n];\n"
        "upper { var lam in [-8, 2]; minimize mean((X @ w - y)^2) + lam^2; }\n"
        "lower fit { var w[p]; minimize mean(softplus(-y * (X @ w))) + exp(lam) * sumsq(w); }\n"
    )
    X, y = np.eye(6, 4), np.ones(6)
    dense = bl.analyze(bl.parse(text, data={"X": X, "y": y})).hessian_passes
    sparse = bl.analyze(bl.parse(text, data={"X": sp.csr_array(X), "y": y})).hessian_passes
    assert dense is not None
    assert sparse is not None
    assert (dense.value, sparse.value) == (2, 2)
