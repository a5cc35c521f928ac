"""ITD: biased limits, agreement of its modes, and the exact limit of long paths."""

from __future__ import annotations

import pytest
import torch

from bilevelpy.backends.unrolled.itd import ITD
from bilevelpy.errors import UsageError
from bilevelpy.result import Status
from tests.oracles import AutoOracle, Quadratic, logistic, toy, vec
from tests.unit.backends.helpers import relative_error, solve, truth


def biased_limit(o: Quadratic, steps: int, step: float) -> torch.Tensor:
    """(D + B (I - (I - beta A)^T) A^-1 B')^-1 D z0 with B = D = I, z0 = 1."""
    eye = torch.eye(o.n, dtype=torch.float64)
    left = torch.linalg.matrix_power(eye - step * o.A, steps)
    return torch.linalg.solve(eye + (eye - left) @ torch.linalg.inv(o.A), torch.ones_like(o.x0))


@pytest.mark.parametrize("kappa", [2, 10, 100])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_fixed_number_of_steps_has_the_biased_limit(kappa: float, steps: int) -> None:
    o = toy(kappa, n=20)
    t = truth(o)
    step = 2 / (t.L + t.mu)
    options = {"lower_steps": steps, "lower_step": step, "upper_step": 1 / t.L_phi}
    found = solve(ITD(), o, tol=1e-13, max_iter=6000, **options)
    assert relative_error(found.x, biased_limit(o, steps, step)) < 1e-10
    assert found.status is not Status.CONVERGED
    assert any("perturbed" in w for w in found.warnings)


def test_one_step_on_the_identity_toy_ends_at_one_over_one_plus_beta() -> None:
    found = solve(ITD(), toy(1, n=3), tol=1e-13, lower_steps=1, lower_step=0.2, upper_step=0.3)
    assert found.x == pytest.approx([1 / 1.2] * 3, abs=1e-11)


def hypergradient(o, **options) -> torch.Tensor:
    backend = ITD()
    settings = backend.options.from_mapping({"upper_step": 1.0, **options}, "itd")
    return backend.init(o, o.x0, o.y0, settings, torch.Generator()).point.g


def test_reverse_and_forward_mode_agree() -> None:
    for steps, truncate in ((7, 0), (7, 3)):
        options = {"lower_steps": steps, "truncate": truncate, "lower_step": 0.5}
        o = logistic(40, 5)
        reverse = hypergradient(o, mode="reverse", **options)
        assert torch.allclose(reverse, hypergradient(o, mode="forward", **options), atol=1e-9)


def test_a_long_path_gives_the_exact_hypergradient() -> None:
    o = toy(10, n=8)
    t = truth(o)
    exact = t.M @ (o.x0 - t.x)
    step = 2 / (t.L + t.mu)
    assert torch.allclose(hypergradient(o, lower_steps=200, lower_step=step), exact, atol=1e-10)


@pytest.mark.parametrize("kappa", [1, 10, 100])
def test_defaults_solve_the_toy(kappa: float) -> None:
    o = toy(kappa, n=20)
    found = solve(ITD(), o)
    assert found.status is Status.CONVERGED
    assert relative_error(found.x, o.solution()[0]) < 1e-5


def test_forward_mode_solves_a_problem_with_few_upper_variables() -> None:
    o = toy(10, n=3)
    found = solve(ITD(), o, mode="forward")
    assert found.status is Status.CONVERGED
    assert relative_error(found.x, o.solution()[0]) < 1e-4


def test_a_box_is_differentiated_through() -> None:
    """y = clip(x, 0, 1) stays at its bound for the second entry, which then has no derivative."""
    from tests.oracles import box

    o = AutoOracle(
        lambda x, y: (
            0.5 * ((y - vec(0.5, 2.0)) ** 2).sum() + 0.05 * ((x - vec(0.0, 2.0)) ** 2).sum()
        ),
        lambda x, y: 0.5 * ((y - x) ** 2).sum(),
        vec(0.3, 3.0),
        vec(0.0, 0.0),
        domain_y=box(2, 0.0, 1.0),
    )
    found = solve(ITD(), o)
    assert found.status is Status.CONVERGED
    assert found.x == pytest.approx([0.5 / 1.1, 2.0], abs=1e-5)


@pytest.mark.parametrize("bad", [{"mode": "sideways"}, {"lower_steps": -1}, {"upper": "adam"}])
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="itd"):
        ITD().options.from_mapping(bad, "itd")
