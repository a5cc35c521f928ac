"""The page ``docs/reproduce.md`` and its pictures."""

from __future__ import annotations

from pathlib import Path

from benchmarks.reproduce import constrained, limits, methods, pictures, representation, saving


class Page:
    """A page, written anew with every part: an interrupted run leaves what it has."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.parts: list[str] = []

    def add(self, *parts: str | list[str]) -> None:
        """Append paragraphs, tables given as lines."""
        self.parts += ["\n".join(p) if isinstance(p, list) else p for p in parts]
        self.target.write_text("\n\n".join(self.parts) + "\n", encoding="utf-8")


def write(target: Path, kappas: tuple[int, ...], largest: int, longest: int) -> None:
    """Run everything and write the page and, in a folder of its name beside it, the pictures."""
    folder = target.with_suffix("")
    page = Page(target)
    page.add(
        "# Reproduced numbers",
        "Written by `make reproduce` (`python -m benchmarks.reproduce`); every number but the\n"
        "references was measured by that run. References without a paper behind them come from\n"
        "plain NumPy implementations of the same updates. The problem of the first sections is\n"
        "the toy family `F = |x - 1|^2/2 + y'Ay/2`, `f = y'Ay/2 - x'y` with 100 variables a\n"
        "level, start 2, plain upper steps `1/L_Phi`, lower steps `2/(L + mu)`, until the exact\n"
        "hypergradient is below 1e-8. An error is that of x, relative; a floor is the error at\n"
        "which a biased method ends.",
    )
    _methods(page, folder, kappas, largest)
    _limits(page, folder)
    _representation(page, folder)
    _constrained(page, longest)


def _methods(page: Page, folder: Path, kappas: tuple[int, ...], largest: int) -> None:
    rows, curves = methods.table(kappas, largest)
    page.add("## Methods")
    for kappa in (k for k in (100, 1000) if k in kappas):
        pictures.convergence(folder / f"kappa_{kappa}.svg", kappa, curves[kappa])
        page.add(
            f"![Exact hypergradient by iterations and by evaluations, kappa = {kappa}]"
            f"({folder.name}/kappa_{kappa}.svg)"
        )
    page.add(
        rows,
        "The floors of PZOBO are noise: the iterates of random directions move in a band for\n"
        "ever. Shown are median and 5 to 95 % quantiles of the error over the second half of the\n"
        "run; a reference is the last iterate of another run, so that it is compared with the\n"
        "band and not with one number.",
        "## NBO's saving in lower gradients",
        saving.saving(),
    )


def _limits(page: Page, folder: Path) -> None:
    page.add(
        "## Floors of qNBO with fixed numbers of adjoint steps, no warm start, 400 iterations",
        "kappa = 10:",
        limits.floors(10),
        "kappa = 100 (rounding decides which pairs SR1 skips, and so its last digits):",
        limits.floors(100),
        "Increasing numbers and warm starts, iterations (reference):",
        limits.schedules(),
        "## Limits of T-step differentiation",
        "The closed form is `(D + B (I - (I - beta A)^T) A^-1 B')^-1 D z0`.",
        limits.biased(),
        "## Trajectory of BAGDC (A = B = D = I, beta = 0.2, alpha = 0.01)",
        limits.trajectory(),
    )
    fixed, penalties = limits.weights()
    pictures.penalties(folder / "penalties.svg", penalties)
    page.add(
        "## Penalties of fixed weight: relative error of x",
        "F2BA with differences on one side (order 1) ends at\n"
        "`x_lambda = (D + lambda/(1 + lambda) B A^-1 B')^-1 D z0`.",
        f"![Error against weight]({folder.name}/penalties.svg)",
        fixed,
        "## sl-BAMM on a merely convex lower level",
        limits.averaged(),
    )


def _representation(page: Page, folder: Path) -> None:
    shallow, lost = representation.table()
    pictures.losses(folder / "representation.svg", lost)
    page.add(
        "## PZOBO",
        "Orthonormal directions: the largest difference from the exact derivative of 10 lower\n"
        f"steps is {limits.orthonormal():.1e}.",
        "Shallow hyper-representation, 64 x 128, 500 samples, 20 lower steps of 1e-3 from a fixed\n"
        "start, Adam with 0.05. The published code normalises directions to length one without\n"
        "the factor `n_x = 8192`: its implicit term is scaled by `1/n_x`, and its losses are\n"
        "those of the direct gradient alone. Unbiased directions are noise.",
        f"![Losses by hypergradient]({folder.name}/representation.svg)",
        shallow,
    )


def _constrained(page: Page, longest: int) -> None:
    page.add(
        "## Coupled constraints",
        "`f = (y - 2x)^2` subject to `y <= x`, `F = e^(2-y) / (2 + cos wx) + ln((4x-2)^2 + 1)/2`\n"
        "(+ x^2), by the default loops:",
        constrained.minima(),
        "LV-HBA on `F = |x - b|^2/2 + |a - 1|^2/2`, `f = |a|^2/2 - x'a + 1'b` subject to\n"
        "`1'x + 1'a + 1'b = 0`; BiC-GAFFA on `F = (a - 2)'(x - 1) + |b + 3|^2` with\n"
        "`h(x) + 1'a + 1'b = 0`; 100 upper variables each.",
        constrained.single_loops(longest),
    )
