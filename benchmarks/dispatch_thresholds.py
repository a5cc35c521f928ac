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
    _regression,
    _toy,
)
from benchmarks.measure import ROOT

STORE = ROOT / "bench-output" / "thresholds.json"
LIMIT = 10.0
# The Hessian moves with y, and neighbours are coupled: no predictor makes it cheap.
CHAIN = """
model chain;
dim n;
param t[n];
upper { var x[n] start 0.5; minimize sumsq(y - t)/2 + 0.1 * sumsq(x); }
lower L {
  var y[n] start 0.1;
  minimize sumsq(y - x)/2 + sum(y[i+1]^2 * y[i]^2 for i in n where i < n)/4 + sum(y^4)/4;
}
"""


@dataclass(frozen=True)
class Family:
    """Models of one structure: text, data by size, the sizes, and who runs."""

    name: str
    threshold: str
    text: str
    data: Callable[[int], dict[str, Any]]
    sizes: tuple[int, ...]
    backends: tuple[str, ...] = ("direct", "aid", "nbo")


FAMILIES = (
    Family(
        "constant Hessian, dense, kappa 100",
        "DENSE_CONSTANT",
        TOY,
        lambda n: _toy(n, 100.0),
        (250, 500, 1000, 2000, 3000),
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
        "Hessian moves with y, no predictors (chain)",
        "DENSE_BY_PRODUCTS",
        CHAIN,
        lambda n: {"t": np.linspace(0.2, 1.0, n)},
        (60, 125, 250, 500),
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
        "| family | decides | lower variables | CPU s |",
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
                lines.append(f"| {family.name} | `{family.threshold}` | {size:,} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
