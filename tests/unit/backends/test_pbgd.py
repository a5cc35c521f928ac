"""PBGD: the minimiser of a fixed penalty, convex and nonconvex lower levels."""

from __future__ import annotations

import pytest
import torch

from bilevelpy.backends.value_function.pbgd import PBGD
from bilevelpy.errors import UsageError
from bilevelpy.numerics.driver.loop import run
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status
from tests.oracles import AutoOracle, box, merely_convex, toy, vec
from tests.unit.backends.helpers import relative_error, solve


def polyak() -> AutoOracle:
    """A nonconvex lower level with the PL property: y* = -x; global solution 1.215145, F =
    0.199911.
    """
    return AutoOracle(
        lambda x, y: (
            torch.cos(4 * y + 2) / (1 + torch.exp(2 - 4 * x))
            + 0.5 * torch.log((4 * x - 2) ** 2 + 1)
        ).sum(),
        lambda x, y: ((x + y) ** 2 + x * torch.sin(x + y) ** 2).sum(),
        vec(1.0),
        vec(0.0),
        domain_x=box(1, 0.0, 3.0),
    )


@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_a_fixed_weight_has_the_closed_form(weight: float) -> None:
    o = toy(2, n=8)
    eye = torch.eye(8, dtype=torch.float64)
    M = eye + weight / (1 + weight) * torch.linalg.inv(o.A)
    found = solve(PBGD(), o, tol=1e-9, weight=weight)
    assert relative_error(found.x, torch.linalg.solve(M, torch.ones_like(o.x0))) < 1e-7
    assert found.status is not Status.CONVERGED
    assert any("perturbed" in w for w in found.warnings)


@pytest.mark.parametrize("kappa", [1, 4])
def test_defaults_solve_the_toy_without_products(kappa: float) -> None:
    o = toy(kappa, n=8)
    raw = run(o, PBGD(), None, SolveOptions())
    assert raw.counts["hvp"] == raw.counts["jvp"] == 0
    assert relative_error(raw.x, o.solution()[0]) < 1e-3
    assert solve(PBGD(), toy(kappa, n=8)).status is Status.CONVERGED


def test_a_nonconvex_lower_level_with_the_pl_property() -> None:
    found = solve(PBGD(), polyak())
    assert found.status is Status.CONVERGED
    assert found.x == pytest.approx([1.215145], abs=1e-4)
    assert found.y == pytest.approx([-1.215145], abs=1e-4)
    assert pytest.approx(0.199911, abs=1e-5) == found.F


def test_the_optimistic_solution_of_a_merely_convex_lower_level() -> None:
    found = solve(PBGD(), merely_convex(2))
    assert found.x == pytest.approx([1.0, 1.0], abs=1e-5)
    assert found.y == pytest.approx([1.0] * 4, abs=1e-5)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="pbgd"):
        PBGD().options.from_mapping({"weight": -1.0}, "pbgd")
