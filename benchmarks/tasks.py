"""The tasks of the races: models, data, and the hand-written problem beside each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

import bilevelpy as bl
from benchmarks.by_hand import Followers, SimplexQP, SparseLogistic, Toy
from benchmarks.measure import MODELS
from tests.models.catalogue import (
    arrays,
    breast_cancer_problem,
    diabetes_problem,
    digits_problem,
)
from tests.reference.hyper_cleaning import HyperCleaning
from tests.reference.logistic import PenalisedLogistic
from tests.reference.small import conditioned_matrix
from tests.reference.softmax import PenalisedSoftmax


@dataclass
class Race:
    """One task: how to make both sides, and where they start.

    ``unit`` multiplies F for the yardstick's optimizer, whose first step is as long as the
    gradient; ``judge`` makes a more accurate yardstick where the one that runs is inexact.
    """

    name: str
    model: Callable[[], bl.Model]
    problem: Callable[[], Any]
    start: np.ndarray
    low: float = -np.inf
    high: float = np.inf
    repeats: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    unit: float = 1.0
    judge: Callable[[], Any] | None = None


QUADRATIC = """
model toy;
dim n;
param A[n, n];
upper { var x[n] start 2; minimize sum((x[i] - 1)^2 for i in n)/2 + quad(y, A)/2; }
lower follow { var y[n] start 2; minimize quad(y, A)/2 - dot(x, y); }
"""
TEXT = """
model text;
dim n, m, p;
param X[n, p], y[n], Xv[m, p], yv[m];
upper { var lam[p] in [-10, 2] start -4; minimize mean(logistic(-yv * (Xv @ w))); }
lower fit { var w[p]; minimize mean(logistic(-y * (X @ w))) + sum(exp(lam) * w^2) / 2; }
"""
SIMPLEX = """
model shares;
dim n;
param A[n, n], t[n];
upper { var x[n]; minimize sumsq(y - t) / 2 + 1e-3 * sumsq(x) / 2; }
lower choose { var y[n] in simplex; minimize quad(y, A) / 2 - dot(x, y); }
"""
FAMILY = """
model family;
dim firm, k;
param c[firm, k], S[firm, k], t[firm, k];
upper {
  var x[k] in [-2, 2];
  minimize sum((follow.y[i, j] - t[i, j])^2 for i in firm, j in k) / card(firm) + 1e-2 * sumsq(x);
}
lower follow[i in firm] {
  var y[k];
  minimize sum(softplus(y[j] - c[i, j]) for j in k)
      + sum(S[i, j] * (y[j] - x[j])^2 for j in k) / 2 + sum(y[j] for j in k)^2 / 20;
}
"""
TWO = (MODELS / "digits.blv").read_text("utf-8").partition("\nexpect")[0]


def reflected_matrix(n: int, condition: float) -> np.ndarray:
    """``P'DP`` with two reflections in P and eigenvalues D from 1 to ``condition``: dense, in n^2
    operations.
    """
    draw = np.random.default_rng(0)
    A = np.diag(np.geomspace(1.0, condition, n))
    for _ in range(2):
        v = draw.standard_normal(n)
        v /= np.linalg.norm(v)
        A -= 2.0 * np.outer(v, v @ A)
        A -= 2.0 * np.outer(A @ v, v)
    return 0.5 * (A + A.T)


def quadratic(n: int) -> Race:
    """The quadratic problem with condition number 1,000."""
    A = conditioned_matrix(n, 1000) if n < 5000 else reflected_matrix(n, 1000)
    return Race(
        f"quadratic, n_y = {n:,}, condition 1,000",
        lambda: bl.parse(QUADRATIC, data={"A": A}),
        lambda: Toy(A),
        np.full(n, 2.0),
        repeats=3 if n < 5000 else 2,
    )


def file(name: str, problem: Callable[[], Any], start: np.ndarray, low: float, high: float) -> Race:
    """A model of the collection."""
    path = MODELS / f"{name}.blv"
    return Race(name, lambda: bl.load(path), problem, start, low, high)


def two_digits() -> Race:
    """Digits again with the first two classes only (a softmax of two)."""
    d = arrays("digits")
    keep, held = d["y"] < 2, d["yv"] < 2
    data = {
        "X": d["X"][keep], "y": d["y"][keep], "Xv": d["Xv"][held], "yv": d["yv"][held],
        "Xt": d["Xt"], "yt": np.minimum(d["yt"], 1),
    }  # fmt: skip
    text = TWO.replace("set DIGIT = 0..9;", "set DIGIT = 0..1;")

    def problem() -> PenalisedSoftmax:
        return PenalisedSoftmax(data["X"] / 16, data["y"], data["Xv"] / 16, data["yv"], 2, 1e-3)

    return Race(
        "digits, two classes", lambda: bl.parse(text, data=data), problem, np.full(64, -4.0), -6, 2
    )


LOGISTIC = """
model logistic;
dim n, m, p;
param X[n, p], s[n], V[m, p], t[m];
upper { var lam[p] in [-8, 2] start -2; minimize mean(softplus(-t * (V @ w + b))); }
lower fit {
  var w[p], b;
  minimize mean(softplus(-s * (X @ w + b))) + sum(exp(lam) * w^2) / 2 + 1e-3 * b^2 / 2;
}
"""


def logistic(rows: int, held: int, features: int) -> Race:
    """A penalty per feature of a logistic regression with many rows of few features."""
    draw = np.random.default_rng(0)
    truth = draw.standard_normal(features) * (draw.random(features) < 0.5)
    X, V = draw.standard_normal((rows, features)), draw.standard_normal((held, features))
    s, t = (np.sign(M @ truth + 2 * draw.standard_normal(len(M))) for M in (X, V))
    return Race(
        f"logistic, {rows:,} + {held:,} rows of {features} features",
        lambda: bl.parse(LOGISTIC, data={"X": X, "s": s, "V": V, "t": t}),
        lambda: PenalisedLogistic(X, s, V, t, 1e-3), np.full(features, -2.0), -8, 2,
    )  # fmt: skip


def text(rows: int, features: int) -> Race:
    """Sparse rows like those of texts: counts by a power law, 60 entries a row."""
    draw = np.random.default_rng(0)
    shares = 1.0 / np.arange(1, features + 1) ** 0.8

    def make(count: int) -> Any:
        columns = draw.choice(features, size=(count, 60), p=shares / shares.sum())
        place = (np.repeat(np.arange(count), 60), columns.reshape(-1))
        matrix = sp.csr_array((np.ones(place[0].size), place), shape=(count, features))
        return sp.csr_array(matrix / np.sqrt(60.0))

    truth = draw.standard_normal(features) * (draw.random(features) < 0.2) * 8
    X, Xv = make(rows), make(rows // 2)
    y, yv = (np.sign(M @ truth + draw.standard_normal(M.shape[0])) for M in (X, Xv))
    data = {"X": X, "y": y, "Xv": Xv, "yv": yv}
    return Race(
        f"sparse text, {rows:,} x {features:,}",
        lambda: bl.parse(TEXT, data=data),
        lambda: SparseLogistic(X, y, Xv, yv),
        np.full(features, -4.0), -10, 2, repeats=1,
        options={"time_limit": 300},
    )  # fmt: skip


def simplex(n: int, seed: int | None = None) -> Race:
    """Shares on a simplex: the response has kinks, so that both may end at local optima."""
    draw = np.random.default_rng(n if seed is None else seed)
    A = conditioned_matrix(n, 100)
    t = draw.dirichlet(np.full(n, 0.3))
    data = {"A": A, "t": t}
    return Race(
        f"simplex, n_y = {n}", lambda: bl.parse(SIMPLEX, data=data),
        lambda: SimplexQP(A, t, 1e-3), np.zeros(n),
    )  # fmt: skip


def followers(count: int, size: int = 5) -> Race:
    """A family of small followers."""
    draw = np.random.default_rng(0)
    c, t = draw.standard_normal((count, size)), 0.3 * draw.standard_normal((count, size))
    S = 1 + draw.random((count, size))
    return Race(
        f"{count:,} followers of {size} variables",
        lambda: bl.parse(FAMILY, data={"c": c, "S": S, "t": t}),
        lambda: Followers(c, S, t), np.zeros(size), -2, 2,
    )  # fmt: skip


def cleaning() -> Race:
    """MNIST cleaning as in the collection."""
    d = arrays("hyper_cleaning")

    def problem(tolerance: float = 1e-5, adjoint: float = 1e-3) -> HyperCleaning:
        X, V = d["X"] / 255, d["Xv"] / 255
        return HyperCleaning(X, d["y"], V, d["yv"], 10, 2e-3, tolerance, adjoint)

    path = MODELS / "hyper_cleaning.blv"
    return Race(
        "cleaning, MNIST", lambda: bl.load(path), problem, np.zeros(len(d["y"])), -3, 3, repeats=1,
        options={"time_limit": 600}, unit=len(d["y"]), judge=lambda: problem(1e-9, 1.0),
    )  # fmt: skip


def digits_cleaning() -> Race:
    """Cleaning of the small digits: a third of 600 labels drawn anew."""
    d = arrays("digits")
    draw = np.random.default_rng(0)
    labels = d["y"].copy()
    wrong = draw.random(len(labels)) < 1 / 3
    labels[wrong] = draw.integers(0, 10, int(wrong.sum()))
    X, V = d["X"] / 16, d["Xv"] / 16
    text = """
