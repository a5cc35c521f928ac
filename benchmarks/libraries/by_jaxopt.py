"""jaxopt.LBFGS with implicit differentiation: Cholesky for few variables, else CG."""

from __future__ import annotations

from typing import Any

from benchmarks.libraries.arrays import in_jax, warm_started
from benchmarks.libraries.problem import Drive, Problem, by_lbfgsb


def drive(problem: Problem) -> Drive:
    """By value and hypergradient."""
    jax, f, F = in_jax(problem)
    import jax.numpy as jnp
    import jaxopt
    from jaxopt.linear_solve import solve_cg, solve_cholesky

    few = problem.size <= 100

    def cg(matvec: Any, b: Any, **options: Any) -> Any:
        return solve_cg(matvec, b, tol=1e-7, maxiter=2000, **options)

    solver = jaxopt.LBFGS(
        f, maxiter=2000, tol=1e-7, history_size=20, implicit_diff=True,
        implicit_diff_solve=solve_cholesky if few else cg,
    )  # fmt: skip

    @jax.jit
    def value(x: Any, y0: Any) -> Any:
        def phi(x: Any) -> Any:
            y = solver.run(y0, x).params
            return F(y, x), y

        return jax.value_and_grad(phi, has_aux=True)(x)

    reduced = warm_started(lambda x, y: value(jnp.asarray(x), y), jnp.zeros(problem.size))
    return by_lbfgsb(problem, reduced)
