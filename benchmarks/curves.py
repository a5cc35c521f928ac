"""How time and memory grow with the size of a problem: certified solves, with fitted slopes.

A slope is the exponent in ``time ~ size^slope``, fitted over the upper half of the sizes, where
calls no longer dominate. Where the mathematics is linear it should be at most 1. Times are CPU
seconds of one thread, from a compiled model. Memory is the peak of a process of its own above that
of one that solves the smallest size.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import bilevelpy as bl
from benchmarks.measure import Row, in_subprocess, peak_megabytes, seconds
from benchmarks.tasks import FAMILY, QUADRATIC
from tests.reference.small import conditioned_matrix

SEPARABLE = """
model separable;
dim n;
param S[n], t[n];
upper { var x in [-2, 2]; minimize sum((y - t)^2) / card(n); }
lower l { var y[n]; minimize sum(S[i] * (y[i] - x)^2 / 2 + softplus(y[i]) for i in n); }
"""
LOGISTIC = """
model logistic;
dim n, m, p;
param X[n, p], s[n], V[m, p], t[m];
upper { var c in [-8, 2]; minimize mean(softplus(-t * (V @ w))); }
lower fit { var w[p]; minimize mean(softplus(-s * (X @ w))) + exp(c) * sumsq(w) / 2; }
"""


def _separable(n: int) -> bl.Model:
    draw = np.random.default_rng(0)
    return bl.parse(SEPARABLE, data={"S": 1 + draw.random(n), "t": draw.standard_normal(n)})


def _samples(n: int) -> bl.Model:
    draw = np.random.default_rng(0)
    w = draw.standard_normal(20)
    X, V = draw.standard_normal((n, 20)), draw.standard_normal((n // 2, 20))
    s, t = (np.sign(M @ w + 2 * draw.standard_normal(len(M))) for M in (X, V))
    return bl.parse(LOGISTIC, data={"X": X, "s": s, "V": V, "t": t})


def _followers(n: int) -> bl.Model:
    draw = np.random.default_rng(0)
    c, t = draw.standard_normal((n, 3)), 0.3 * draw.standard_normal((n, 3))
    return bl.parse(FAMILY, data={"c": c, "t": t, "S": 1 + draw.random((n, 3))})


def _condition(n: int) -> bl.Model:
    return bl.parse(QUADRATIC, data={"A": conditioned_matrix(200, n)})


CURVES: dict[str, tuple[Callable[[int], bl.Model], list[int]]] = {
    "n_y (separable)": (_separable, [10, 100, 1000, 10_000, 100_000]),
    "samples (logistic, 20 features)": (_samples, [1000, 10_000, 100_000, 1_000_000, 10_000_000]),
    "followers (3 variables each)": (_followers, [1, 10, 100, 1000, 10_000, 100_000]),
    "condition number (quadratic, n_y = 200)": (_condition, [10, 1000, 100_000, 1_000_000]),
}


# Megabytes from which on memory is told from noise.
LEAST = 20.0


def measure(make: Callable[[int], bl.Model], sizes: list[int]) -> list[float]:
    """CPU seconds of a certified solve at each size."""
    times = []
    for size in sizes:
        model = make(size)
        bl.solve(model, progress=False, max_iter=1, verify=False)  # compiles and analyses
        best = float("inf")
        for _ in range(2 if size <= 10_000 else 1):
            began = time.process_time()
            bl.solve(model, progress=False)
            best = min(best, time.process_time() - began)
        times.append(best)
    return times


def peaks(name: str, sizes: list[int]) -> list[float]:
    """Megabytes at the peak of a process for each size, less those of the smallest one."""
    found = [float(in_subprocess("benchmarks.curves", name, str(n))["peak"]) for n in sizes]
    return [max(peak - found[0], 0.0) for peak in found]


def slope(sizes: list[int], times: list[float]) -> float:
    """Exponent over the upper half of the sizes."""
    half = len(sizes) // 2 if len(sizes) > 2 else 0
    return float(np.polyfit(np.log(sizes[half:]), np.log(times[half:]), 1)[0])


def run(names: list[str] | None = None, plots: Any = None) -> Iterator[Row]:
    """One row per curve."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in names or list(CURVES):
            make, sizes = CURVES[name]
            times = measure(make, sizes)
            found = slope(sizes, times)
            note = ", ".join(f"{n:,}: {seconds(t)}" for n, t in zip(sizes, times, strict=True))
            if plots is not None:
                _draw(plots / f"curve-{name.split()[0]}.svg", name, sizes, times)
            yield Row(f"cost of {name}", f"slope {found:.2f}", "", None, "1", note)
            taken = peaks(name, sizes)
            note = ", ".join(f"{n:,}: {t:,.0f} MB" for n, t in zip(sizes, taken, strict=True))
            # Below some megabytes an allocator decides.
            first = next((k for k, t in enumerate(taken) if t > LEAST), len(sizes))
            grown = "small"
            if first < len(sizes) - 1:
                grown = f"slope {slope(sizes[first:], taken[first:]):.2f}"
            yield Row(f"memory of {name}", grown, "", None, "1", note)
    finally:
        torch.set_num_threads(threads)


def _draw(path: Any, name: str, sizes: list[int], times: list[float]) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    axes.loglog(sizes, times, "o-")
    axes.set(xlabel=name, ylabel="CPU seconds", title=f"slope {slope(sizes, times):.2f}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def main(name: str, size: int) -> None:
    """One solve; prints the peak of this process."""
    bl.solve(CURVES[name][0](size), progress=False)
    print(json.dumps({"peak": peak_megabytes()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
