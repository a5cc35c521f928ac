"""The toys of LV-HBA, BiC-GAFFA and BLOCC: lower levels with coupled constraints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

import bilevelpy as bl
from bilevelpy import solving
from bilevelpy.backends import registry
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.driver.loop import run
from bilevelpy.options import SolveOptions

COUPLED = """\
model coupled_equality;
dim n;
upper {
  var x[n] start 10;
  minimize sum((x - b)^2) / 2 + sum((a - 1)^2) / 2;
}
lower follower {
  var a[n] start 10;
  var b[n] start 10;
  minimize sum(a^2) / 2 - sum(x * a) + sum(b);
  subject to balance: sum(x) + sum(a) + sum(b) == 0;
}
"""
GAP = """\
model coupled_cubic;
dim n;
param p;
upper {
  var x[n] start 0;
  minimize sum((a - 2) * (x - 1)) + sum((b + 3)^2);
}
lower follower {
  var a[n] start 0;
  var b[n] start 0;
  minimize sum(a^2) / 2 - sum(x * a) + sum(b);
  subject to balance: sum(x^p) + sum(a) + sum(b) == 0;
}
"""
ACTIVE = """\
model coupled_inequality;
param w, q, x0;
upper {
  var x in [0, 3] start x0;
  minimize exp(2 - y) / (2 + cos(w * x)) + log((4 * x - 2)^2 + 1) / 2 + q * x^2;
}
lower follower {
  var y start 0;
  minimize (y - 2 * x)^2;
  subject to cap: y <= x;
}
"""
# Local minima (x, F) of the hyper-objective, found by scanning it.
MINIMA = {
    (6.0, 0.0): (
        (0.148890, 2.968499),
        (0.986225, 1.721879),
        (2.019720, 2.156115),
        (2.990775, 2.445735),
    ),
    (4.0, 1.0): ((0.300705, 2.654498), (1.162695, 3.584997)),
}


def oracle(text: str, **data: Any) -> TorchOracle:
    """A model as functions."""
    return solving.oracle(bl.parse(text, data=data))


def errors(
    functions: TorchOracle, backend: str, options: Mapping[str, Any], x: float, at: tuple[int, ...]
) -> dict[int, float]:
    """Relative errors of x (all entries equal at the solution) after some iterations."""
    found: dict[int, float] = {}
    size = abs(x) * math.sqrt(functions.n)

    def note(state: Any) -> None:
        found[500 * state.iteration] = float((torch.tensor(state.x) - x).norm()) / size

    settings = SolveOptions(
        tol=1e-15, max_iter=max(at) // 500, backend_options={**options, "stride": 500}
    )
    run(functions, registry.get(backend), None, settings, callback=note)
    return {k: found[k] for k in at}


LVHBA = {
    0.3: {1500: 0.079, 5000: 0.057, 20000: 0.039, 100000: 0.024},
    0.45: {1500: 0.028, 5000: 0.017, 20000: 0.0091, 100000: 0.0045},
}
GAFFA = {
    1: {5000: 0.50, 20000: 0.033, 100000: 1.6e-8},
    3: {5000: 0.44, 20000: 0.015, 100000: 9e-10},
}


def _rows(title: str, found: Mapping[int, float], reference: Mapping[int, float]) -> list[str]:
    return [f"| {title} | {k} | {found[k]:.2g} | {reference[k]:.2g} |" for k in found]


def single_loops(longest: int) -> list[str]:
    """The papers' single loops of LV-HBA and BiC-GAFFA with 100 upper variables."""
    lines = ["| loop | iterations | relative error of x | reference |", "| --- | --- | --- | --- |"]
    for power, reference in LVHBA.items():
        options = {"gamma1": 1.0, "gamma2": 1.0, "c": 1.0, "eta": 0.1, "alpha": 0.05, "beta": 0.1}
        at = tuple(k for k in reference if k <= longest)
        found = errors(
            oracle(COUPLED, n=100),
            "lvhba",
            {**options, "power": power, "bound": 1000.0, "loop": "single"},
            -0.3,
            at,
        )
        lines += _rows(f"LV-HBA, p = {power}", found, reference)
    for exponent, reference in GAFFA.items():
        options = {"gamma1": 10.0, "gamma2": 1.0, "c": 1.0, "most": 10.0, "power": 0.3}
        steps = {"eta": 0.01, "alpha": 0.001, "beta": 0.001, "bound": 1.0, "normalise": False}
        at = tuple(k for k in reference if k <= longest)
        found = errors(
            oracle(GAP, n=100, p=exponent),
            "gaffa",
            {**options, **steps, "loop": "single"},
            1.0,
            at,
        )
        lines += _rows(f"BiC-GAFFA, h = sum x^{exponent}", found, reference)
    return lines


def minima() -> list[str]:
    """Where BLOCC and BiC-GAFFA end on the toys with an active coupled inequality."""
    lines = [
        "| toy | start | backend | x | F | nearest local minimum |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (w, q), known in MINIMA.items():
        for start in (0.1, 1.0, 2.2, 2.8):
            for backend in ("blocc", "gaffa"):
                o = oracle(ACTIVE, w=w, q=q, x0=start)
                found = run(o, registry.get(backend), None, SolveOptions(max_iter=300))
                x, F = float(found.x[0]), found.F
                near = min(known, key=lambda p: abs(p[0] - x))
                toy = f"cos {w:g}x" + (" + x^2" if q else "")
                lines.append(
                    f"| {toy} | {start} | {backend} | {x:.6f} | {F:.6f} "
                    f"| ({near[0]:.6f}, {near[1]:.6f}) |"
                )
    return lines
