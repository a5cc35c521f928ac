"""The catalogue of the dispatcher's study: models of different structure, small to large.

Every entry makes a bound model from text and seeded data. ``F`` is the known optimum where there is
a closed form or an enumeration (all validation cases of the field); the others are judged by their
certificate alone.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp

import bilevelpy as bl
from benchmarks.measure import MODELS

Data = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A model by name; ``kind`` is a word for its structure, ``within`` bounds the error of F."""

    name: str
    kind: str
    make: Callable[[], bl.Model]
    F: float | None = None
    within: float = 1e-4


def _text(text: str, data: Callable[[], Data] | None = None, **externs: Any) -> Callable[[], Any]:
    def make() -> bl.Model:
        return bl.parse(text, data=data() if data is not None else {}, externs=externs or None)

    return make


def _file(name: str) -> Callable[[], Any]:
    return lambda: bl.load(next(MODELS.rglob(f"{name}.blv")))


def _draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- quadratic -------------------------------------------------------------------------------

TOY = """
model toy;
dim n;
param A[n, n];
upper { var x[n] start 2; minimize sumsq(x - 1)/2 + dot(y, A @ y)/2; }
lower L { var y[n] start 2; minimize dot(y, A @ y)/2 - dot(x, y); }
"""
DIAGONAL = """
model diagonal;
dim n;
param a[n] in [0, inf];
upper { var x[n] start 2; minimize sumsq(x - 1)/2 + sum(a * y^2)/2; }
lower L { var y[n] start 2; minimize sum(a * y^2)/2 - dot(x, y); }
"""
FEW = """
model few_upper;
dim n, p;
param a[n] in [0, inf], B[n, p], t[n];
upper { var x[p] start 0; minimize sumsq(y - t)/2 + 0.01 * sumsq(x); }
lower L { var y[n]; minimize sum(a * y^2)/2 - dot(B @ x, y); }
"""
INVERSE = """
model inverse;
dim n;
param A[n, n], t[n];
upper { var x[n] start 0; minimize sumsq(y - t)/2 + 1e-3 * sumsq(x)/2; }
lower L { var y[n]; minimize quad(y, A)/2 - dot(x, y); }
"""
SERIES = """
model series;
dim n;
param z[n], t[n];
upper { var s in [-5, 20] start 0; minimize mean((y - t)^2); }
lower L {
  var y[n];
  minimize sumsq(y - z)/2 + exp(s) * sum(sqrt(1e-4 + (y[i+1] - y[i])^2) for i in n where i < n);
}
"""


def _toy(n: int, kappa: float) -> Data:
    Q, _ = np.linalg.qr(_draw().standard_normal((n, n)))
    A = (Q * np.geomspace(1.0, kappa, n)) @ Q.T
    return {"A": (A + A.T) / 2}


def _laplacian(n: int, shift: float) -> Data:
    ones = np.ones(n)
    return {"A": sp.diags_array([-ones[1:], (2 + shift) * ones, -ones[1:]], offsets=[-1, 0, 1])}


def _grid(side: int, shift: float) -> Data:
    line, one = _laplacian(side, 0.0)["A"], sp.eye_array(side)
    A = sp.csr_array(sp.kron(line, one) + sp.kron(one, line) + shift * sp.eye_array(side**2))
    return {"A": A, "t": np.sin(np.arange(side**2) / 7)}


def _series(n: int) -> Data:
    t = np.sign(np.sin(np.arange(n) / 200))
    return {"t": t, "z": t + 0.3 * _draw().standard_normal(n)}


def _diagonal(n: int, kappa: float) -> Data:
    return {"a": _draw().permutation(np.geomspace(1.0, kappa, n))}


def _few(n: int, p: int, kappa: float) -> Data:
    r = _draw()
    return {**_diagonal(n, kappa), "B": r.standard_normal((n, p)), "t": r.standard_normal(n)}


