"""Runs of a backend on the toy family of the field (validation case 6.1), with its closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from bilevelpy.numerics.certificate.examine import certify, settle
from bilevelpy.numerics.driver.loop import RunResult, run
from bilevelpy.options import SolveOptions
from tests.oracles import HandOracle, Quadratic, toy

Vec = torch.Tensor


@dataclass(frozen=True)
class Truth:
    """Solution, Hessian of Phi, and constants of a quadratic problem."""

    x: Vec
    M: Vec
    L_phi: float
    L: float
    mu: float


def truth(o: Quadratic) -> Truth:
    R = -torch.linalg.solve(o.A, o.C.T)
    M = o.G + o.K @ R + R.T @ o.K.T + R.T @ o.E @ R
    ev = torch.linalg.eigvalsh(o.A)
    return Truth(
        o.solution()[0], M, float(torch.linalg.eigvalsh(M)[-1]), float(ev[-1]), float(ev[0])
    )


def to_goal(
    backend: Any, kappa: float, goal: float = 1e-8, max_iter: int = 3000, **options: Any
) -> RunResult:
    """Run until the exact ``||grad Phi||`` is below the goal; no tolerance of the backend
    decides.
    """
    o = toy(kappa)
    t = truth(o)

    def reached(state: Any) -> bool:
        return float((t.M @ (torch.tensor(state.x) - t.x)).norm()) < goal

    settings = SolveOptions(tol=1e-15, max_iter=max_iter, backend_options=options)
    return run(o, backend, None, settings, callback=reached)


def solve(
    backend: Any, oracle: HandOracle, tol: float = 1e-6, max_iter: int = 500, **options: Any
) -> RunResult:
    """Run and certify."""
    settings = SolveOptions(tol=tol, max_iter=max_iter, backend_options=options)
    raw = run(oracle, backend, None, settings)
    rng = torch.Generator().manual_seed(0)
    return settle(raw, certify(oracle, raw.x, raw.y, None, settings, rng))


def relative_error(found: Vec, exact: Vec) -> float:
    return float((found - exact).norm() / exact.norm())
