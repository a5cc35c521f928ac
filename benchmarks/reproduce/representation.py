"""Shallow hyper-representation: what PZOBO's published losses are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

import bilevelpy as bl
from bilevelpy import solving
from bilevelpy.backends import registry
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.driver.loop import run
from bilevelpy.options import SolveOptions

MODEL = """\
model hyper_representation;
dim p;
dim d;
dim n;
param A[n, p], a[n], B[n, p], b[n], H0[p, d], w0[d];
upper {
  var H[p, d] start H0;
  minimize sumsq(B @ (H @ w) - b) / (2 * n);
}
lower head {
  var w[d] start w0;
  minimize sumsq(A @ (H @ w) - a) / (2 * n) + 0.05 * sumsq(w);
}
"""
STEPS = (0, 10, 50, 99)
# Losses at these steps: of the published notebook (first row), and of a re-run of its code.
REFERENCE = {
    "published directions, Q = 1": (508.638, 5.259, 0.1564, 0.01702),
    "direct gradient alone": (508.638, 5.298, 0.1566, 0.01658),
    "exact unrolled hypergradient": (508.638, 9.326, 0.1100, 0.01228),
    "Gaussian directions, Q = 1": (508.638, 359.0, 115.0, 53.7),
    "Gaussian directions, Q = 10": (508.638, 175.0, 14.8, 5.33),
}
RUNS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "published directions, Q = 1": (
        "pzobo",
        {"directions": "published", "count": 1, "difference": 0.01},
    ),
    "exact unrolled hypergradient": ("itd", {}),
    "Gaussian directions, Q = 1": (
        "pzobo",
        {"directions": "gaussian", "count": 1, "difference": 1e-4},
    ),
    "Gaussian directions, Q = 10": (
        "pzobo",
        {"directions": "gaussian", "count": 10, "difference": 1e-4},
    ),
}


def data(p: int = 64, d: int = 128, n: int = 500) -> dict[str, np.ndarray]:
    """The random problem of the published notebook: its seed, and its order of draws."""
    torch.manual_seed(0)
    H, w = torch.randn(p, d), torch.randn(d)
    A = torch.randn(n, p)
    a = A @ H @ w + 0.1 * torch.randn(n)
    B = torch.randn(n, p)
    b = B @ H @ w + 0.1 * torch.randn(n)
    w0, H0 = torch.randn(d), torch.randn(p, d)
    named = {"A": A, "a": a, "B": B, "b": b, "w0": w0, "H0": H0}
    return {name: value.double().numpy() for name, value in named.items()}


def losses(o: TorchOracle, title: str, steps: int = 99) -> list[float]:
    """The upper loss at every step: 20 lower steps of 1e-3 from a fixed start, Adam with 0.05."""
    if title == "direct gradient alone":
        return _direct(o, steps)
    backend, options = RUNS[title]
    common = {"lower_steps": 20, "lower_step": 1e-3, "warm": False, "upper": "adam"}
    settings = SolveOptions(
        tol=1e-15, max_iter=steps, backend_options={**common, "upper_step": 0.05, **options}
    )
    found: list[float] = []
    run(o, registry.get(backend), None, settings, callback=lambda state: found.append(state.F))
    return found


def _direct(o: TorchOracle, steps: int) -> list[float]:
    """Adam on dF/dx at the end of the lower steps: the ablation without any response."""
    x = o.x0.clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=0.05)
    found = []
    for _ in range(steps + 1):
        y = o.y0
        for _ in range(20):
            y = y - 1e-3 * o.grad_f(x.detach(), y)
        F, x.grad, _ = o.value_grad_F(x.detach(), y)
        found.append(F)
        adam.step()
    return found


def table() -> tuple[list[str], dict[str, list[float]]]:
    """The table, and the losses to draw."""
    o = solving.oracle(bl.parse(MODEL, data=data()))
    lines = [
        "| hypergradient | loss at step 0 / 10 / 50 / 99 | reference |",
        "| --- | --- | --- |",
    ]
    curves = {}
    for title, reference in REFERENCE.items():
        curves[title] = losses(o, title)
        found = " / ".join(f"{curves[title][k]:.4g}" for k in STEPS)
        lines.append(f"| {title} | {found} | {' / '.join(f'{v:.4g}' for v in reference)} |")
    return lines, curves
