"""Runs of a backend on the toy family of the field (validation case 6.1), with its closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bilevelpy.lowering.domains.product import project_simplex
from bilevelpy.numerics.certificate.examine import certify, settle
from bilevelpy.numerics.driver.loop import RunResult, run
from bilevelpy.options import SolveOptions
from tests.oracles import HandOracle, Quadratic, toy, vec

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


def counter_example() -> Quadratic:
    """F = |x - y2|^2/2 + |y1 - 1|^2/2, f = y1^2/2 - x y1; start 0.01."""
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    return Quadratic(
        torch.diag(vec(1.0, 0.0)),
        -torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        zero,
        torch.eye(2, dtype=torch.float64),
        one,
        -torch.tensor([[0.0, 1.0]], dtype=torch.float64),
        vec(-1.0, 0.0),
        vec(0.0),
        vec(0.01),
        vec(0.01, 0.01),
        offset=0.5,
    )


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


def symmetric(rng: np.random.Generator, n: int) -> np.ndarray:
    """A random symmetric matrix."""
    a = rng.standard_normal((n, n))
    return (a + a.T) / 2


def with_trace(a: np.ndarray, trace: float) -> np.ndarray:
    """The nearest positive semidefinite matrix of that trace."""
    values, vectors = np.linalg.eigh(a)
    near = trace * project_simplex(torch.from_numpy(values[None] / trace))[0].numpy()
    return (vectors * near) @ vectors.T
