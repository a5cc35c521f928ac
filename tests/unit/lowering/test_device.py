"""Evaluations on another device: everything that meets there lies there.

No machine without a GPU can run them; here they run on a device that is emulated, and refuses what
would mix devices on a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.utils._pytree import tree_leaves

import bilevelpy as bl
from bilevelpy.lowering.device import DeviceOracle
from bilevelpy.lowering.oracle import TorchOracle
from tests.another_device import another_device

FIT = """
dim n, m, p, c;
param X[n, p], y[n], V[m, p], v[m], keep[n];
upper { var lam[p] in [-6, 2] start 0; minimize %s; }
lower fit { var w[p]; var W[p, c]; minimize %s + sum(exp(lam) * w^2) / 2 + sumsq(W); }
"""
MODELS = {
    "matrix": FIT % ("mean((V @ w - v)^2)", "mean(softplus(-y * (X @ w)))"),
    "index": FIT
    % (
        "sum((sum(V[i, j] * w[j] for j in p) - v[i])^2 for i in m)",
        "sum(huber(sum(X[i, j] * w[j] for j in p) - y[i]) for i in n where keep[i] > 0.5)",
    ),
    "shifted": FIT
    % (
        "sumsq(w) + sum(W[i, 1] * lam[i] for i in p)",
        "sum((w[j] - w[j - 1])^2 for j in p where j > 1) + logsumexp(w) + norm2(X @ W) "
        "+ max(abs(w)) + sum(max(w, 0.5) * X[1, :])",
    ),
    "classes": FIT
    % (
        "mean(softmax_cross_entropy(V @ W, v))",
        "mean(softmax_cross_entropy(X @ W, y)) + sum(softmax(X @ W)^2)",
    ),
}


def bound(text: str, sparse: bool) -> bl.Model:
    draw = np.random.default_rng(0)
    X, V = draw.standard_normal((12, 5)), draw.standard_normal((8, 5))
    if sparse:
        X, V = sp.csr_array(X * (X > 0)), sp.csr_array(V * (V > 0))
    y, v = draw.integers(1, 3, 12), draw.integers(1, 3, 8)
    return bl.parse(text, data={"X": X, "V": V, "y": y, "v": v, "keep": y > 1, "c": 2})


def evaluated(oracle: Any, x: Any, y: Any, v: Any) -> list[Any]:
    products = [oracle.pullback(x, y)(v), oracle.hvp(x, y)(v), oracle.cross(x, y)(v)]
    values = [oracle.f(x, y), oracle.F(x, y), oracle.value_grad_F(x, y), oracle.value_grad_f(x, y)]
    slopes = [oracle.grad_F(x, y), oracle.grad_f(x, y), oracle.grad_f_x(x, y)]
    return [*values, *slopes, *products, oracle.hessian(x, y)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", MODELS)
def test_everything_lies_on_the_device(name: str, sparse: bool, dtype: torch.dtype) -> None:
    home = TorchOracle(bound(MODELS[name], sparse).bound)
    draw = torch.Generator().manual_seed(0)
    x, y, v = (
        torch.rand(size, generator=draw, dtype=torch.float64) - 0.5
        for size in (home.n, home.m, home.m)
    )
    with another_device() as operations:
        there = evaluated(DeviceOracle(home, "cuda", dtype), x, y, v)
    assert sum(operations.values()) > 100
    within = 1e-12 if dtype is torch.float64 else 1e-5
    for found, true in zip(tree_leaves(there), tree_leaves(evaluated(home, x, y, v)), strict=True):
        if isinstance(found, torch.Tensor):
            assert (type(found), found.dtype) == (torch.Tensor, torch.float64)
        scale = max(1.0, float(torch.as_tensor(true).abs().max()))
        np.testing.assert_allclose(found, true, rtol=0, atol=within * scale)


def test_a_mixture_is_seen() -> None:
    with another_device():
        there = torch.zeros(3, device="cuda")
        with pytest.raises(RuntimeError, match="two devices"):
            there @ torch.ones(3)
        with pytest.raises(TypeError, match="to numpy"):
            there.numpy()
