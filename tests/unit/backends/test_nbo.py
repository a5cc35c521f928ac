"""NBO: closed forms, the counts of its toy runs, and what its options do."""

from __future__ import annotations

import pytest
import torch

from bilevelpy.backends.implicit.nbo import NBO
from bilevelpy.errors import UsageError
from bilevelpy.numerics.driver.loop import run
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status
from tests.oracles import AutoOracle, box_kink, logistic, ridge, toy, vec
from tests.unit.backends.helpers import relative_error, solve, to_goal, truth

PAPER = {"upper": "gd", "damping": False, "prepare": False}


def test_newton_errors_follow_the_closed_form() -> None:
    """f = e^(y-x) - (y-x) has y* = x, and a Newton step takes the error t to t - 1 + e^-t."""
    o = AutoOracle(
        lambda x, y: ((y - 1) ** 2).sum(),
        lambda x, y: (torch.exp(y - x) - (y - x)).sum(),
        vec(0.0),
        vec(0.5),
    )
    backend = NBO()
    options = backend.options.from_mapping(
        {**PAPER, "upper_step": 1e-300, "fresh_u": False, "solver_steps": 1}, "nbo"
    )
    state = backend.init(o, o.x0, o.y0, options, torch.Generator())
    errors = []
    for _ in range(4):
        state = backend.step(o, state, options)
        errors.append(float(state.y - state.x))
    assert errors[:3] == pytest.approx([0.1065306597, 0.0054781460, 1.497768e-05], rel=1e-6)
    assert errors[3] == pytest.approx(1.12e-10, rel=1e-2)


def test_exact_solves_of_a_quadratic_give_response_and_adjoint_at_once() -> None:
    o = toy(10, n=6)
    o.y0 = torch.arange(6, dtype=torch.float64)
    backend = NBO()
    options = backend.options.from_mapping(
        {**PAPER, "upper_step": 1e-300, "fresh_u": False, "solver_steps": 10}, "nbo"
    )
    state = backend.step(o, backend.init(o, o.x0, o.y0, options, torch.Generator()), options)
    assert torch.allclose(state.y, torch.linalg.solve(o.A, o.x0), atol=1e-12)
    # H u = A y at the old y.
    assert torch.allclose(state.u, o.y0, atol=1e-12)


def test_first_step_of_the_identity_toy_is_one_half() -> None:
    o = toy(1, n=5)
    options = {**PAPER, "upper_step": 0.5, "fresh_u": False, "solver_steps": 1}
    found = run(o, NBO(), None, SolveOptions(max_iter=1, backend_options=options))
    assert torch.allclose(found.x, torch.full((5,), 0.5, dtype=torch.float64), atol=1e-14)


# (kappa, options, iterations, lower gradients, products) of the reference table of the toy.
TABLE = [
    (2, {"solver_steps": 5, "fresh_u": False}, 53, 53, 583),
    (2, {"solver_steps": 10, "fresh_u": False}, 53, 53, 1113),
    (100, {"solver_steps": 5, "fresh_u": False}, 79, 79, 869),
    (100, {"solver_steps": 10, "fresh_u": False}, 55, 55, 1155),
    (100, {"solver_steps": 10, "fresh_u": True}, 29, 29, 609),
]


@pytest.mark.parametrize(("kappa", "options", "iterations", "gradients", "products"), TABLE)
def test_counts_of_the_reference_table(kappa, options, iterations, gradients, products) -> None:
    t = truth(toy(kappa))
    found = to_goal(NBO(), kappa, **PAPER, upper_step=1 / t.L_phi, **options)
    assert found.iterations == pytest.approx(iterations, rel=0.05)
    assert found.counts["grad_f"] == pytest.approx(gradients, rel=0.05)
    assert found.counts["hvp"] == pytest.approx(products, rel=0.05)


def test_gradient_descent_as_inner_solver_costs_three_products() -> None:
    t = truth(toy(2))
    options = {"solver": "gd", "solver_steps": 1, "solver_step": 2 / (t.L + t.mu), "fresh_u": False}
    found = to_goal(NBO(), 2, **PAPER, upper_step=1 / t.L_phi, **options)
    assert found.iterations == pytest.approx(70, abs=3)
    assert found.counts["hvp"] == 3 * found.iterations


@pytest.mark.parametrize("upper", ["lbfgs", "gd"])
@pytest.mark.parametrize("kappa", [1, 10, 100])
def test_defaults_solve_the_toy_without_any_step_size(kappa: float, upper: str) -> None:
    o = toy(kappa)
    found = solve(NBO(), o, upper=upper)
    assert found.status is Status.CONVERGED
    assert relative_error(found.x, o.solution()[0]) < 1e-5


def test_defaults_solve_curved_problems_and_a_kink() -> None:
    for o in (ridge(30, 10), logistic(60, 6), box_kink()):
        assert solve(NBO(), o).status is Status.CONVERGED
    assert pytest.approx(0.55, abs=1e-6) == solve(NBO(), box_kink()).F


def test_damping_saves_newton_from_far_starts() -> None:
    """On log cosh an undamped Newton step from y - x = 2 overshoots for ever."""

    def start() -> AutoOracle:
        return AutoOracle(
            lambda x, y: ((y - 1) ** 2 + 0.1 * x**2).sum(),
            lambda x, y: (torch.log(torch.cosh(y - x)) + 1e-3 * (y - x) ** 2).sum(),
            vec(0.0),
            vec(3.0),
        )

    options = {"upper": "gd", "prepare": False, "upper_step": 0.2}
    assert solve(NBO(), start(), damping=True, **options).status is Status.CONVERGED
    assert solve(NBO(), start(), damping=False, **options).status is not Status.CONVERGED


def test_too_long_a_given_step_is_reported_as_divergence() -> None:
    found = solve(NBO(), toy(2), upper="gd", upper_step=5.0)
    assert found.status is Status.DIVERGED


@pytest.mark.parametrize("bad", [{"solver": "lu"}, {"solver_steps": 0}, {"upper_step": -1.0}])
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="nbo"):
        NBO().options.from_mapping(bad, "nbo")