def _quadratics() -> list[Entry]:
    found = []
    for n, kappa in ((2, 10.0), (100, 1.0), (100, 1e2), (100, 1e6), (1000, 1e3), (2500, 1e2)):
        exact = n / 4 if kappa == 1.0 else None
        found.append(
            Entry(
                f"toy {n}, kappa {kappa:g}",
                "quadratic, dense",
                _text(TOY, lambda n=n, k=kappa: _toy(n, k)),
                exact,
            )
        )
    for n, kappa in ((5_000, 10.0), (50_000, 1e2), (50_000, 1e6)):
        a = np.geomspace(1.0, kappa, n)
        found.append(
            Entry(
                f"diagonal {n}, kappa {kappa:g}",
                "quadratic, separable",
                _text(DIAGONAL, lambda n=n, k=kappa: _diagonal(n, k)),
                0.5 * float(np.sum(1.0 - 1.0 / (1.0 + 1.0 / a))),
            )
        )
    for n, shift in ((400, 0.1), (20_000, 0.1), (20_000, 1e-3)):
        found.append(
            Entry(
                f"tridiagonal {n}, shift {shift:g}",
                "quadratic, sparse",
                _text(TOY, lambda n=n, s=shift: _laplacian(n, s)),
            )
        )
    found.append(
        Entry("grid 10000", "quadratic, sparse", _text(INVERSE, partial(_grid, 100, 1e-3)))
    )
    found.append(Entry("series 10000", "sparse", _text(SERIES, partial(_series, 10_000))))
    for n, p, kappa in ((30_000, 3, 1e3), (3_000, 40, 1e5)):
        found.append(
            Entry(
                f"few upper {n} x {p}, kappa {kappa:g}",
                "quadratic, few upper variables",
                _text(FEW, lambda n=n, p=p, k=kappa: _few(n, p, k)),
            )
        )
    return found


# --- learning problems -----------------------------------------------------------------------

RIDGE = """
model ridge;
dim n, m, p;
param X[n, p], t[n], V[m, p], v[m];
upper { var lam[p] in [-8, 4] start -2; minimize mean((V @ w - v)^2); }
lower fit { var w[p]; minimize mean((X @ w - t)^2) + sum(exp(lam) * w^2); }
"""
LOGISTIC = """
model logistic_penalties;
dim n, m, p;
param X[n, p], t[n], V[m, p], v[m];
upper { var lam[p] in [-6, 2] start -2; minimize mean(logistic(-v * (V @ w))); }
lower fit { var w[p]; minimize mean(logistic(-t * (X @ w))) + sum(exp(lam) * w^2)/2; }
"""
ONE_PENALTY = LOGISTIC.replace("lam[p] in", "lam in").replace(
    "sum(exp(lam) * w^2)/2", "exp(lam) * sumsq(w)/2"
)
SOFTMAX = """
model softmax_penalties;
dim n, m, p;
set C = 1..5;
param X[n, p], T[n, C] in [0, 1], V[m, p], S[m, C] in [0, 1];
upper { var lam[p] in [-6, 2] start -2; minimize mean(softmax_cross_entropy(V @ W, S)); }
lower fit {
  var W[p, C];
  minimize mean(softmax_cross_entropy(X @ W, T))
    + sum(exp(lam[j]) * W[j, k]^2 for j in p, k in C)/2;
}
"""
CLEANING = """
model cleaning;
dim n, m, p;
set C = 1..3;
param X[n, p], T[n, C] in [0, 1], V[m, p], S[m, C] in [0, 1];
upper { var a[n] in [-4, 4] start 0; minimize mean(softmax_cross_entropy(V @ W, S)); }
lower fit {
  var W[p, C];
  minimize mean(sigmoid(a) * softmax_cross_entropy(X @ W, T)) + 0.01 * sumsq(W);
}
"""
HUBER = """
model robust;
dim n, m, p;
param X[n, p], t[n], V[m, p], v[m];
upper { var lam in [-6, 2] start -1; minimize mean((V @ w - v)^2); }
lower fit { var w[p]; minimize mean(huber(X @ w - t)) + exp(lam) * sumsq(w); }
"""
SVM = """
model squared_hinge;
dim n, m, p;
param X[n, p], t[n], V[m, p], v[m];
upper { var lam in [-6, 2] start -1; minimize mean(logistic(-v * (V @ w))); }
lower fit { var w[p]; minimize mean(max(0, 1 - t * (X @ w))^2) + exp(lam) * sumsq(w); }
"""
META = """
model meta;
dim k, p;
param a[k, p], b[k, p], c[k] in [0.1, 10];
upper { var x[p] start 0; minimize sum((w - b)^2)/2; }
lower task { var w[k, p]; minimize sum(c[i] * (w[i, j] - a[i, j])^2 for i in k, j in p)/2
  + sum((w[i, j] - x[j])^2 for i in k, j in p)/2; }
"""
EXTERN = """
model extern_loss;
dim p;
extern loss(w[p]) -> [] : smooth, convex(w);
param t[p];
upper { var lam in [-6, 2] start -1; minimize sumsq(w - t); }
lower fit { var w[p]; minimize loss(w) + exp(lam) * sumsq(w); }
"""


