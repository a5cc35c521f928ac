"""Measure what the field's papers and the design's tables claim, and write it to
``docs/reproduce.md``.

``python -m benchmarks.reproduce [--quick]`` runs every row of the reference tables on the toy
family with the paper-faithful options of the backends. Only measured numbers are written; the
reference stands beside them.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bilevelpy.backends import registry
from bilevelpy.numerics.driver import RunResult, run
from bilevelpy.options import SolveOptions
from tests.oracles import Quadratic, toy
from tests.unit.backends.helpers import Truth, relative_error, truth

GOAL = 1e-8
WITHIN = 0.2
TARGET = Path(__file__).parents[1] / "docs" / "reproduce.md"

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A method of the table: backend, options, and the references by condition number.

    A reference is (iterations, lower gradients, products), a floor of the relative error of x, or
    None.
    """

    title: str
    backend: str
    options: Callable[[Truth], Options]
    reference: Mapping[int, tuple[int, int, int] | float]
    iterations: int = 2000
    only: tuple[int, ...] = (2, 100, 1000)


def _aid(variant: str, T: int, Q: int, warm: bool) -> Callable[[Truth], Options]:
    return lambda t: {
        "variant": variant,
        "lower": "gd",
        "upper": "gd",
        "lower_steps": T,
        "adjoint_steps": Q,
        "warm": warm,
        "lower_step": 2 / (t.L + t.mu),
        "upper_step": 1 / t.L_phi,
    }


def _qnbo(**more: Any) -> Callable[[Truth], Options]:
    return lambda t: {
        "upper": "gd",
        "lower_steps": 5,
        "warmup": 1,
        "scale": 1 / t.L,
        "lower_step": 2 / (t.L + t.mu),
        "upper_step": 1 / t.L_phi,
        "adjoint": "refine",
        **more,
    }


def _nbo(T: int, solver: str = "cg", fresh: bool = False) -> Callable[[Truth], Options]:
    return lambda t: {
        "upper": "gd",
        "damping": False,
        "prepare": False,
        "fresh_u": fresh,
        "solver": solver,
        "solver_steps": T,
        "solver_step": 2 / (t.L + t.mu),
        "upper_step": 1 / t.L_phi,
    }


def _bagdc(factor: float = 1.0, **more: Any) -> Callable[[Truth], Options]:
    return lambda t: {
        "warm": False,
        "stride": 1,
        "lower_step": 2 / (t.L + t.mu),
        "upper_step": factor / t.L_phi,
        **more,
    }


def _f2ba(weight: float) -> Callable[[Truth], Options]:
    return lambda t: {
        "upper": "gd",
        "order": 1,
        "weight": weight,
        "lower_step": 2 / (t.L + t.mu),
        "upper_step": 1 / t.L_phi,
    }


def _itd(T: int) -> Callable[[Truth], Options]:
    return lambda t: {"lower_steps": T, "lower_step": 2 / (t.L + t.mu), "upper_step": 1 / t.L_phi}


def _pzobo(Q: int, divide: float) -> Callable[[Truth], Options]:
    return lambda t: {
        "directions": "gaussian",
        "count": Q,
        "lower_steps": 10,
        "difference": 1e-2,
        "lower_step": 2 / (t.L + t.mu),
        "upper_step": 1 / (divide * t.L_phi),
    }


