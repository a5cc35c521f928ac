"""Solves side by side with other libraries: ``python -m benchmarks libraries``.

Every library gets the same data, start and upper optimizer (SciPy's L-BFGS-B on its value and
hypergradient), a lower solver of its own and tuned tolerances; what counts is the true upper
objective, at the exactly re-solved lower level, within 1e-4 (relative) of the lowest one. ``warm``
leaves out compilation, theirs and ours; ``first`` has it. Each library runs in a process of its own
by the interpreter of the variable BENCH_PYTHON (default: this one); a row says why it is missing.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.measure import ROOT, Row, seconds
from benchmarks.races import RACES, Race, ours
from tests.reference.upper import minimise

Array = np.ndarray[Any, np.dtype[np.float64]]
Reduced = Callable[[Array], tuple[float, Array]]
TASKS = ("quadratic-1000", "logistic-22", "breast_cancer", "cleaning-digits")
LIBRARIES = ("jaxopt", "optimistix", "torchopt", "hypergrad")
# What these need that this comparison does not give them.
OTHERS = {
    "Betty": "runs unrolled or single-level steps by its own engine: no value and hypergradient",
    "BOAT": "likewise; its conjugate gradients return 0 where the Hessian is the identity",
}
GOAL = 1e-4
# Seconds after which a library is stopped.
LIMIT = 10.0
clock = time.process_time


class OutOfTime(Exception):
    """The limit was met."""


def race_of(task: str) -> Race:
    """The task as a race."""
    return RACES[task]()


def run(names: list[str] | None = None) -> Iterator[Row]:
    """A row for each task and library."""
    for task in names or TASKS:
        race = race_of(task)
        model = race.model()
        first = ours(model, race.options)
        warm = min((ours(model, race.options) for _ in range(3)), key=lambda c: c.total)
        lowest = warm.values[-1]
        for library in LIBRARIES:
            yield _row(race, task, library, lowest, first, warm)
        if task == TASKS[-1]:
            for name, why in OTHERS.items():
                yield Row(f"{name}: all tasks", "", "", None, "0.1", f"not measured: {why}")


def _row(race: Race, task: str, library: str, lowest: float, first: Any, warm: Any) -> Row:
    name = f"{library}: {race.name}"
    found = _measured(task, library)
    if "error" in found:
        return Row(name, "", "", None, "0.1", found["error"])
    goal = lowest + GOAL * abs(lowest)
    best = min(found["values"])
    if best < lowest - GOAL * abs(lowest):
        goal = best + GOAL * abs(best)
    mine = warm.reached(goal)
    theirs = _reached(found, "times", goal)
    begun = _reached(found, "first_times", goal)
    ended = f"ends {best - lowest:+.0e} from ours in {len(found['values'])} evaluations"
    if theirs == math.inf:
        return Row(name, seconds(mine), "not reached", None, "0.1", f"{found['version']}, {ended}")
    own = seconds(first.reached(goal))
    note = f"{found['version']}; first {seconds(begun)}, ours {own}; {ended}"
    return Row(name, seconds(mine), seconds(theirs), mine / theirs, "0.1", note)


def _reached(found: dict[str, Any], key: str, goal: float) -> float:
    pairs = zip(found[key], found["values"], strict=False)
    return next((t for t, F in pairs if goal >= F), math.inf)


def _measured(task: str, library: str) -> dict[str, Any]:
    """What the process of a library found: true values, times of the first and of a warm run."""
    interpreter = os.environ.get("BENCH_PYTHON", sys.executable)
    try:
        done = subprocess.run(
            [interpreter, "-m", "benchmarks.libraries", task, library],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=30 * LIMIT,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return {"error": f"not measured: {type(error).__name__}"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        why = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return {"error": f"not measured: {why[:120]}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


# --- in the process of a library ------------------------------------------------------------------


class Problem:
    """A task for the libraries: losses of arrays ``np`` is the array module of."""

    def __init__(self, race: Race, task: str) -> None:
        self.start, self.low, self.high = race.start, race.low, race.high
        truth = race.problem()
        self.truth = truth
        if task == "quadratic-1000":
            A = race.model().bound.data.arrays["A"]
            self.data, self.size, self.kind = {"A": A}, len(A), "quadratic"
        elif task == "cleaning-digits":
            self.data = {
                "X": truth.X, "V": truth.V, "T": np.eye(10)[truth.labels],
                "Tv": np.eye(10)[truth.valid_labels],
            }  # fmt: skip
            self.size, self.kind = truth.X.shape[1] * 10, "cleaning"
        else:
            self.data = {"A": truth.A, "V": truth.V}
            self.size, self.kind = truth.A.shape[1], "logistic"
            self.bias = truth.bias_penalty

    def lower(self, m: Any, d: dict[str, Any]) -> Callable[[Any, Any], Any]:
        """f(y, x) with the functions of the module ``m``."""
        if self.kind == "quadratic":
            return lambda y, x: 0.5 * (y @ (d["A"] @ y)) - x @ y
        if self.kind == "logistic":
            return lambda y, x: (
                m.softplus(-(d["A"] @ y)).mean()
                + 0.5 * (m.exp(x) * y[:-1] ** 2).sum()
                + 0.5 * self.bias * y[-1] ** 2
            )

        def cleaning(y: Any, x: Any) -> Any:
            Z = d["X"] @ y.reshape(-1, 10)
            losses = m.logsumexp(Z) - (Z * d["T"]).sum(-1)
            return (m.sigmoid(x) * losses).mean() + 1e-3 * (y**2).sum()

        return cleaning

    def upper(self, m: Any, d: dict[str, Any]) -> Callable[[Any, Any], Any]:
        """F(y, x)."""
        if self.kind == "quadratic":
            return lambda y, x: 0.5 * ((x - 1) ** 2).sum() + 0.5 * (y @ (d["A"] @ y))
        if self.kind == "logistic":
            return lambda y, x: m.softplus(-(d["V"] @ y)).mean()

        def cleaning(y: Any, x: Any) -> Any:
            Z = d["V"] @ y.reshape(-1, 10)
            return (m.logsumexp(Z) - (Z * d["Tv"]).sum(-1)).mean()

        return cleaning


def _jax(problem: Problem) -> tuple[Any, Any, Any]:
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


def by_jaxopt(problem: Problem) -> Reduced:
    """jaxopt.LBFGS with implicit differentiation: Cholesky for few variables, else CG."""
    jax, f, F = _jax(problem)
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

    return _warm_started(problem, lambda x, y: value(jnp.asarray(x), y), jnp.zeros(problem.size))


def by_optimistix(problem: Problem) -> Reduced:
    """optimistix: Newton on the gradient for few variables, else BFGS; implicit adjoint."""
    jax, f, F = _jax(problem)
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

    return _warm_started(problem, lambda x, y: value(jnp.asarray(x), y), jnp.zeros(problem.size))


def _warm_started(problem: Problem, value: Callable[[Any, Any], Any], zero: Any) -> Reduced:
    last = [zero]

    def reduced(x: Array) -> tuple[float, Array]:
        (F, y), gradient = value(x, last[0])
        if bool(np.isfinite(np.asarray(y)).all()):
            last[0] = y
        return float(F), np.asarray(gradient, dtype=float)

    return reduced


def _torch(problem: Problem) -> tuple[Any, Any, Any]:
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


def _descend(torch: Any, f: Any, y: Any, x: Any) -> Any:
    """torch.optim.LBFGS from the last solution: the torch libraries leave the solver to us."""
    y = y.detach().clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [y], max_iter=2000, tolerance_grad=1e-7, tolerance_change=1e-14, history_size=20,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Any:
        solver.zero_grad()
        loss = f(y, x.detach())
        loss.backward()
        return loss

    solver.step(closure)
    return y.detach()


def by_torchopt(problem: Problem) -> Reduced:
    """TorchOpt's custom_root with its conjugate gradients around torch.optim.LBFGS."""
    torch, f, F = _torch(problem)
    import torchopt

    def optimality(y: Any, x: Any) -> Any:
        return torch.func.grad(f)(y, x)

    solve = torchopt.linear_solve.solve_cg(rtol=1e-7, atol=1e-10, maxiter=2000)

    @torchopt.diff.implicit.custom_root(optimality, argnums=1, solve=solve)
    def lower(y: Any, x: Any) -> Any:
        return _descend(torch, f, y, x)

    return _torch_reduced(torch, F, lower, problem)


