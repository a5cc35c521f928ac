"""hypergrad's Neumann series around torch.optim.LBFGS: its conjugate gradients are not."""

from __future__ import annotations

from typing import Any

from benchmarks.libraries.arrays import descend, in_torch
from benchmarks.libraries.problem import Array, Drive, Problem, by_lbfgsb


def drive(problem: Problem) -> Drive:
    """By value and hypergradient."""
    torch, f, F = in_torch(problem)
    from hypergrad.approx_hypergrad import neumann

    last = [torch.zeros(problem.size, dtype=torch.float64)]

    def inner(params: Any, hyper: Any) -> Any:
        return f(params[0], hyper[0])

    def outer(params: Any, hyper: Any) -> Any:
        return F(params[0], hyper[0])

    def largest(y: Any, x: Any) -> float:
        v, size = torch.ones_like(y), 1.0
        for _ in range(20):
            v = torch.func.jvp(torch.func.grad(lambda w: f(w, x)), (y,), (v / v.norm(),))[1]
            size = float(v.norm())
        return size

    def reduced(x: Array) -> tuple[float, Array]:
        hyper = torch.tensor(x)
        y = last[0] = descend(torch, f, last[0], hyper)
        step = 1.0 / largest(y, hyper)
        (gradient,) = neumann(inner, outer, (y,), (hyper,), 500, step)
        return float(F(y, hyper)), gradient.detach().numpy().copy()

    return by_lbfgsb(problem, reduced)
