"""TorchOpt's custom_root with its conjugate gradients around torch.optim.LBFGS."""

from __future__ import annotations

from typing import Any

from benchmarks.libraries.arrays import descend, in_torch
from benchmarks.libraries.problem import Array, Drive, Problem, by_lbfgsb


def drive(problem: Problem) -> Drive:
    """By value and hypergradient."""
    torch, f, F = in_torch(problem)
    import torchopt

    def optimality(y: Any, x: Any) -> Any:
        return torch.func.grad(f)(y, x)

    solve = torchopt.linear_solve.solve_cg(rtol=1e-7, atol=1e-10, maxiter=2000)

    @torchopt.diff.implicit.custom_root(optimality, argnums=1, solve=solve)
    def lower(y: Any, x: Any) -> Any:
        return descend(torch, f, y, x)

    last = [torch.zeros(problem.size, dtype=torch.float64)]

    def reduced(x: Array) -> tuple[float, Array]:
        hyper = torch.tensor(x, requires_grad=True)
        y = lower(last[0], hyper)
        value = F(y, hyper)
        (gradient,) = torch.autograd.grad(value, hyper)
        last[0] = y.detach()
        return float(value), gradient.numpy()

    return by_lbfgsb(problem, reduced)