def by_hypergrad(problem: Problem) -> Reduced:
    """hypergrad's Neumann series around torch.optim.LBFGS: its conjugate gradients are not."""
    torch, f, F = _torch(problem)
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
        y = last[0] = _descend(torch, f, last[0], hyper)
        step = 1.0 / largest(y, hyper)
        (gradient,) = neumann(inner, outer, (y,), (hyper,), 500, step)
        return float(F(y, hyper)), gradient.detach().numpy().copy()

    return reduced


def _torch_reduced(torch: Any, F: Any, lower: Any, problem: Problem) -> Reduced:
    last = [torch.zeros(problem.size, dtype=torch.float64)]

    def reduced(x: Array) -> tuple[float, Array]:
        hyper = torch.tensor(x, requires_grad=True)
        y = lower(last[0], hyper)
        value = F(y, hyper)
        (gradient,) = torch.autograd.grad(value, hyper)
        last[0] = y.detach()
        return float(value), gradient.numpy()

    return reduced


MAKE: dict[str, Callable[[Problem], Reduced]] = {
    "jaxopt": by_jaxopt,
    "optimistix": by_optimistix,
    "torchopt": by_torchopt,
    "hypergrad": by_hypergrad,
}


def _timed(reduced: Reduced, problem: Problem, began: float) -> tuple[list[Array], list[float]]:
    """The points that L-BFGS-B visits, with CPU times."""
    points: list[Array] = []
    times: list[float] = []

    def seen(x: Array) -> tuple[float, Array]:
        F, gradient = reduced(x)
        points.append(x.copy())
        times.append(clock() - began)
        if times[-1] > LIMIT:
            raise OutOfTime
        if not (np.isfinite(F) and np.isfinite(gradient).all()):
            raise FloatingPointError
        return F, gradient

    with contextlib.suppress(OutOfTime, np.linalg.LinAlgError, FloatingPointError):
        minimise(seen, problem.start, problem.low, problem.high, gradient_tolerance=1e-6)
    return points, times


def main() -> None:
    from importlib.metadata import version

    task, library = sys.argv[1:]
    problem = Problem(race_of(task), task)
    began = clock()
    reduced = MAKE[library](problem)
    points, first = _timed(reduced, problem, began)
    if len(points) > 1 and first[-1] <= LIMIT:
        again = MAKE[library](problem) if library in ("torchopt", "hypergrad") else reduced
        points, times = _timed(again, problem, clock())
    else:
        times = first
    values = [problem.truth.reduced(x)[0] for x in points]
    print(
        json.dumps(
            {
                "version": f"{library} {version(library)}",
                "values": values,
                "times": times,
                "first_times": first,
            }
        )
    )


if __name__ == "__main__":
    main()