def _loss(p: int) -> Callable[[Any], Any]:
    """A logistic loss in PyTorch: the package sees a black box with derivatives."""
    import torch

    drawn = _regression(4 * p, 1, p)
    X, t = torch.from_numpy(drawn["X"]), torch.from_numpy(drawn["t"])
    return lambda w: torch.nn.functional.softplus(-t * (X @ w)).mean()


def _regression(n: int, m: int, p: int, *, sparse: bool = False, signs: bool = True) -> Data:
    r = _draw(1)
    truth = r.standard_normal(p) * (r.random(p) < 0.5) * np.sqrt(10.0 / p)

    def sample(rows: int) -> tuple[Any, np.ndarray]:
        if sparse:
            X = sp.random_array((rows, p), density=0.02, rng=r, data_sampler=r.standard_normal)
        else:
            X = r.standard_normal((rows, p)) * np.geomspace(1.0, 0.1, p)
        z = X @ truth + 0.5 * r.standard_normal(rows)
        return X, np.sign(z) if signs else z

    (X, t), (V, v) = sample(n), sample(m)
    return {"X": X, "t": t, "V": V, "v": v}


def _classes(n: int, m: int, p: int, classes: int, noise: float = 0.0) -> Data:
    r = _draw(2)
    truth = r.standard_normal((p, classes))

    def sample(rows: int, wrong: float) -> tuple[np.ndarray, np.ndarray]:
        X = r.standard_normal((rows, p))
        label = np.argmax(X @ truth + r.gumbel(size=(rows, classes)), axis=1)
        flip = r.random(rows) < wrong
        label[flip] = r.integers(classes, size=int(flip.sum()))
        return X, np.eye(classes)[label]

    (X, T), (V, S) = sample(n, noise), sample(m, 0.0)
    return {"X": X, "T": T, "V": V, "S": S}


def _meta(k: int, p: int) -> Data:
    r = _draw(3)
    return {
        "a": r.standard_normal((k, p)),
        "b": r.standard_normal((k, p)),
        "c": np.geomspace(0.2, 5.0, k),
    }