TABLE = (
    Row("one-step differentiation", "itd", _itd(1), {2: 7.9e-2, 100: 0.21}),
    Row("ITD, T = 10", "itd", _itd(10), {2: 1.8e-6, 100: 0.13}),
    Row("AID-TN, T = Q = 10", "aid", _aid("neumann", 10, 10, False), {2: 5.8e-7, 100: 0.125}),
    Row(
        "AID-CG, T = Q = 10, no warm start",
        "aid",
        _aid("cg", 10, 10, False),
        {2: 1.0e-8, 100: 2.8e-2},
    ),
    Row(
        "AID-BiO, T = Q = 10",
        "aid",
        _aid("cg", 10, 10, True),
        {2: (15, 150, 164), 100: (90, 900, 989)},
    ),
    Row(
        "AmIGO-GD, T = Q = 10",
        "aid",
        _aid("amigo-gd", 10, 10, True),
        {2: (15, 150, 150), 100: (119, 1190, 1190)},
    ),
    Row(
        "AmIGO-CG, T = 10, Q = 5",
        "aid",
        _aid("cg", 10, 5, True),
        {2: (15, 150, 89), 100: (90, 900, 539)},
    ),
    Row("SHINE, T = 10", "qnbo", _qnbo(adjoint="share", lower_steps=10), {2: 0.14, 100: 0.18}),
    Row(
        "qNBO (BFGS), T = 5, Q = k+1",
        "qnbo",
        _qnbo(schedule="increasing", warm=False),
        {2: (15, 105, 135), 100: (148, 1036, 11174)},
    ),
    Row(
        "qNBO (BFGS), T = 5, Q = 5, warm u",
        "qnbo",
        _qnbo(schedule="constant", adjoint_steps=5),
        {2: (15, 104, 90), 100: (69, 483, 414)},
    ),
    Row(
        "qNBO (SR1), T = 5, Q = 5, warm u",
        "qnbo",
        _qnbo(update="sr1", schedule="constant", adjoint_steps=5),
        {2: (15, 104, 90), 100: (55, 385, 330)},
    ),
    Row("NBO-CG, T = 5", "nbo", _nbo(5), {2: (53, 53, 583), 100: (79, 79, 869)}),
    Row("NBO-CG, T = 10", "nbo", _nbo(10), {2: (53, 53, 1113), 100: (55, 55, 1155)}),
    Row("NBO-CG, T = 10, fresh u", "nbo", _nbo(10, fresh=True), {}),
    Row("NBO-GD, T = 1", "nbo", _nbo(1, "gd"), {2: (70, 70, 210), 100: (1082, 1082, 3246)}, 20000),
    Row(
        "BAGDC, exact line search on v",
        "bagdc",
        _bagdc(),
        {2: (35, 35, 70), 100: (1334, 1334, 2668)},
        20000,
    ),
    Row("BAGDC, constant eta", "bagdc", _bagdc(dual="constant"), {2: (66, 66, 66)}, 400, (2,)),
    Row(
        "SOBA (parallel, constant eta)",
        "bagdc",
        _bagdc(dual="constant", order="parallel"),
        {2: (157, 157, 157)},
        400,
        (2,),
    ),
    Row(
        "BAGDC, constant eta, alpha = 0.03/L_Phi",
        "bagdc",
        _bagdc(0.03, dual="constant"),
        {100: (6490, 6490, 6490)},
        8000,
        (100,),
    ),
    Row("F2BA, lambda = 10", "f2ba", _f2ba(10.0), {2: 3.8e-2, 100: 1.3e-2}),
    Row("F2BA, lambda = 1000", "f2ba", _f2ba(1000.0), {2: 4.1e-4, 100: 1.4e-4}),
    Row(
        "PZOBO, Q = 1, alpha = 1/(105 L_Phi)", "pzobo", _pzobo(1, 105.0), {2: 0.32, 100: 0.13}, 4000
    ),
    Row(
        "PZOBO, Q = 100, alpha = 1/(3 L_Phi)", "pzobo", _pzobo(100, 3.0), {2: 0.16, 100: 0.13}, 400
    ),
)


@dataclass
class Measured:
    """What a run showed."""

    iterations: int
    gradients: int
    products: int
    error: float
    norm: float
    seconds: float
    curve: list[float] = field(default_factory=list)

    @property
    def reached(self) -> bool:
        return self.norm < GOAL


def measure(row_backend: str, options: Options, kappa: float, iterations: int) -> Measured:
    """Run until the exact hypergradient is below the goal."""
    oracle = toy(kappa)
    t = truth(oracle)
    norms: list[float] = []

    def reached(state: Any) -> bool:
        norms.append(float((t.M @ (torch.tensor(state.x) - t.x)).norm()))
        return norms[-1] < GOAL or not math.isfinite(norms[-1])

    settings = SolveOptions(tol=1e-15, max_iter=iterations, backend_options=dict(options))
    began = time.perf_counter()
    found: RunResult = run(oracle, registry.get(row_backend), None, settings, callback=reached)
    return Measured(
        found.iterations,
        found.counts["grad_f"],
        found.counts["hvp"],
        relative_error(found.x, t.x),
        norms[-1],
        time.perf_counter() - began,
        norms,
    )


def verdict(m: Measured, reference: tuple[int, int, int] | float | None) -> str:
    """Whether a measurement agrees with its reference."""
    if reference is None:
        return ""
    if isinstance(reference, tuple):
        if not m.reached:
            return "**no**"
        pairs = zip((m.iterations, m.gradients, m.products), reference, strict=True)
        return "yes" if all(abs(a - b) <= WITHIN * b for a, b in pairs) else "**no**"
    # A floor: the order of magnitude where it is noise or far below, else 20 %.
    ratio = m.error / reference
    return "yes" if 1 / (1 + WITHIN) <= ratio <= 1 + WITHIN else f"x {ratio:.2g}"


def _cell(value: tuple[int, int, int] | float | None) -> str:
    if value is None:
        return "-"
    return " / ".join(map(str, value)) if isinstance(value, tuple) else f"floor {value:.2g}"


