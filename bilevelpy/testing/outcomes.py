"""What the conformance suite finds: checks, and how a run has ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.certificate.conic import ConicCheck, applies
from bilevelpy.numerics.certificate.coupled import examine_rows
from bilevelpy.numerics.certificate.examine import certify
from bilevelpy.numerics.driver.loop import RunResult
from bilevelpy.options import SolveOptions
from bilevelpy.result import Certificate
from bilevelpy.testing.cases import Case


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check on one model; ``detail`` says what was found where it failed."""

    check: str
    model: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked."""

    backend: str
    outcomes: tuple[Outcome, ...]
    rejected: Mapping[str, str]
    solved: tuple[str, ...]

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The checks that failed."""
        return tuple(o for o in self.outcomes if not o.passed)


def judged(functions: TorchOracle, raw: RunResult, facts: Structure) -> Certificate:
    """The certificate of where a run has ended."""
    rng, settings = torch.Generator().manual_seed(0), SolveOptions()
    if applies(functions):
        check = ConicCheck(functions, raw.x, raw.y, facts, settings, rng, seconds=math.inf)
        return check.run()[0]
    if functions.g.size:
        return examine_rows(functions, raw.x, raw.y, facts, settings, rng)[0]
    return certify(functions, raw.x, raw.y, facts, settings, rng)


def error_of(case: Case, x: np.ndarray, F: float) -> tuple[float, float]:
    """The larger error of x and F from the nearest known optimum, relative to ``1 + |value|``, and
    F there.
    """
    found = []
    for at, value in ((case.x, case.F), *case.local):
        exact = np.asarray(at, dtype=float)
        error = float(np.abs(x - exact).max()) / (1.0 + float(np.abs(exact).max()))
        found.append((max(error, abs(F - value) / (1.0 + abs(value))), value))
    return min(found) if all(math.isfinite(e) for e, _ in found) else (math.inf, case.F)
