"""Floors, biased limits and trajectories with a closed form or a reference to ten digits."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.reproduce.methods import qnbo
from benchmarks.reproduce.runs import measure, verdict
from bilevelpy.backends import registry
from bilevelpy.numerics.driver.loop import run
from bilevelpy.options import SolveOptions
from tests.oracles import Quadratic, toy
from tests.unit.backends.helpers import relative_error, truth


def floors(kappa: int, iterations: int = 400) -> list[str]:
    """Fixed numbers of adjoint steps without a warm start: the error of x that remains."""
    reference = {
        100: {
            "bfgs": (2.1e-1, 1.6e-1, 1.0e-1, 5.0e-2, 1.4e-2, 1.0e-3),
            "sr1": (2.1e-1, 1.6e-1, 7.1e-2, 2.6e-2, 2.4e-3, 2.1e-5),
        },
        10: {
            "bfgs": (0.2, 0.079, 0.020, 2.0e-3, 2.2e-5, 2.1e-9),
            "sr1": (0.2, 0.076, 8.7e-3, 2.6e-4, 3.4e-7, 6.3e-10),
        },
    }[kappa]
    lines = [
        "| update | Q | relative error of x | reference | within 20 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    t = truth(toy(kappa))
    for update, expected in reference.items():
        for Q, floor in zip((1, 2, 5, 10, 20, 40), expected, strict=True):
            options = qnbo(update=update, schedule="constant", adjoint_steps=Q, warm=False)(t)
            m = measure("qnbo", options, kappa, iterations)
            lines.append(f"| {update} | {Q} | {m.error:.2g} | {floor:.2g} | {verdict(m, floor)} |")
    return lines


def schedules() -> list[str]:
    """Q_k = k + 1, and warm starts: iterations to the goal, or the error after 400."""
    reference = {
        ("bfgs", 10): ("43", "26", "-"),
        ("sr1", 10): ("29", "25", "-"),
        ("bfgs", 100): ("148", "91", "3.0e-05"),
        ("sr1", 100): ("70", "58", "3.3e-05"),
    }
    runs = (
        {"schedule": "increasing", "warm": False},
        {"schedule": "constant", "adjoint_steps": 3},
        {"schedule": "constant", "adjoint_steps": 1},
    )
    lines = [
        "| update | kappa | Q = k+1 (reference) | warm, Q = 3 | warm, Q = 1, error after 400 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for (update, kappa), expected in reference.items():
        t, cells = truth(toy(kappa)), []
        for options, known in zip(runs, expected, strict=True):
            m = measure("qnbo", qnbo(update=update, **options)(t), kappa, 400)
            found = str(m.iterations) if m.reached else f"{m.error:.1e}"
            cells.append(f"{found} ({known})")
        lines.append(f"| {update} | {kappa} | " + " | ".join(cells) + " |")
    return lines


def biased() -> list[str]:
    """Limits of T-step differentiation, against the closed form."""
    lines = ["| kappa | T | relative distance from the closed form |", "| --- | --- | --- |"]
    for kappa in (2, 10, 100):
        for T in (1, 3, 10):
            o = toy(kappa)
            t = truth(o)
            step = 2 / (t.L + t.mu)
            eye = torch.eye(o.n, dtype=torch.float64)
            left = torch.linalg.matrix_power(eye - step * o.A, T)
            limit = torch.linalg.solve(
                eye + (eye - left) @ torch.linalg.inv(o.A), torch.ones_like(o.x0)
            )
            options = {"lower_steps": T, "lower_step": step, "upper_step": 1 / t.L_phi}
            settings = SolveOptions(tol=1e-14, max_iter=5000, backend_options=options)
            found = run(o, registry.get("itd"), None, settings)
            lines.append(f"| {kappa} | {T} | {relative_error(found.x, limit):.1e} |")
    return lines


# k -> x and y with the exact line search, x and y with eta = 0.5.
TRAJECTORY = {
    1: (1.97, 2.0, 1.98, 2.0),
    2: (1.94036, 1.994, 1.95522, 1.996),
    10: (1.719646524840, 1.841198729625, 1.736031604597, 1.856036359493),
    100: (0.681807062647, 0.703063006349, 0.680082072060, 0.701423181887),
    1000: (0.500000000977, 0.500000001091, 0.500000000765, 0.500000000856),
}


def trajectory() -> list[str]:
    """BAGDC on A = B = D = I with beta = 0.2, alpha = 0.01."""
    lines = ["| k | line search: x | y | eta = 0.5: x | y |", "| --- | --- | --- | --- | --- |"]
    seen: dict[str, dict[int, tuple[float, float]]] = {}
    for dual in ("line-search", "constant"):
        points: dict[int, tuple[float, float]] = {}

        def note(state: Any, points: dict[int, tuple[float, float]] = points) -> None:
            points[state.iteration] = (float(state.x[0]), float(state.y[0]))

        options = {
            "dual": dual,
            "dual_step": 0.5,
            "lower_step": 0.2,
            "upper_step": 0.01,
            "warm": False,
            "stride": 1,
        }
        settings = SolveOptions(tol=1e-15, max_iter=1000, backend_options=options)
        run(toy(1), registry.get("bagdc"), None, settings, callback=note)
        seen[dual] = points
    worst = 0.0
    for k, expected in TRAJECTORY.items():
        found = (*seen["line-search"][k], *seen["constant"][k])
        lines.append(f"| {k} | " + " | ".join(f"{v:.12f}" for v in found) + " |")
        worst = max(worst, *(abs(a - b) for a, b in zip(found, expected, strict=True)))
    return [*lines, "", f"Largest difference from the reference: {worst:.1e}."]


def weights() -> tuple[list[str], dict[str, list[tuple[float, float]]]]:
    """The error of a penalty of fixed weight: a table, and ``(lambda, error)`` by curve."""
    lines = [
        "| kappa | lambda | order 1 | distance from x_lambda | order 2 |",
        "| --- | --- | --- | --- | --- |",
    ]
    curves: dict[str, list[tuple[float, float]]] = {}
    for kappa in (2, 10):
        for weight in (10.0, 20.0, 40.0, 80.0):
            errors, off = [], 0.0
            for order in (1, 2):
                o = toy(kappa, n=20)
                options = {"weight": weight, "order": order}
                settings = SolveOptions(tol=1e-9, backend_options=options)
                found = run(o, registry.get("f2ba"), None, settings)
                errors.append(relative_error(found.x, o.solution()[0]))
                curve = curves.setdefault(f"kappa = {kappa}, order {order}", [])
                curve.append((weight, errors[-1]))
                if order == 1:
                    eye = torch.eye(o.n, dtype=torch.float64)
                    bent = eye + weight / (1 + weight) * torch.linalg.inv(o.A)
                    off = relative_error(found.x, torch.linalg.solve(bent, torch.ones_like(o.x0)))
            lines.append(
                f"| {kappa} | {weight:g} | {errors[0]:.3e} | {off:.0e} | {errors[1]:.3e} |"
            )
    return lines, curves


def orthonormal() -> float:
    """Largest difference between PZOBO with orthonormal directions and the exact unrolled
    hypergradient.
    """
    o = toy(10)
    y, J = o.y0, torch.zeros(o.m, o.n, dtype=torch.float64)
    for _ in range(10):
        y, J = y - 0.15 * (o.A @ y + o.C.T @ o.x0), J - 0.15 * (o.A @ J + o.C.T)
    backend = registry.get("pzobo")
    options = backend.options.from_mapping(
        {"count": o.n, "lower_steps": 10, "lower_step": 0.15, "difference": 0.1, "upper_step": 1.0},
        "pzobo",
    )
    state = backend.init(o, o.x0, o.y0, options, torch.Generator().manual_seed(0))
    return float((state.point.g - (o.x0 - 1 + J.T @ (o.A @ y))).abs().max())


AVERAGED = {
    100: (0.302198, 0.693632, 0.264756),
    1000: (0.923900, 0.957324, 0.920017),
    3000: (0.998432, 0.999049, 0.998360),
    10000: (1.0, 1.0, 1.0),
}


def averaged() -> list[str]:
    """sl-BAMM's single loop on the merely convex counter-example, scalar, start 0.01."""

    def vec(*v: float) -> torch.Tensor:
        return torch.tensor(v, dtype=torch.float64)

    o = Quadratic(  # type: ignore[no-untyped-call]
        torch.diag(vec(1.0, 0.0)),
        -vec(1.0, 0.0)[None],
        vec(0.0, 0.0),
        torch.eye(2, dtype=torch.float64),
        vec(1.0)[None],
        -vec(0.0, 1.0)[None],
        vec(-1.0, 0.0),
        vec(0.0),
        vec(0.01),
        vec(0.01, 0.01),
        offset=0.5,
    )
    points: dict[int, tuple[float, ...]] = {}

    def note(state: Any) -> None:
        points[state.iteration * 100] = (*map(float, state.x), *map(float, state.y))

    options = {"loop": "single", "lower_step": 0.1, "stride": 100}
    settings = SolveOptions(tol=1e-15, max_iter=100, backend_options=options)
    run(o, registry.get("slbamm"), None, settings, callback=note)
    lines, worst = ["| k | x | y1 | y2 |", "| --- | --- | --- | --- |"], 0.0
    for k, expected in AVERAGED.items():
        lines.append(f"| {k} | " + " | ".join(f"{v:.6f}" for v in points[k]) + " |")
        worst = max(worst, *(abs(a - b) for a, b in zip(points[k], expected, strict=True)))
    return [*lines, "", f"Largest difference from the reference: {worst:.1e}."]
