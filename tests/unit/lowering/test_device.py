"""Evaluations on another device: everything that meets there lies there.

No machine without a GPU can run them. PyTorch's `meta` device has shapes, types and a place, but no
numbers: whatever would mix devices on a GPU is refused here as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bilevelpy as bl
from bilevelpy.lowering.device import DeviceOracle
from bilevelpy.lowering.oracle import TorchOracle

aten = torch.ops.aten

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


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices; 1 stands for each number that comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        if not any(t.is_meta for t in tensors):
            return func(*args, **kwargs)
        self.operations += 1
        if func is aten._local_scalar_dense.default:
            return 1.0
        if func is aten._to_copy.default:
            if torch.device(kwargs.get("device") or "meta").type == "cpu":
                return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
            return func(*args, **kwargs)
        places = [(tuple(t.shape), t.device.type) for t in tensors]
        assert all(t.is_meta or t.dim() == 0 for t in tensors), f"{func} of {places}"
        if tensors[0].layout is torch.sparse_csr and func in (aten.mm.default, aten.mv.default):
            # A product that has no form without numbers.
            matrix, v = tensors
            assert matrix.dtype is v.dtype
            return v.new_empty((matrix.shape[0], *v.shape[1:]))
        return func(*args, **kwargs)


def bound(text: str, sparse: bool) -> bl.Model:
    draw = np.random.default_rng(0)
    X, V = draw.standard_normal((12, 5)), draw.standard_normal((8, 5))
    if sparse:
        X, V = sp.csr_array(X * (X > 0)), sp.csr_array(V * (V > 0))
    y, v = draw.integers(1, 3, 12), draw.integers(1, 3, 8)
    return bl.parse(text, data={"X": X, "V": V, "y": y, "v": v, "keep": y > 1, "c": 2})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", MODELS)
def test_everything_lies_on_the_device(name: str, sparse: bool, dtype: torch.dtype) -> None:
    home = TorchOracle(bound(MODELS[name], sparse).bound)
    there = DeviceOracle(home, "meta", dtype)
    x, y, v = home.x0, home.y0, torch.ones(home.m, dtype=torch.float64)
    with OneDevice() as mode:
        found = [there.f(x, y), there.F(x, y), there.value_grad_F(x, y), there.value_grad_f(x, y)]
        found += [there.grad_F(x, y), there.grad_f(x, y), there.grad_f_x(x, y)]
        found += [there.pullback(x, y)(v), there.hvp(x, y)(v), there.cross(x, y)(v)]
        found.append(there.hessian(x, y))
    assert mode.operations > 100
    for part in tree_leaves(found):
        if isinstance(part, torch.Tensor):
            assert (part.device.type, part.dtype) == ("cpu", torch.float64)


def test_a_mixture_would_be_seen() -> None:
    with OneDevice(), pytest.raises(AssertionError, match="'cpu'"):
        torch.zeros(3, device="meta") @ torch.ones(3)
