"""Bound programs for the tests of this folder, from text and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bilevelpy.diagnostics import Source
from bilevelpy.ir.program import BoundProgram, Program
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.sema import check
from bilevelpy.sema.bind import bind

RIDGE = """
dim n, m, p;
param X[n, p], y[n];
param Xv[m, p], yv[m];
def mse(A, b, w) = mean((A @ w - b)^2);
upper {
  var lam[p] in [-10, 10] start 0.5;
  minimize mse(Xv, yv, w);
  subject to
    budget: sum(exp(lam)) <= 100;
    pair: 0 <= lam[1] + w[1] <= 1;
}
lower fit {
  var w[p];
  minimize mse(X, y, w)/2 + sum(exp(lam) * w^2)/2;
}
report train = mse(X, y, w);
"""

LOGISTIC = """
dim n, m, p;
param X[n, p], s[n], Xv[m, p], sv[m];
upper { var c in [-10, 10]; minimize sum(softplus(-sv * (Xv @ w))) / m; }
lower fit { var w[p]; minimize sum(softplus(-s * (X @ w))) / n + exp(c) * sumsq(w) / 2; }
"""


def checked(text: str) -> Program:
    """The program of a text without errors."""
    result = check(Source("model.blv", text))
    assert result.program is not None, [d.message for d in result.diagnostics]
    return result.program


def bound(text: str, externs: Mapping[str, Any] | None = None, **data: Any) -> BoundProgram:
    """A text with its data."""
    return bind(checked(text), data, externs=externs or {})


def oracle(text: str, externs: Mapping[str, Any] | None = None, **data: Any) -> TorchOracle:
    """The oracle of a text with its data."""
    return TorchOracle(bound(text, externs, **data))


def ridge_data(
    n: int = 30, m: int = 20, p: int = 4, seed: int = 0
) -> dict[str, np.ndarray[Any, Any]]:
    """Random arrays for RIDGE."""
    rng = np.random.default_rng(seed)
    draw = rng.standard_normal
    return {"X": draw((n, p)), "y": draw(n), "Xv": draw((m, p)), "yv": draw(m)}


def logistic_data(
    n: int = 30, m: int = 20, p: int = 4, seed: int = 0
) -> dict[str, np.ndarray[Any, Any]]:
    """Random arrays for LOGISTIC."""
    rng = np.random.default_rng(seed)
    draw = rng.standard_normal
    return {"X": draw((n, p)), "s": np.sign(draw(n)), "Xv": draw((m, p)), "sv": np.sign(draw(m))}


def point(o: TorchOracle, seed: int = 0, scale: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """A random point."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.standard_normal(o.n) * scale)
    return x, torch.from_numpy(rng.standard_normal(o.m) * scale)
