"""The families of the threshold study: models of one structure that grow in one size."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.optimize as so
import torch

import bilevelpy as bl
from benchmarks.dispatch_models import (
    FEW,
    LOGISTIC,
    MANY_MINIMA,
    RIDGE,
    SOFTMAX,
    TOY,
    _classes,
    _few,
    _regression,
    _toy,
)
from tests.models.catalogue import arrays

# The Hessian moves with y, and all variables are coupled: no predictor makes it cheap, no band.
PRODUCTS = """
model products;
dim n;
param t[n], A[n, n] in [0, 1];
upper { var x[n] start 0.5; minimize sumsq(y - t)/2 + 0.1 * sumsq(x); }
lower L {
  var y[n] start 0.1;
  minimize sumsq(y - x)/2 + quad(y^2, A)/(4 * card(n)) + sum(y^4)/4;
}
"""
BOXED = TOY.replace("var y[n] start 2", "var y[n] in [0, 1]")
# A Hessian in c classes takes c (c + 1) / 2 passes over the data.
CLASSES = re.sub(r"\bC\b", "c", SOFTMAX.replace("p;\nset C = 1..5;", "p, c;"))
# Quadratic followers under rows that the leader loosens; and the same with a quartic term, for
# which the optimality conditions are no longer linear.
ROWS = """
model rows;
dim n, r;
param A[r, n], b[r], c[n], t[n];
upper { var x[r] in [0, 1]; minimize sumsq(y - t)/2 + sumsq(x)/2; }
lower L {
  var y[n] in [0, inf];
  minimize sumsq(y)/2 - dot(c, y);
  subject to cap: A @ y <= b + x;
}
"""
QUARTIC = ROWS.replace("sumsq(y)/2 -", "sumsq(y)/2 + sum(y^4)/4 -")


def _rows(n: int) -> dict[str, Any]:
    """Half of the rows of a sparse A bind without the leader."""
    r = np.random.default_rng(0)
    A = r.uniform(0.0, 1.0, (n, n)) * (r.random((n, n)) < min(1.0, 5.0 / n))
    c = r.uniform(0.5, 1.5, n)
    b = (A @ c) * r.uniform(0.5, 1.5, n) + 0.1
    return {"A": A, "b": b, "c": c, "t": r.uniform(0.5, 1.5, n)}


def _products(n: int) -> dict[str, Any]:
    """Any weights of the products."""
    A = np.random.default_rng(0).random((n, n))
    return {"A": (A + A.T) / 2, "t": np.linspace(0.2, 1.0, n)}


# Followers of their own: the lower Hessian falls into blocks of p variables.
BLOCKS = """
model blocks;
dim k, n, p;
param X[k, n, p], t[k, n], b[k, p];
upper { var lam[p] in [-6, 2] start -2; minimize mean((w - b)^2); }
lower task {
  var w[k, p];
  minimize sum(logistic(-t[i, r] * sum(X[i, r, j] * w[i, j] for j in p)) for i in k, r in n)
    + sum(exp(lam[j]) * w[i, j]^2 for i in k, j in p);
}
"""
# Kernel ridge regression: few large blocks, whose condition number is that of a kernel.
KERNELS = """
model kernels;
dim k, n, m;
param K[k, n, n], y[k, n], V[k, m, n], yv[k, m];
upper {
  var lam in [-16, 4] start -8;
  minimize mean((sum(V[f, i, j] * a[f, j] for j in n) - yv[f, i])^2 for f in k, i in m);
}
lower fit {
  var a[k, n];
  minimize sum(a[f, i] * K[f, i, j] * a[f, j] for f in k, i in n, j in n) / 2
    + exp(lam) * sumsq(a) / 2 - sum(y * a);
}
"""
# A matrix whose eigenvalues the cone cuts off.
NEAREST = """
model nearest;
dim n;
param A[n, n], T[n, n];
upper { var x[n] in [-2, 2] start 0.3; minimize sum((Y - T)^2)/2 + 0.05*sumsq(x); }
lower L {
  var Y[n, n] in psd;
  minimize sum((Y[i, j] - A[i, j] - x[i] * x[j])^2 for i in n, j in n)/2;
}
"""
# Kinks of one term each, which epigraphs remove by a variable and two rows.
KINKED = """
model kinked;
dim n, r;
param A[r, n], b[r], t[n];
upper { var x[n] in [-2, 2] start 0.5; minimize sumsq(y - t)/2 + 0.1*sumsq(x); }
lower L { var y[n]; minimize sumsq(y - x)/2 + mean(abs(A @ y - b)); }
"""
# The same where the leader chooses what they weigh.
HINGES = """
model hinges;
dim n, m, p;
param X[n, p], t[n], V[m, p], v[m];
upper { var c in [-4, 4] start 0; minimize mean(softplus(-v * (V @ w))); }
lower fit { var w[p]; minimize sumsq(w)/2 + exp(c) * sum(max(0, 1 - t * (X @ w))); }
"""
# A black box of values, known by numbers alone.
VALUES = """
model values;
dim n;
extern loss(y[n], x[n]) -> [];
param t[n];
upper { var x[n] in [-2, 2] start 0.5; minimize sumsq(y - t)/2 + 0.1*sumsq(x); }
lower L { var y[n] start 0.1; assume unique; minimize loss(y, x); }
"""
# Wrong labels, found with a network of one hidden layer, of h units.
NETWORK = """
model network;
dim n, m, p, h;
set DIGIT = 0..9;
param A[n, p], t[n], V[m, p], tv[m], P0[p, h], Q0[h, DIGIT];
upper {
  var x[n] in [-3, 3];
  minimize mean(softmax_cross_entropy(tanh(V @ P) @ Q, tv));
}
lower fit {
  var P[p, h] start P0, Q[h, DIGIT] start Q0;
  minimize mean(sigmoid(x) * softmax_cross_entropy(tanh(A @ P) @ Q, t))
    + 1e-3 * (sumsq(P) + sumsq(Q)) / 2;
}
"""
# The same network on right labels, with a penalty for each layer.
PENALTIES = NETWORK.replace("var x[n] in [-3, 3];", "var x[2] in [-12, 0] start -6;").replace(
    """mean(sigmoid(x) * softmax_cross_entropy(tanh(A @ P) @ Q, t))
    + 1e-3 * (sumsq(P) + sumsq(Q)) / 2;""",
    """mean(softmax_cross_entropy(tanh(A @ P) @ Q, t))
    + exp(x[1]) * sumsq(P) / 2 + exp(x[2]) * sumsq(Q) / 2;""",
)


def _blocks(p: int) -> dict[str, Any]:
    """4,000 variables in blocks of p, two rows of data for each."""
    r, k = np.random.default_rng(0), max(4000 // p, 2)
    X = r.standard_normal((k, 2 * p, p))
    truth = r.standard_normal((k, p)) / np.sqrt(p)
    t = np.sign(np.einsum("irj,ij->ir", X, truth) + 0.5 * r.standard_normal((k, 2 * p)))
    return {"X": X, "t": t, "b": truth}


def _kernels(n: int) -> dict[str, Any]:
    """Five kernels of n points each."""
    r, count = np.random.default_rng(0), n // 4
    X, Z = r.random((5, n, 3)), r.random((5, count, 3))

    def kernel(A: np.ndarray, B: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.exp(-4.0 * ((A[:, :, None] - B[:, None]) ** 2).sum(-1))
        return found

    def response(A: np.ndarray) -> np.ndarray:
        noise = 0.1 * r.standard_normal(A.shape[:2])
        found: np.ndarray = np.sin(6.0 * A[..., 0]) * A[..., 1] + noise
        return found

    return {"K": kernel(X, X), "y": response(X), "V": kernel(Z, X), "yv": response(Z)}


def _nearest(n: int) -> dict[str, Any]:
    r = np.random.default_rng(0)
    A, T = r.standard_normal((n, n)), r.standard_normal((n, n))
    return {"A": (A + A.T) / 2, "T": T @ T.T / n}


def _kinked(n: int, r: int) -> dict[str, Any]:
    g = np.random.default_rng(0)
    A, t = g.standard_normal((r, n)), g.standard_normal(n)
    return {"A": A, "b": A @ t + 0.3 * g.standard_normal(r), "t": t}


def _hinges(n: int) -> dict[str, Any]:
    return _regression(n, n, 3)


def _values(n: int) -> dict[str, Any]:
    """A convex function of y in NumPy, its variables coupled."""
    A = _toy(n, 10.0)["A"]

    def loss(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        a, b = y.detach().numpy(), x.detach().numpy()
        return torch.tensor(a @ A @ a / 2 - np.sin(b) @ a + 0.1 * (a**4).sum(), dtype=y.dtype)

    return {"loss": loss}


def _network(h: int) -> dict[str, Any]:
    """300 digits of which a third has a label drawn anew, and 300 clean ones."""
    d, r = arrays("digits"), np.random.default_rng(0)
    X, y = d["X"][:300] / 16, d["y"][:300].copy()
    wrong = r.random(len(y)) < 1 / 3
    y[wrong] = r.integers(0, 10, int(wrong.sum()))
    return {
        "A": X,
        "t": y,
        "V": d["Xv"][:300] / 16,
        "tv": d["yv"][:300],
        "P0": r.standard_normal((64, h)) / 8,
        "Q0": r.standard_normal((h, 10)) / np.sqrt(h),
    }


def _retrained(model: bl.Model, result: bl.Result) -> float:
    """F where the network is trained anew for the labels' weights x, by SciPy, from the start."""
    oracle = bl.compile(model)
    x = result["x"]
    found = so.minimize(
        partial(oracle.f, x),
        oracle.y0,
        jac=partial(oracle.grad_f, x),
        method="L-BFGS-B",
        options={"maxiter": 500},
    )
    return oracle.F(x, found.x)


