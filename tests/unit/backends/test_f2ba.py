"""F2BA: the minimiser of a penalty of fixed weight, its halving error, and runs without
products.
"""

from __future__ import annotations

import pytest
import torch

from bilevelpy.backends.value_function.f2ba import F2BA
from bilevelpy.errors import UsageError
from bilevelpy.numerics.driver.loop import run
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status
from tests.oracles import Quadratic, logistic, toy
from tests.unit.backends.helpers import relative_error, solve, truth


def penalised(o: Quadratic, weight: float) -> torch.Tensor:
    """x_lambda = (D + lambda/(1+lambda) B A^-1 B')^-1 D z0 with B = D = I, z0 = 1."""
    eye = torch.eye(o.n, dtype=torch.float64)
    M = eye + weight / (1 + weight) * torch.linalg.inv(o.A)
    return torch.linalg.solve(M, torch.ones_like(o.x0))


@pytest.mark.parametrize("kappa", [2, 30])
@pytest.mark.parametrize("weight", [10.0, 1000.0])
def test_a_fixed_weight_has_the_closed_form(kappa: float, weight: float) -> None:
    o = toy(kappa, n=10)
    found = solve(F2BA(), o, tol=1e-10, weight=weight, order=1)
    assert relative_error(found.x, penalised(o, weight)) < 1e-8
    assert any("perturbed" in w for w in found.warnings)


def test_the_loop_of_the_paper_has_the_same_limit() -> None:
    o = toy(2, n=20)
    t = truth(o)
    options = {"upper": "gd", "upper_step": 1 / t.L_phi, "lower_step": 2 / (t.L + t.mu)}
    found = solve(F2BA(), o, tol=1e-13, max_iter=200, weight=10.0, order=1, **options)
    assert relative_error(found.x, penalised(o, 10.0)) < 1e-12
    assert found.status is not Status.CONVERGED


def test_the_error_halves_with_the_weight_and_falls_to_a_quarter_at_second_order() -> None:
    exact = toy(10, n=10).solution()[0]
    for order, ratio in ((1, 2.0), (2, 4.0)):
        errors = [
            relative_error(solve(F2BA(), toy(10, n=10), tol=1e-10, weight=w, order=order).x, exact)
            for w in (100.0, 200.0)
        ]
        assert errors[0] / errors[1] == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kappa", [1, 10, 50])
def test_defaults_solve_the_toy_without_products(kappa: float, order: int) -> None:
    o = toy(kappa, n=10)
    raw = run(o, F2BA(), None, SolveOptions(backend_options={"order": order}))
    assert raw.counts["hvp"] == raw.counts["jvp"] == 0
    found = solve(F2BA(), toy(kappa, n=10), order=order)
    assert found.status is Status.CONVERGED
    assert relative_error(found.x, o.solution()[0]) < 1e-4


def test_inner_accuracy_keeps_up_with_the_condition() -> None:
    # Residuals of 1e-9 of the first one leave an error of 2e-5 in h, at which a run would end.
    o = toy(1000, n=20)
    raw = run(o, F2BA(), None, SolveOptions())
    assert relative_error(raw.x, o.solution()[0]) < 5e-6


def test_defaults_solve_a_curved_problem() -> None:
    assert solve(F2BA(), logistic(60, 6)).status is Status.CONVERGED


@pytest.mark.parametrize("bad", [{"order": 3}, {"weight": -1.0}, {"upper": "adam"}])
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="f2ba"):
        F2BA().options.from_mapping(bad, "f2ba")
