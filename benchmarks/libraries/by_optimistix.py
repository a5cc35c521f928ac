"""optimistix: Newton on the gradient for few variables, else BFGS; implicit adjoint."""

from __future__ import annotations

from typing import Any

from benchmarks.libraries.arrays import in_jax, warm_started
from benchmarks.libraries.problem import Drive, Problem, by_lbfgsb


def drive(problem: Problem) -> Drive:
    """By value and hypergradient."""
    jax, f, F = in_jax(problem)
    import jax.numpy as jnp
    import lineax as lx
    import optimistix as optx

    few = problem.size <= 1000
    direct = lx.AutoLinearSolver(well_posed=True)
    iterative = lx.CG(rtol=1e-7, atol=1e-9, max_steps=2000)

    def gradient(y: Any, x: Any) -> Any:
        return jax.grad(f)(y, x)

    @jax.jit
    def value(x: Any, y0: Any) -> Any:
        def phi(x: Any) -> Any:
            adjoint = optx.ImplicitAdjoint(linear_solver=direct if few else iterative)
            if few:
                newton = optx.Newton(rtol=1e-8, atol=1e-9, linear_solver=direct)
                found = optx.root_find(
                    gradient, newton, y0, args=x, adjoint=adjoint, max_steps=100, throw=False
                )
            else:
                found = optx.minimise(
                    f, optx.BFGS(rtol=1e-8, atol=1e-8), y0, args=x, adjoint=adjoint,
                    max_steps=2000, throw=False,
                )  # fmt: skip
            return F(found.value, x), found.value

        return jax.value_and_grad(phi, has_aux=True)(x)

    reduced = warm_started(lambda x, y: value(jnp.asarray(x), y), jnp.zeros(problem.size))
    return by_lbfgsb(problem, reduced)
