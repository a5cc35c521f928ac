"""The losses of a task in JAX and in PyTorch, and what the libraries on each have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.libraries.problem import Array, Problem, Reduced


def in_jax(problem: Problem) -> tuple[Any, Any, Any]:
    """jax with 64 bits, f and F."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    class Functions:
        exp, sigmoid, softplus = jnp.exp, jax.nn.sigmoid, jax.nn.softplus

        @staticmethod
        def logsumexp(Z: Any) -> Any:
            return jax.nn.logsumexp(Z, axis=-1)

    data = {k: jnp.asarray(v) for k, v in problem.data.items()}
    return jax, problem.lower(Functions, data), problem.upper(Functions, data)


def warm_started(value: Callable[[Any, Any], Any], zero: Any) -> Reduced:
    """Value and hypergradient, the lower level from its last solution."""
    last = [zero]

    def reduced(x: Array) -> tuple[float, Array]:
        (F, y), gradient = value(x, last[0])
        if bool(np.isfinite(np.asarray(y)).all()):
            last[0] = y
        return float(F), np.asarray(gradient, dtype=float)

    return reduced


def in_torch(problem: Problem) -> tuple[Any, Any, Any]:
    """torch with one thread, f and F."""
    import torch

    torch.set_num_threads(1)

    class Functions:
        exp, sigmoid = torch.exp, torch.sigmoid
        softplus = torch.nn.functional.softplus

        @staticmethod
        def logsumexp(Z: Any) -> Any:
            return torch.logsumexp(Z, -1)

    data = {k: torch.as_tensor(v) for k, v in problem.data.items()}
    return torch, problem.lower(Functions, data), problem.upper(Functions, data)


def descend(torch: Any, f: Any, y: Any, x: Any, iterations: int = 2000, tol: float = 1e-7) -> Any:
    """torch.optim.LBFGS from the last solution: the torch libraries leave the solver to us."""
    y = y.detach().clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [y], max_iter=iterations, tolerance_grad=tol, tolerance_change=1e-14, history_size=20,
        line_search_fn="strong_wolfe",
    )  # fmt: skip
    x = x.detach()

    def closure() -> Any:
        solver.zero_grad()
        loss = f(y, x)
        loss.backward()
        return loss

    solver.step(closure)
    return y.detach()
