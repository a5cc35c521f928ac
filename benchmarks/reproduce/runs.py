"""Runs on the toy family until the exact hypergradient is small, and how they compare with a
reference.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from bilevelpy.backends import registry
from bilevelpy.numerics.driver.loop import RunResult, run
from bilevelpy.options import SolveOptions
from tests.oracles import toy
from tests.unit.backends.helpers import relative_error, truth

GOAL = 1e-8
WITHIN = 0.2

Options = Mapping[str, Any]
# Iterations, lower gradients, products; or the floor of the relative error of x.
Reference = tuple[int, int, int] | float | None


@dataclass
class Measured:
    """What a run showed; the lists have an entry for each iteration."""

    iterations: int
    gradients: int
    products: int
    seconds: float
    norms: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    oracles: list[int] = field(default_factory=list)

    @property
    def reached(self) -> bool:
        """Whether the goal was met."""
        return self.norms[-1] < GOAL

    @property
    def error(self) -> float:
        """The last relative error of x."""
        return self.errors[-1]

    def spread(self) -> tuple[float, float, float]:
        """Median, 5 % and 95 % quantile of the error over the second half of the run."""
        tail = sorted(self.errors[len(self.errors) // 2 :])
        return tail[len(tail) // 2], tail[len(tail) // 20], tail[-1 - len(tail) // 20]


def measure(backend: str, options: Options, kappa: float, iterations: int) -> Measured:
    """Run until the exact hypergradient is below the goal."""
    oracle = toy(kappa)
    t = truth(oracle)
    out = Measured(0, 0, 0, 0.0)

    def reached(state: Any) -> bool:
        x = torch.tensor(state.x)
        out.norms.append(float((t.M @ (x - t.x)).norm()))
        out.errors.append(relative_error(x, t.x))
        out.oracles.append(state.counts["grad_f"] + state.counts["hvp"])
        return out.norms[-1] < GOAL or not math.isfinite(out.norms[-1])

    settings = SolveOptions(tol=1e-15, max_iter=iterations, backend_options=dict(options))
    began = time.perf_counter()
    found: RunResult = run(oracle, registry.get(backend), None, settings, callback=reached)
    out.iterations, out.seconds = found.iterations, time.perf_counter() - began
    out.gradients, out.products = found.counts["grad_f"], found.counts["hvp"]
    return out


def verdict(m: Measured, reference: Reference, *, noisy: bool = False) -> str:
    """Whether a measurement agrees with its reference: counts and floors to 20 %, floors of noise
    within the band in which the iterates move.
    """
    if reference is None:
        return ""
    if isinstance(reference, tuple):
        if not m.reached:
            return "**no**"
        pairs = zip((m.iterations, m.gradients, m.products), reference, strict=True)
        return "yes" if all(abs(a - b) <= WITHIN * b for a, b in pairs) else "**no**"
    if noisy:
        _, low, high = m.spread()
        inside = low / (1 + WITHIN) <= reference <= high * (1 + WITHIN)
        return "within the noise" if inside else "**no**"
    ratio = m.error / reference
    return "yes" if 1 / (1 + WITHIN) <= ratio <= 1 + WITHIN else "**no**"


def shown(m: Measured, *, noisy: bool = False) -> str:
    """A measurement as a cell."""
    if m.reached:
        return f"{m.iterations} / {m.gradients} / {m.products}"
    if noisy:
        middle, low, high = m.spread()
        return f"error {middle:.2g} ({low:.2g} to {high:.2g})"
    return f"error {m.error:.2g} after {m.iterations}"


def cell(value: Reference) -> str:
    """A reference as a cell."""
    if value is None:
        return "-"
    return " / ".join(map(str, value)) if isinstance(value, tuple) else f"floor {value:.2g}"