@dataclass(frozen=True)
class Family:
    """Models of one structure: text, data by size, the sizes, what these count, and who runs.

    ``known`` is the optimum by size where there is a closed form. Where no run is certified, runs
    are judged by ``score`` of what they have when the limit ends them: the lowest is best.
    ``seconds`` of processor time end a run.
    """

    name: str
    threshold: str
    text: str
    data: Callable[[int], dict[str, Any]]
    sizes: tuple[int, ...]
    backends: tuple[str, ...] = ("direct", "aid", "nbo")
    counts: str = "lower variables"
    externs: Callable[[int], dict[str, Any]] | None = None
    known: Callable[[int], float] | None = None
    score: Callable[[bl.Model, bl.Result], float] | None = None
    seconds: float = 10.0


FAMILIES = (
    Family(
        "constant Hessian, dense, kappa 100",
        "DENSE_CONSTANT",
        TOY,
        lambda n: _toy(n, 100.0),
        (250, 500, 1000, 2000, 5000),
    ),
    Family(
        "constant Hessian, dense, kappa 1e5",
        "DENSE_CONSTANT",
        TOY,
        lambda n: _toy(n, 1e5),
        (250, 1000, 2000),
    ),
    Family(
        "Hessian moves with x (ridge)",
        "DENSE_KEPT",
        RIDGE,
        lambda p: _regression(2 * p, p, p, signs=False),
        (125, 250, 500, 800, 1000, 1200),
    ),
    Family(
        "Hessian moves with y, affine predictors (logistic)",
        "DENSE_MOVING",
        LOGISTIC,
        lambda p: _regression(2 * p, p, p),
        (125, 250, 500),
    ),
    Family(
        "the same from small penalties, condition number above 100",
        "ILL",
        LOGISTIC.replace("start -2", "start -6"),
        lambda p: _regression(2 * p, p, p),
        (250, 500, 800, 1200),
        ("direct", "aid"),
    ),
    Family(
        "Hessian moves with y, no predictors",
        "DENSE_BY_PRODUCTS",
        PRODUCTS,
        _products,
        (60, 125, 250, 500),
    ),
    Family(
        "constant Hessian, dense, box, kappa 100",
        "DENSE",
        BOXED,
        lambda n: _toy(n, 100.0),
        (250, 500, 1000, 2000),
    ),
    Family(
        "240 lower variables in classes (softmax)",
        "DENSE_CLASSES",
        CLASSES,
        lambda c: _classes(480, 240, 240 // c, c),
        (3, 8, 20, 60, 120),
        ("direct", "aid"),
        "classes",
    ),
    Family(
        "5 classes (softmax)",
        "DENSE_CLASSES",
        CLASSES,
        lambda m: _classes(1000, 500, m // 5, 5),
        (250, 500, 750),
        ("direct", "aid"),
    ),
    Family(
        "quadratic follower under rows",
        "PAIRS",
        ROWS,
        _rows,
        (5, 10, 20, 40, 80, 160),
        ("exact", "nlp"),
        "rows, and as many variables",
    ),
    Family(
        "quartic follower under rows",
        "KKT",
        QUARTIC,
        _rows,
        (5, 15, 40, 100),
        ("nlp", "blocc"),
        "rows, and as many variables",
    ),
    Family(
        "logistic followers, in blocks",
        "BLOCK",
        BLOCKS,
        _blocks,
        (5, 20, 50, 100, 200),
        ("direct", "aid"),
        "lower variables in each block of 4,000",
    ),
    Family(
        "kernels, condition number above 1,000, in five blocks",
        "DENSE_MOVING",
        KERNELS,
        _kernels,
        (100, 200, 400, 800),
        ("direct", "aid"),
        "lower variables in each of 5 blocks",
    ),
    Family(
        "gradients only, few upper variables",
        "FEW_UPPER",
        FEW,
        lambda p: _few(300, p, 100.0),
        (1, 2, 5, 10, 20, 40),
        ("pzobo", "f2ba"),
        "upper variables",
    ),
    Family(
        "function values only",
        "FEW_LOWER, FEW_UPPER",
        VALUES,
        lambda n: {"t": np.linspace(-0.5, 0.5, n)},
        (2, 4, 6, 8, 10),
        ("zo",),
        "variables of each level",
        externs=_values,
    ),
    Family(
        "kinks of sums of variables",
        "FEW_LOWER",
        KINKED,
        lambda n: _kinked(n, 2 * n),
        (5, 10, 20, 30, 40),
        ("exact", "nlp"),
        "variables of each level, twice as many kinks",
    ),
    Family(
        "hinge losses whose weight moves",
        "FEW_LOWER",
        HINGES,
        _hinges,
        (5, 10, 20, 40),
        ("exact", "nlp"),
        "kinks, 3 lower variables",
    ),
    Family(
        "many kinks, followers of 5 variables",
        "WRITTEN",
        KINKED,
        lambda r: _kinked(5, r),
        (100, 1000, 3300),
        ("nlp", "zo"),
        "kinks",
        seconds=40.0,
    ),
    Family(
        "many minima",
        "SOME_LOWER, FEW_LOWER",
        MANY_MINIMA.replace("dim n = 2;", "dim n;"),
        lambda n: {"n": n},
        (2, 5, 10, 20, 40),
        ("exact", "nlp", "pbgd"),
        known=lambda n: n / (n + 1) * (1.5 * np.pi - 4) ** 2,
    ),
    Family(
        "semidefinite matrix",
        "MATRICES",
        NEAREST,
        _nearest,
        (5, 10, 15, 20, 25, 30),
        ("direct", "aid"),
        "rows of the matrix",
    ),
    Family(
        "network",
        "MANY_LOWER",
        NETWORK,
        _network,
        (1, 3, 6, 14, 30, 60),
        ("direct", "aid", "f2sa", "pbgd"),
        "hidden units, 74 weights each",
        score=_retrained,
    ),
    Family(
        "network, two penalties",
        "TRAINED",
        PENALTIES,
        _network,
        (3, 14, 30, 60, 120),
        ("aid", "f2sa"),
        "hidden units, 74 weights each",
        score=_retrained,
    ),
)
