"""Passes over the data that stochastic backends take to an accuracy: ``python -m
benchmarks.stochastic``.

Writes ``docs/stochastic.md``. Everything is counted, nothing is timed: evaluations of a batch are
fractions of a pass, and what pilots and checks cost is in the figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

import bilevelpy as bl
from bilevelpy import solving
from bilevelpy.backends import registry
from bilevelpy.numerics.driver.loop import IterationState
from bilevelpy.numerics.driver.loop import run as drive
from bilevelpy.options import SolveOptions

METHODS = (
    "saba",
    "srba",
    "soba",
    "ma_soba",
    "fsla",
    "amigo_sgd",
    "stocbio",
    "nsbo",
    "f2sa",
    "fdehbo",
    "pzobo_s",
    "aid",
    "direct",
)
ACCURACIES = (1e-2, 1e-3, 1e-4, 1e-6)
ROWS, MOST = 2048, 400.0
QUADRATIC = """
model quadratic; dim k, n; param A[k, n], z[n];
upper { var x[n] start 2; minimize sum((x - z)^2) / 2 + sum((A @ y)^2) / 2; }
lower follower { var y[n] start 2; minimize sum((A @ y)^2) / 2 - sum(x * y); }
"""
LOGISTIC = """
model logistic; dim n, m, p, g; param X[n, p], y[n], Xv[m, p], yv[m], G[g, p];
upper { var lam[g] in [-8, 4] start -2;
  minimize mean(logistic(-yv * (Xv @ w))) + 1e-3 * sumsq(lam); }
lower fit { var w[p]; minimize mean(logistic(-y * (X @ w))) + sum(exp(lam @ G) * w^2) / 2; }
"""


def quadratic(kappa: float, n: int = 10) -> bl.Model:
    """Validation case 6.1 (c) as a sum over rows."""
    rng = np.random.default_rng(0)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    W, _ = np.linalg.qr(rng.standard_normal((ROWS, n)))
    A = (W * np.sqrt(np.geomspace(1.0, kappa, n))) @ Q.T
    return bl.parse(QUADRATIC, data={"A": A, "z": np.ones(n)})


def logistic(p: int = 12) -> bl.Model:
    """Logistic regression with a penalty for each of three groups of features."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(ROWS + ROWS // 2, p))
    labels = np.sign(X @ (rng.normal(size=p) * (rng.random(p) < 0.5)) + rng.normal(size=len(X)))
    G = np.kron(np.eye(3), np.ones(p // 3))
    parts = {"X": X[:ROWS], "y": labels[:ROWS], "Xv": X[ROWS:], "yv": labels[ROWS:], "G": G}
    return bl.parse(LOGISTIC, data=parts)


PROBLEMS: dict[str, Callable[[], bl.Model]] = {
    "quadratic, kappa = 2": lambda: quadratic(2.0),
    "quadratic, kappa = 100": lambda: quadratic(100.0),
    "logistic, 12 features, 3 penalties": logistic,
}


def passes(counts: object) -> float:
    """Passes over the lower data: gradients, Hessian-vector and cross products."""
    c = dict(counts)  # type: ignore[call-overload]
    return float(c["grad_f"] + c["hvp"] + c["jvp"])


def curve(model: bl.Model, name: str, exact: np.ndarray, plain: bool) -> list[tuple[float, float]]:
    """(passes, relative error of x) at every check of a run."""
    found: list[tuple[float, float]] = []

    def look(state: IterationState) -> bool:
        error = float(np.abs(state.x - exact).max() / max(np.abs(exact).max(), 1e-300))
        found.append((passes(state.counts), error))
        return found[-1][0] > MOST

    options = {"metric": "none", "prepare": "none"} if plain else {}
    settings = SolveOptions(tol=1e-8, max_iter=400, backend_options=options)
    drive(solving.oracle(model), registry.get(name), None, settings, callback=look)
    return found


def needed(points: list[tuple[float, float]], accuracy: float) -> str:
    """Passes to the first check from which on the error stays below an accuracy."""
    above = [k for k, (_, error) in enumerate(points) if error > accuracy]
    first = above[-1] + 1 if above else 0
    return f"{points[first][0]:.0f}" if first < len(points) else "-"


def table(label: str, model: bl.Model) -> list[str]:
    """A Markdown table for one problem."""
    settings = SolveOptions(tol=1e-11, max_iter=500)
    exact = drive(solving.oracle(model), registry.get("direct"), None, settings).x.numpy()
    heads = [f"to {a:g}" for a in ACCURACIES]
    lines = [
        f"### {label}",
        "",
        f"| method | start | {' | '.join(heads)} | reached |",
        "| --- |" + " --- |" * (len(heads) + 2),
    ]
    for name in METHODS:
        kinds = (False, True) if name in ("saba", "srba", "soba") else (False,)
        for plain in kinds:
            points = curve(model, name, exact, plain)
            cells = [needed(points, a) for a in ACCURACIES]
            shown = f"`{name}`" + (", plain steps" if plain else "")
            start = f"{points[0][0]:.0f}"
            lines.append(f"| {shown} | {start} | {' | '.join(cells)} | {points[-1][1]:.0e} |")
            print(lines[-1], flush=True)
    return [*lines, ""]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/stochastic.md"))
    out = parser.parse_args().out
    body = [line for label, make in PROBLEMS.items() for line in table(label, make())]
    text = out.read_text(encoding="utf-8") if out.exists() else ""
    head, mark, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    if not mark:
        head, tail = text, "\n"
    out.write_text(head + BEGIN + "\n\n" + "\n".join(body) + "\n" + END + tail, encoding="utf-8")


BEGIN, END = "<!-- counted -->", "<!-- /counted -->"

if __name__ == "__main__":
    main()
