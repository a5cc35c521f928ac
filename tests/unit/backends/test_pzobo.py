"""PZOBO: the exact Jacobian of N steps by orthonormal directions, its variance, and its noise
floor.
"""

from __future__ import annotations

import pytest
import torch

from bilevelpy.backends.zeroth_order.pzobo import PZOBO
from bilevelpy.errors import UsageError
from bilevelpy.numerics.driver.loop import run
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status
from tests.oracles import HandOracle, toy
from tests.unit.backends.helpers import relative_error, solve, truth


def hypergradient(o: HandOracle, seed: int = 0, **options) -> torch.Tensor:
    backend = PZOBO()
    settings = backend.options.from_mapping({"upper_step": 1.0, **options}, "pzobo")
    rng = torch.Generator().manual_seed(seed)
    return backend.init(o, o.x0, o.y0, settings, rng).point.g


def unrolled(o, steps: int, a: float) -> tuple[torch.Tensor, torch.Tensor]:
    """y_N and J_N of N gradient steps: J <- J - a (A J - B')."""
    y, J = o.y0, torch.zeros(o.m, o.n, dtype=torch.float64)
    for _ in range(steps):
        y, J = y - a * (o.A @ y + o.C.T @ o.x0), J - a * (o.A @ J + o.C.T)
    return y, J


@pytest.mark.parametrize("central", [True, False])
def test_orthonormal_directions_give_the_unrolled_hypergradient(central: bool) -> None:
    o = toy(10, n=12)
    y, J = unrolled(o, 6, 0.15)
    exact = o.x0 - 1 + J.T @ (o.A @ y)
    h = hypergradient(o, lower_steps=6, lower_step=0.15, difference=0.1, central=central)
    assert torch.allclose(h, exact, atol=1e-10)


@pytest.mark.parametrize("directions", ["gaussian", "unit", "orthonormal"])
def test_random_directions_are_unbiased(directions: str) -> None:
    o = toy(2, n=6)
    y, J = unrolled(o, 4, 0.3)
    indirect = J.T @ (o.A @ y)
    options = {"lower_steps": 4, "lower_step": 0.3, "count": 3, "directions": directions}
    draws = torch.stack([hypergradient(o, seed, **options) for seed in range(400)])
    mean = draws.mean(0) - (o.x0 - 1)
    assert float((mean - indirect).norm() / indirect.norm()) < 0.15
    # E |h - E h|^2 over |J'F_y|^2: (n+1)/Q for Gaussian, n/Q - 1 for orthonormal directions.
    variance = float(((draws - draws.mean(0)) ** 2).sum(1).mean() / (indirect @ indirect))
    expected = {"gaussian": 7 / 3, "orthonormal": 1.0}.get(directions)
    if expected is not None:
        assert variance == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("kappa", [1, 3])
def test_defaults_solve_the_toy_without_products(kappa: float) -> None:
    o = toy(kappa, n=5)
    settings = SolveOptions()
    products = run(o, PZOBO(), None, settings).counts
    assert products["hvp"] == products["jvp"] == 0
    found = solve(PZOBO(), toy(kappa, n=5))
    assert found.status is Status.CONVERGED
    assert relative_error(found.x, o.solution()[0]) < 1e-4


def test_line_searches_see_values_that_are_good_to_the_square_of_the_tolerance() -> None:
    # Paths that end at a tenth of the tolerance leave an error of 1e-4 in x.
    o = toy(10, n=4)
    raw = run(o, PZOBO(), None, SolveOptions())
    assert raw.candidate
    assert relative_error(raw.x, o.solution()[0]) < 1e-6


def test_one_random_direction_has_a_noise_floor_and_says_so() -> None:
    o = toy(2, n=30)
    t = truth(o)
    options = {"directions": "gaussian", "count": 1, "lower_steps": 10}
    steps = {"lower_step": 2 / (t.L + t.mu), "upper_step": 1 / (35 * t.L_phi)}
    found = solve(PZOBO(), o, max_iter=300, **options, **steps)
    assert 0.03 < relative_error(found.x, t.x) < 1.0
    assert found.status is not Status.CONVERGED
    assert any("noise" in w for w in found.warnings)


def test_the_same_seed_gives_the_same_run() -> None:
    settings = SolveOptions(
        max_iter=5, seed=3, backend_options={"directions": "gaussian", "lower_steps": 3, "count": 2}
    )
    one, two = (run(toy(2, n=4), PZOBO(), None, settings) for _ in range(2))
    assert torch.equal(one.x, two.x)


@pytest.mark.parametrize("bad", [{"directions": "axes"}, {"difference": 0.0}, {"count": -1}])
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="pzobo"):
        PZOBO().options.from_mapping(bad, "pzobo")


@pytest.mark.parametrize("central", [True, False])
def test_more_orthonormal_directions_than_variables_are_all_of_them(central: bool) -> None:
    asked, whole = (solve(PZOBO(), toy(3, n=4), count=k, central=central) for k in (9, 4))
    assert torch.equal(asked.x, whole.x)