def _learning() -> list[Entry]:
    return [
        Entry(
            "ridge 60 x 10",
            "least squares",
            _text(RIDGE, partial(_regression, 60, 40, 10, signs=False)),
        ),
        Entry(
            "ridge 400 x 200",
            "least squares",
            _text(RIDGE, partial(_regression, 400, 300, 200, signs=False)),
        ),
        Entry(
            "ridge 300 x 3000, sparse",
            "least squares, sparse",
            _text(RIDGE, partial(_regression, 300, 300, 3000, sparse=True, signs=False)),
        ),
        Entry("logistic 300 x 20", "logistic", _text(LOGISTIC, partial(_regression, 300, 200, 20))),
        Entry(
            "logistic 1000 x 300", "logistic", _text(LOGISTIC, partial(_regression, 1000, 500, 300))
        ),
        Entry(
            "logistic 500 x 3000, sparse",
            "logistic, sparse",
            _text(LOGISTIC, partial(_regression, 500, 500, 3000, sparse=True)),
        ),
        Entry(
            "one penalty 20000 x 50",
            "logistic, long sum",
            _text(ONE_PENALTY, partial(_regression, 20_000, 5_000, 50)),
        ),
        Entry(
            "one penalty 2000 x 5000, sparse",
            "logistic, one penalty",
            _text(ONE_PENALTY, partial(_regression, 2000, 1000, 5000, sparse=True)),
        ),
        Entry(
            "softmax 300 x 20 x 5", "softmax", _text(SOFTMAX, partial(_classes, 300, 200, 20, 5))
        ),
        Entry(
            "softmax 500 x 150 x 5", "softmax", _text(SOFTMAX, partial(_classes, 500, 300, 150, 5))
        ),
        Entry(
            "cleaning 200 x 10",
            "weights of samples",
            _text(CLEANING, partial(_classes, 200, 200, 10, 3, 0.4)),
        ),
        Entry(
            "cleaning 2000 x 60",
            "weights of samples, long sum",
            _text(CLEANING, partial(_classes, 2000, 500, 60, 3, 0.4)),
        ),
        Entry(
            "huber 200 x 15",
            "smooth, jumps in f_yy",
            _text(HUBER, partial(_regression, 200, 100, 15, signs=False)),
        ),
        Entry(
            "squared hinge 200 x 15",
            "smooth, jumps in f_yy",
            _text(SVM, partial(_regression, 200, 100, 15)),
        ),
        *(
            Entry(
                f"extern loss {p}",
                "black box with derivatives",
                lambda p=p: bl.parse(
                    EXTERN, data={"t": np.linspace(-1, 1, p)}, externs={"loss": _loss(p)}
                ),
            )
            for p in (20, 800)
        ),
        Entry("meta 50 x 20", "quadratic, tasks", _text(META, lambda: _meta(50, 20))),
        Entry("meta 500 x 50", "quadratic, tasks", _text(META, lambda: _meta(500, 50))),
    ]


# --- simple sets -----------------------------------------------------------------------------

BOX = """
model box_response;
dim n;
param a[n] in [0, inf], t[n];
upper { var x[n] start 0.5; minimize sumsq(y - t)/2 + 0.05 * sumsq(x); }
lower L { var y[n] in [0, 1]; minimize sum(a * y^2)/2 - dot(x, y); }
"""
SIMPLEX = """
model simplex_response;
dim n;
param t[n];
upper { var x[n] start 0; minimize sumsq(y - t)/2 + 0.05 * sumsq(x); }
lower L { var y[n] in simplex; minimize sumsq(y)/2 - dot(x, y); }
"""
BALL = """
model ball_response;
dim n;
param t[n];
upper { var x[n] start 0.1; minimize sumsq(y - t)/2 + 0.05 * sumsq(x); }
lower L { var y[n] in ball(1); minimize sumsq(y - x); }
"""


def _simplex(n: int) -> Data:
    t = np.linspace(1.5, 0.5, n)
    return {"t": t / t.sum()}


def _boxed(n: int) -> Data:
    return {"a": np.geomspace(1, 100, n), "t": _draw(4).uniform(-0.2, 1.0, n)}


def _sets() -> list[Entry]:
    rho = 0.1
    small = _simplex(5)["t"]
    return [
        Entry("box 50", "box", _text(BOX, partial(_boxed, 50))),
        Entry("box 10000", "box", _text(BOX, partial(_boxed, 10_000))),
        Entry(
            "simplex 5",
            "simplex",
            _text(SIMPLEX, lambda: _simplex(5)),
            0.5 * float(((small - 0.2) ** 2).sum()) * rho / (1 + rho),
        ),
        Entry("simplex 3000", "simplex", _text(SIMPLEX, lambda: _simplex(3000))),
        Entry("ball 20", "ball", _text(BALL, lambda: {"t": np.linspace(-1, 1, 20)})),
    ]


# --- several solutions, no convexity, kinks, constraints ---------------------------------------

