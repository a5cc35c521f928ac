"""Where the thresholds of the decision table lie: ``python -m benchmarks.dispatch_thresholds``.

Each family of models grows in one size; two or more backends solve every member. The threshold is
where their CPU times cross. Results are kept in ``bench-output/thresholds.json``; ``--write FILE``
puts the table into a page, after its second mark.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bilevelpy as bl
from benchmarks.dispatch import measured, put
from benchmarks.dispatch_models import (
    LOGISTIC,
    RIDGE,
    TOY,
    Entry,
    _classes,
    _regression,
    _toy,
)
from benchmarks.measure import ROOT

STORE = ROOT / "bench-output" / "thresholds.json"
LIMIT = 10.0
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
CLASSES = """
model classes;
dim n, m, p, c;
param X[n, p], T[n, c] in [0, 1], V[m, p], S[m, c] in [0, 1];
upper { var lam[p] in [-6, 2] start -2; minimize mean(softmax_cross_entropy(V @ W, S)); }
lower fit {
  var W[p, c];
  minimize mean(softmax_cross_entropy(X @ W, T))
    + sum(exp(lam[j]) * W[j, k]^2 for j in p, k in c)/2;
}
"""
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


@dataclass(frozen=True)
class Family:
    """Models of one structure: text, data by size, the sizes, what these count, and who runs."""

    name: str
    threshold: str
    text: str
    data: Callable[[int], dict[str, Any]]
    sizes: tuple[int, ...]
    backends: tuple[str, ...] = ("direct", "aid", "nbo")
    counts: str = "lower variables"


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
        "DENSE_MOVING",
        RIDGE,
        lambda p: _regression(2 * p, p, p, signs=False),
        (125, 250, 500),
    ),
    Family(
        "Hessian moves with y, affine predictors (logistic)",
        "DENSE_MOVING, FEW_PASSES",
        LOGISTIC,
        lambda p: _regression(2 * p, p, p),
        (125, 250, 500),
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
        "FEW_PASSES",
        CLASSES,
        lambda c: _classes(480, 240, 240 // c, c),
        (3, 8, 20, 40, 60),
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
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.dispatch_thresholds")
    parser.add_argument("names", nargs="*", metavar="FAMILY", help="only those that start so")
    parser.add_argument("--report", action="store_true", help="only show what is stored")
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    stored: dict[str, Any] = json.loads(STORE.read_text("utf-8")) if STORE.exists() else {}
    for family in FAMILIES:
        if options.report or (options.names and not family.name.startswith(tuple(options.names))):
            continue
        for size in family.sizes:
            keys = {b: f"{family.name} | {size} | {b}" for b in family.backends}
            if all(key in stored for key in keys.values()):
                continue
            model = bl.parse(family.text, data=family.data(size))
            entry = Entry(f"{family.name} {size}", family.name, partial(bl.parse, family.text))
            bl.analyze(model)
            for backend, key in keys.items():
                stored[key] = measured(entry, model, backend, LIMIT)
                print(f"{key:70} {stored[key]['status']:12} {stored[key]['cpu']:.3f} s", flush=True)
                STORE.parent.mkdir(exist_ok=True)
                STORE.write_text(json.dumps(stored, indent=0), "utf-8")
    text = table(stored)
    print(text)
    if options.write:
        put(options.write, "thresholds", text)


def table(stored: dict[str, Any]) -> str:
    """CPU seconds by family, size and backend."""
    lines = [
        "| family | decides | size | CPU s |",
        "| --- | --- | --- | --- |",
    ]
    for family in FAMILIES:
        for size in family.sizes:
            cells = []
            for backend in family.backends:
                run = stored.get(f"{family.name} | {size} | {backend}")
                if run is None:
                    continue
                time = f"{run['cpu']:.2f}" if run["status"] == "converged" else run["status"]
                cells.append(
                    (run["cpu"] if run["status"] == "converged" else math.inf, backend, time)
                )
            if cells:
                best = min(cells)[1]
                shown = ", ".join(f"**{b} {t}**" if b == best else f"{b} {t}" for _, b, t in cells)
                size_words = f"{size:,} {family.counts}"
                lines.append(f"| {family.name} | `{family.threshold}` | {size_words} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