model cleaning;
dim n, m, p;
set DIGIT = 0..9;
param A[n, p], y[n], V[m, p], yv[m];
upper {
  var x[n] in [-3, 3];
  let Z[i in m, k in DIGIT] = (V @ W)[i, k] + b[k];
  minimize mean(softmax_cross_entropy(Z, yv));
}
lower fit {
  var W[p, DIGIT], b[DIGIT];
  let Zn[i in n, k in DIGIT] = (A @ W)[i, k] + b[k];
  minimize mean(sigmoid(x) * softmax_cross_entropy(Zn, y)) + 2e-3 * (sumsq(W) + sumsq(b)) / 2;
}
"""
    data = {"A": X, "y": labels, "V": V, "yv": d["yv"]}

    def problem(tolerance: float, adjoint: float) -> HyperCleaning:
        return HyperCleaning(X, labels, V, d["yv"], 10, 2e-3, tolerance, adjoint)

    return Race(
        "cleaning, digits", lambda: bl.parse(text, data=data),
        lambda: problem(1e-6, 1e-3), np.zeros(len(labels)), -3, 3,
        repeats=2, unit=len(labels), judge=lambda: problem(1e-9, 1.0),
    )  # fmt: skip


RACES: dict[str, Callable[[], Race]] = {
    "quadratic-100": lambda: quadratic(100),
    "quadratic-1000": lambda: quadratic(1000),
    "quadratic-5000": lambda: quadratic(5000),
    "breast_cancer": lambda: file("breast_cancer", breast_cancer_problem, np.zeros(30), -6, 2),
    "diabetes": lambda: file("diabetes_ridge", diabetes_problem, np.zeros(10), -8, 2),
    "digits": lambda: file("digits", digits_problem, np.full(64, -4.0), -6, 2),
    "digits-two": two_digits,
    "logistic-22": lambda: logistic(50_000, 92_000, 22),
    "text": lambda: text(8000, 5000),
    "cleaning-digits": digits_cleaning,
    "cleaning-mnist": cleaning,
    "simplex-20": lambda: simplex(20),
    "simplex-100": lambda: simplex(100),
    "simplex-500": lambda: simplex(500),
    "followers": lambda: followers(1000),
}
