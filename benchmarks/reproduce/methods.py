"""The table of methods on the quadratic toy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.reproduce.runs import Measured, Options, Reference, cell, measure, shown, verdict
from tests.oracles import toy
from tests.unit.backends.helpers import Truth, truth


@dataclass(frozen=True)
class Row:
    """A method of the table: backend, options, and the references by condition number.

    A reference is (iterations, lower gradients, products), a floor of the relative error of x, or
    None.
    """

    title: str
    backend: str
    options: Callable[[Truth], Options]
    reference: Mapping[int, Reference]
    iterations: int = 2000
    only: tuple[int, ...] = (2, 100, 1000)
    noisy: bool = False


def aid(variant: str, T: int, Q: int, warm: bool) -> Callable[[Truth], Options]:
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


def qnbo(**more: Any) -> Callable[[Truth], Options]:
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


def nbo(T: int, solver: str = "cg", fresh: bool = False) -> Callable[[Truth], Options]:
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
    Row("one-step differentiation", "itd", _itd(1), {2: 7.9e-2, 100: 0.21, 1000: 0.176}),
    Row("ITD, T = 10", "itd", _itd(10), {2: 1.8e-6, 100: 0.13, 1000: 0.167}),
    Row(
        "AID-TN, T = Q = 10",
        "aid",
        aid("neumann", 10, 10, False),
        {2: 5.8e-7, 100: 0.125, 1000: 0.166},
    ),
    Row(
        "AID-CG, T = Q = 10, no warm start",
        "aid",
        aid("cg", 10, 10, False),
        {2: 1.0e-8, 100: 2.8e-2, 1000: 9.53e-2},
    ),
    Row(
        "AID-BiO, T = Q = 10",
        "aid",
        aid("cg", 10, 10, True),
        {2: (15, 150, 164), 100: (90, 900, 989), 1000: (894, 8940, 9833)},
    ),
    Row(
        "AmIGO-GD, T = Q = 10",
        "aid",
        aid("amigo-gd", 10, 10, True),
        {2: (15, 150, 150), 100: (119, 1190, 1190), 1000: (1051, 10510, 10510)},
    ),
    Row(
        "AmIGO-CG, T = 10, Q = 5",
        "aid",
        aid("cg", 10, 5, True),
        {2: (15, 150, 89), 100: (90, 900, 539), 1000: (894, 8940, 5363)},
    ),
    Row(
        "SHINE, T = 10",
        "qnbo",
        qnbo(adjoint="share", lower_steps=10),
        {2: 0.14, 100: 0.18, 1000: 0.147},
    ),
    Row(
        "qNBO (BFGS), T = 5, Q = k+1",
        "qnbo",
        qnbo(schedule="increasing", warm=False),
        {2: (15, 105, 135), 100: (148, 1036, 11174), 1000: (375, 2625, 70875)},
    ),
    Row(
        "qNBO (BFGS), T = 5, Q = 5, warm u",
        "qnbo",
        qnbo(schedule="constant", adjoint_steps=5),
        {2: (15, 104, 90), 100: (69, 483, 414), 1000: (333, 2331, 1998)},
    ),
    Row(
        "qNBO (SR1), T = 5, Q = 5, warm u",
        "qnbo",
        qnbo(update="sr1", schedule="constant", adjoint_steps=5),
        {2: (15, 104, 90), 100: (55, 385, 330), 1000: (352, 2464, 2112)},
    ),
    Row(
        "NBO-CG, T = 5",
        "nbo",
        nbo(5),
        {2: (53, 53, 583), 100: (79, 79, 869), 1000: (362, 362, 3982)},
    ),
    Row(
        "NBO-CG, T = 10",
        "nbo",
        nbo(10),
        {2: (53, 53, 1113), 100: (55, 55, 1155), 1000: (123, 123, 2583)},
    ),
    Row("NBO-CG, T = 10, fresh u", "nbo", nbo(10, fresh=True), {}),
    Row(
        "NBO-GD, T = 1",
        "nbo",
        nbo(1, "gd"),
        {2: (70, 70, 210), 100: (1082, 1082, 3246), 1000: (10146, 10146, 30438)},
        20000,
    ),
    Row(
        "BAGDC, exact line search on v",
        "bagdc",
        _bagdc(),
        {2: (35, 35, 70), 100: (1334, 1334, 2668), 1000: (13250, 13250, 26500)},
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
    Row("F2BA, lambda = 10", "f2ba", _f2ba(10.0), {2: 3.8e-2, 100: 1.3e-2, 1000: 1.03e-2}),
    Row("F2BA, lambda = 1000", "f2ba", _f2ba(1000.0), {2: 4.1e-4, 100: 1.4e-4, 1000: 1.1e-4}),
    Row(
        "PZOBO, Q = 1, alpha = 1/(105 L_Phi)",
        "pzobo",
        _pzobo(1, 105.0),
        {2: 0.32, 100: 0.13, 1000: 0.165},
        4000,
        noisy=True,
    ),
    Row(
        "PZOBO, Q = 100, alpha = 1/(3 L_Phi)",
        "pzobo",
        _pzobo(100, 3.0),
        {2: 0.16, 100: 0.13},
        1000,
        noisy=True,
    ),
)


# Rows whose curves are drawn.
DRAWN = (
    "ITD, T = 10",
    "AID-BiO, T = Q = 10",
    "qNBO (BFGS), T = 5, Q = 5, warm u",
    "qNBO (SR1), T = 5, Q = 5, warm u",
    "NBO-CG, T = 10, fresh u",
    "BAGDC, exact line search on v",
    "F2BA, lambda = 1000",
)


def table(
    kappas: tuple[int, ...], largest: int
) -> tuple[list[str], dict[int, dict[str, Measured]]]:
    """The table of methods, and the runs to draw by condition number."""
    lines = [
        "| method | kappa | iterations / lower gradients / products | reference | within 20 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    curves: dict[int, dict[str, Measured]] = {k: {} for k in kappas}
    for row in TABLE:
        for kappa in kappas:
            if kappa not in row.only:
                continue
            t = truth(toy(kappa))
            m = measure(row.backend, row.options(t), kappa, min(row.iterations, largest))
            reference = row.reference.get(kappa)
            lines.append(
                f"| {row.title} | {kappa} | {shown(m, noisy=row.noisy)} | {cell(reference)} "
                f"| {verdict(m, reference, noisy=row.noisy)} |"
            )
            if row.title in DRAWN:
                curves[kappa][row.title] = m
    return lines, curves