def table(kappas: tuple[int, ...], largest: int) -> list[str]:
    """The table of methods."""
    lines = [
        "| method | kappa | iterations / lower gradients / products | reference | within 20 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in TABLE:
        for kappa in kappas:
            if kappa not in row.only:
                continue
            t = truth(toy(kappa))
            m = measure(row.backend, row.options(t), kappa, min(row.iterations, largest))
            reference = row.reference.get(kappa)
            shown = (
                f"{m.iterations} / {m.gradients} / {m.products}"
                if m.reached
                else f"error {m.error:.2g} after {m.iterations}"
            )
            lines.append(
                f"| {row.title} | {kappa} | {shown} | {_cell(reference)} "
                f"| {verdict(m, reference)} |"
            )
    return lines


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
    lines = ["| update | Q | relative error of x | reference |", "| --- | --- | --- | --- |"]
    t = truth(toy(kappa))
    for update, expected in reference.items():
        for Q, floor in zip((1, 2, 5, 10, 20, 40), expected, strict=True):
            options = _qnbo(update=update, schedule="constant", adjoint_steps=Q, warm=False)(t)
            m = measure("qnbo", options, kappa, iterations)
            lines.append(f"| {update} | {Q} | {m.error:.2g} | {floor:.2g} |")
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
    for k in (1, 2, 10, 100, 1000):
        (x, y), (X, Y) = seen["line-search"][k], seen["constant"][k]
        lines.append(f"| {k} | {x:.12f} | {y:.12f} | {X:.12f} | {Y:.12f} |")
    return lines


def weights() -> list[str]:
    """The error of a penalty of fixed weight."""
    lines = ["| kappa | lambda | order 1 | order 2 |", "| --- | --- | --- | --- |"]
    for kappa in (2, 10):
        for weight in (10.0, 20.0, 40.0, 80.0):
            errors = []
            for order in (1, 2):
                o = toy(kappa, n=20)
                options = {"weight": weight, "order": order}
                settings = SolveOptions(tol=1e-9, backend_options=options)
                found = run(o, registry.get("f2ba"), None, settings)
                errors.append(relative_error(found.x, o.solution()[0]))
            lines.append(f"| {kappa} | {weight:g} | {errors[0]:.3e} | {errors[1]:.3e} |")
    return lines


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


def averaged() -> list[str]:
    """sl-BAMM's single loop on the merely convex counter-example, scalar, start 0.01."""

    def vec(*v: float) -> torch.Tensor:
        return torch.tensor(v, dtype=torch.float64)

    o = Quadratic(
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
    lines = ["| k | x | y1 | y2 |", "| --- | --- | --- | --- |"]
    for k in (100, 1000, 3000, 10000):
        if k in points:
            lines.append(f"| {k} | " + " | ".join(f"{v:.6f}" for v in points[k]) + " |")
    return lines


def page(kappas: tuple[int, ...], largest: int) -> str:
    """The whole page."""
    parts = [
        "# Reproduced numbers",
        "Written by `python -m benchmarks.reproduce`; every number but the references was\n"
        "measured by that run. The problem is the toy family `F = |x - 1|^2/2 + y'Ay/2`,\n"
        "`f = y'Ay/2 - x'y` with 100 variables a level, start 2, plain upper steps\n"
        "`1/L_Phi`, lower steps `2/(L + mu)`, until the exact hypergradient is below 1e-8.\n"
        "An error is that of x, relative; a floor is the error at which a biased method ends.",
        "## Methods",
        "\n".join(table(kappas, largest)),
        "## Floors of qNBO with fixed numbers of adjoint steps, no warm start, 400 iterations",
        "kappa = 10:",
        "\n".join(floors(10)),
        "kappa = 100:",
        "\n".join(floors(100)),
        "## Limits of T-step differentiation",
        "The closed form is `(D + B (I - (I - beta A)^T) A^-1 B')^-1 D z0`.",
        "\n".join(biased()),
        "## Trajectory of BAGDC (A = B = D = I, beta = 0.2, alpha = 0.01)",
        "\n".join(trajectory()),
        "## Penalties of fixed weight: relative error of x",
        "\n".join(weights()),
        "## PZOBO with orthonormal directions",
        f"Largest difference from the exact derivative of 10 lower steps: {orthonormal():.1e}.",
        "## sl-BAMM on a merely convex lower level",
        "\n".join(averaged()),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="kappa 2 and 100 only")
    parser.add_argument("--out", type=Path, default=TARGET)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kappas = (2, 100) if arguments.quick else (2, 100, 1000)
    arguments.out.write_text(page(kappas, 20000), encoding="utf-8")


if __name__ == "__main__":
    main()
