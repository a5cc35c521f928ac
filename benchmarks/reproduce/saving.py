"""NBO's saving in lower gradients against implicit differentiation with gradient descent."""

from __future__ import annotations

from benchmarks.reproduce.methods import aid, nbo
from benchmarks.reproduce.runs import measure
from tests.oracles import toy
from tests.unit.backends.helpers import truth


def saving(kappas: tuple[int, ...] = (10, 100, 1000)) -> list[str]:
    """Lower gradients and products until the exact hypergradient is below the goal."""
    lines = [
        "| kappa | AID-BiO, T = Q = 10: gradients / products | NBO-CG, T = 10 | NBO-CG, T = 10, "
        "fresh u | fewer gradients |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kappa in kappas:
        t = truth(toy(kappa))
        runs = [
            measure("aid", aid("cg", 10, 10, True)(t), kappa, 20000),
            measure("nbo", nbo(10)(t), kappa, 20000),
            measure("nbo", nbo(10, fresh=True)(t), kappa, 20000),
        ]
        assert all(m.reached for m in runs), "a run did not reach the goal"
        cells = " | ".join(f"{m.gradients} / {m.products}" for m in runs)
        ratios = [runs[0].gradients / m.gradients for m in runs[1:]]
        lines.append(f"| {kappa} | {cells} | {ratios[0]:.0f} and {ratios[1]:.0f} times |")
    return lines
