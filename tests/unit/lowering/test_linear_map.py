"""Sparse params: the same numbers as dense ones, without a dense array."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from bilevelpy.errors import BackendError
from bilevelpy.lowering.programs import linear_map
from tests.unit.lowering.programs import LOGISTIC, logistic_data, oracle, point

MATRIX = """
dim n, p; dim k = 3;
param X[n, p], Y[n, k], a[n], b[p];
upper { var x[k]; minimize sumsq(x); }
lower l {
  var W[p, k], v[n];
  minimize -sum(Y * logsoftmax(X @ W)) + sum(exp(x)) * sumsq(W)
         + sum((X' @ v)^2) + sum((W' @ X' - Y')^2)
         + sum((2 * square(X) @ W)^2) + sum((a[i] * X[i, j] * b[j]) * v[i] for i in n, j in p)^2;
}
"""


def same(a, b):
    x, y = point(a)
    assert a.f(x, y) == pytest.approx(b.f(x, y), rel=1e-12)
    torch.testing.assert_close(a.grad_f(x, y), b.grad_f(x, y))
    torch.testing.assert_close(a.pullback(x, y)(y), b.pullback(x, y)(y))
    torch.testing.assert_close(a.hessian(x, y), b.hessian(x, y))
    torch.testing.assert_close(a.value_grad_F(x, y), b.value_grad_F(x, y))


def thin(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) * (rng.random(shape) < 0.3)


def test_vector_operands(monkeypatch):
    monkeypatch.setattr(linear_map, "DENSE_LIMIT", 0)
    data = logistic_data()
    data["X"] = thin((30, 4))
    a = oracle(LOGISTIC, **data)
    b = oracle(LOGISTIC, **{**data, "X": sp.csr_array(data["X"])})
    same(a, b)
    assert "sparse_product" in b.compiled((b.f_expr,)).code


def test_matrix_operands_and_transposes(monkeypatch):
    monkeypatch.setattr(linear_map, "DENSE_LIMIT", 0)
    rng = np.random.default_rng(1)
    X = thin((7, 5))
    data = {"Y": rng.random((7, 3)), "a": rng.random(7), "b": rng.random(5)}
    same(oracle(MATRIX, X=X, **data), oracle(MATRIX, X=sp.csc_array(X), **data))


def test_entrywise_use_is_dense_up_to_a_limit(monkeypatch):
    text = """
    dim n, p; param X[n, p];
    upper { var x; minimize x^2; }
    lower l { var y; minimize sum((X - y)^4) + x * y; }
    """
    X = thin((6, 5))
    same(oracle(text, X=X), oracle(text, X=sp.csr_array(X)))
    monkeypatch.setattr(linear_map, "DENSE_LIMIT", 10)
    with pytest.raises(BackendError, match="param 'X' is sparse"):
        oracle(text, X=sp.csr_array(X))


def test_rows_of_a_sparse_param(monkeypatch):
    monkeypatch.setattr(linear_map, "DENSE_LIMIT", 0)
    text = """
    dim n, p; set T within n; param X[n, p];
    upper { var x; minimize x^2; }
    lower l { var y[p]; minimize sum((sum(X[i, j] * y[j] for j in p) - x)^2 for i in T); }
    """
    X = thin((6, 5))
    same(oracle(text, X=X, T=[1, 3, 6]), oracle(text, X=sp.csr_array(X), T=[1, 3, 6]))


def test_transpose_is_made_once():
    m = linear_map.SparseMap(sp.csr_array(thin((4, 3))), "X")
    assert m.transposed.transposed is m
    assert m.transposed.shape == (3, 4)
    torch.testing.assert_close(m.transposed.dense(), m.dense().T)