MERELY = """
model merely_convex;
dim n;
upper { var x[n] start 0; minimize sumsq(x - b)/2 + sum((a - 1)^2)/2; }
lower L { var a[n] start 0; var b[n] start 5; minimize sumsq(a)/2 - dot(x, a); }
"""
UNDER = """
model underdetermined;
dim n, m, p;
param X[n, p], t[n], V[m, p], v[m];
upper { var s[n] start 0; minimize mean((V @ w - v)^2) + 0.1 * sumsq(s); }
lower L { var w[p]; minimize sum((X @ w - t - s)^2); }
"""
FLAT_BOX = """
model flat_box;
dim n;
upper { var x[n] in [-3, 3] start 0.2; minimize sumsq(x - b)/2 + sum((a - 1)^2)/2; }
lower L { var a[n]; var b[n] in [0, 0.5]; minimize sumsq(a)/2 - dot(x, a); }
"""
SET_VALUED = """
model set_valued;
upper { var x in [-2, 2] start 0.7; minimize x^2 + y; }
lower L { var y in [-1, 1]; minimize x * y; }
"""
PL = """
model pl;
upper {
  var x in [0, 3] start 1.5;
  minimize cos(4*y + 2)/(1 + exp(2 - 4*x)) + log((4*x - 2)^2 + 1)/2;
}
lower L { var y start 0; minimize (x + y)^2 + x*sin(x + y)^2; }
"""
MANY_MINIMA = """
model many_minima;
dim n = 2;
upper { var x start 2; minimize (x - 2)^2 + sum((y - 2)^2); }
lower L { var y[n] start 0; minimize sum(sin(x + y)); }
"""
LASSO = """
model lasso;
upper { var x in [0, 3] start 0.2; minimize (y - 1)^2/2; }
lower L { var y; minimize (y - 2)^2/2 + x*abs(y); }
"""
EQUALITY = """
model coupled_equality;
dim n = 3;
upper { var x[n] start 0; minimize sumsq(x - b)/2 + sum((a - 1)^2)/2; }
lower L {
  var a[n], b[n];
  minimize sumsq(a)/2 - dot(x, a) + sum(b);
  subject to balance: sum(x) + sum(a) + sum(b) == 0;
}
"""
GAFFA = """
model coupled_equality_two;
dim n = 3;
upper { var x[n] start 0; minimize dot(a - 2, x - 1) + sum((b + 3)^2); }
lower L {
  var a[n], b[n];
  minimize sumsq(a)/2 - dot(x, a) + sum(b);
  subject to balance: sum(x) + sum(a) + sum(b) == 0;
}
"""
BLOCC = """
model coupled_inequality;
upper { var x in [0, 3] start 2; minimize exp(2 - y)/(2 + cos(6*x)) + log((4*x - 2)^2 + 1)/2; }
lower L { var y; minimize (y - 2*x)^2; subject to cap: y <= x; }
"""


def _wide() -> Data:
    r = _draw()
    V = r.standard_normal((30, 20))
    return {
        "X": r.standard_normal((8, 20)),
        "t": r.standard_normal(8),
        "V": V,
        "v": V @ r.standard_normal(20) * 0.3,
    }


def _hard() -> list[Entry]:
    return [
        Entry("merely convex 3", "merely convex", _text(MERELY, partial(dict, n=3)), 0.0),
        Entry("merely convex 300", "merely convex", _text(MERELY, partial(dict, n=300)), 0.0, 1e-2),
        Entry(
            "merely convex 10000", "merely convex", _text(MERELY, partial(dict, n=10_000)), 0.0, 1.0
        ),
        Entry("underdetermined 8 x 20", "merely convex", _text(UNDER, _wide)),
        Entry("flat box 3", "merely convex, box", _text(FLAT_BOX, partial(dict, n=3)), 0.1875),
        Entry("set valued", "several solutions", _text(SET_VALUED), -1.0),
        Entry("pl", "not convex", _text(PL), 0.199911, 1e-3),
        Entry("many minima", "not convex", _text(MANY_MINIMA), 0.338332),
        Entry("lasso", "kinks", _text(LASSO), 0.0),
        Entry("coupled equality", "constraints", _text(EQUALITY), 0.15),
        Entry("coupled equality 2", "constraints", _text(GAFFA), 0.0),
        Entry("coupled inequality", "constraints", _text(BLOCC), 1.721879),
    ]


def _stored() -> list[Entry]:
    """The models of the repository, but those that take minutes."""
    known = tomllib.loads((MODELS / "catalog.toml").read_text("utf-8"))
    return [
        Entry(f"models/{name}", str(entry["class"]), _file(name))
        for name, entry in known.items()
        if not entry.get("slow", False)
    ]


def catalogue() -> list[Entry]:
    """All entries; names are unique."""
    return [*_quadratics(), *_learning(), *_sets(), *_hard(), *_stored()]
