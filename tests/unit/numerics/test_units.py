"""Sizes of variables: found where they differ by much, and invisible from outside."""

from __future__ import annotations

import pytest
import torch

from bilevelpy.backends import registry
from bilevelpy.backends.rescaled import SCALABLE, Rescaled
from bilevelpy.lowering.domains.product import Block, ProductSet
from bilevelpy.numerics.driver.loop import run
from bilevelpy.numerics.scaled import ScaledOracle, Units
from bilevelpy.numerics.units import find_units
from bilevelpy.options import SolveOptions
from tests.oracles import AutoOracle, box, logistic, toy, vec


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def diagonal(curvatures: torch.Tensor) -> AutoOracle:
    """f = sum a y^2 / 2 - x'y, F = |x - 1|^2 / 2 + sum a y^2 / 2: x* = 1 / (1 + 1/a)."""
    n = curvatures.numel()
    start = torch.full((n,), 2.0, dtype=torch.float64)
    return AutoOracle(
        lambda x, y: 0.5 * ((x - 1) ** 2).sum() + 0.5 * (curvatures * y**2).sum(),
        lambda x, y: 0.5 * (curvatures * y**2).sum() - x @ y,
        start,
        start,
    )


def test_functions_in_other_units() -> None:
    """Values are the same, derivatives follow the chain rule, for a model that is not quadratic."""
    o = logistic(30, 4)
    units = Units(torch.full((o.n,), 4.0, dtype=torch.float64), vec(0.5, 2.0, 8.0, 1.0))
    s = ScaledOracle(o, units)
    direct = AutoOracle(
        lambda x, y: o._F(units.x * x, units.y * y),
        lambda x, y: o._f(units.x * x, units.y * y),
        s.x0,
        s.y0,
    )
    x, y = s.x0 - 0.1, s.y0 + 0.3
    v = vec(1.0, -2.0, 0.5, 3.0)
    assert s.F(x, y) == direct.F(x, y)
    assert s.value_grad_f(x, y)[0] == direct.f(x, y)
    for name in ("grad_f", "grad_f_x", "hessian"):
        torch.testing.assert_close(getattr(s, name)(x, y), getattr(direct, name)(x, y))
    for mine, other in zip(s.grad_F(x, y), direct.grad_F(x, y), strict=True):
        torch.testing.assert_close(mine, other)
    for mine, other in zip(s.pullback(x, y)(v), direct.pullback(x, y)(v), strict=True):
        torch.testing.assert_close(mine, other)
    torch.testing.assert_close(s.hvp(x, y)(v), direct.hvp(x, y)(v))
    torch.testing.assert_close(s.cross(x, y)(v), direct.cross(x, y)(v))
    assert torch.equal(s.domain_x.lower * units.x, o.domain_x.lower)


def test_a_diagonal_lower_level_is_made_round() -> None:
    a = torch.logspace(0, 6, 200, dtype=torch.float64)
    units = find_units(diagonal(a), [(0, 200)], [(0, 200)], rng())
    assert units is not None
    assert torch.equal(units.x, torch.ones(200, dtype=torch.float64))
    bent = a * units.y**2
    assert float(bent.max() / bent.min()) <= 4.0
    assert torch.equal(torch.log2(units.y), torch.log2(units.y).round())


def test_models_in_one_unit_are_left_alone() -> None:
    for o in (toy(100), logistic(30, 4), diagonal(torch.ones(5, dtype=torch.float64))):
        assert find_units(o, [(0, o.n)], [(0, o.m)], rng()) is None


def test_blocks_of_different_units_below() -> None:
    """Two coupled blocks, one in thousandths."""
    o = AutoOracle(
        lambda x, y: (x**2).sum() + (y**2).sum(),
        lambda x, y: (1e4 * y[0] - x[0]) ** 2 + (y[1] - 1e4 * y[0]) ** 2,
        vec(1.0),
        vec(0.0, 0.0),
    )
    units = find_units(o, [(0, 1)], [(0, 1), (1, 2)], rng())
    assert units is not None
    assert float(units.y[1] / units.y[0]) == pytest.approx(1e4 * 2**0.5, rel=0.5)


def test_simplices_keep_their_unit_and_balls_scale_their_radius() -> None:
    domain = ProductSet([Block("simplex", 0, 1, 2), Block("ball", 2, 1, 2, radius=vec(3.0))], 4)
    o = AutoOracle(
        lambda x, y: (y**2).sum(),
        lambda x, y: (y[:2] ** 2).sum() + 1e8 * (y[2:] - x).pow(2).sum(),
        vec(1.0, 1.0),
        torch.full((4,), 0.5, dtype=torch.float64),
        None,
        domain,
    )
    units = find_units(o, [(0, 2)], [(0, 2), (2, 4)], rng())
    assert units is not None
    assert torch.equal(units.y[:2], torch.ones(2, dtype=torch.float64))
    radius = ScaledOracle(o, units).domain_y.balls[0].radius
    torch.testing.assert_close(radius, vec(3.0) / units.y[2:3])


@pytest.mark.parametrize("name", ["aid", "nbo", "qnbo"])
def test_conjugate_gradients_solve_what_they_cannot_in_the_model_s_units(name: str) -> None:
    a = torch.logspace(0, 6, 60, dtype=torch.float64)
    o = diagonal(a)
    units = find_units(o, [(0, 60)], [(0, 60)], rng())
    assert units is not None
    found = run(o, Rescaled(registry.get(name), units), None, SolveOptions(max_iter=60))
    torch.testing.assert_close(found.x, 1 / (1 + 1 / a), rtol=1e-4, atol=1e-4)
    assert pytest.approx(float(0.5 * (1 - found.x).sum()), rel=1e-4) == found.F


def test_every_scalable_backend_runs_in_other_units() -> None:
    o = toy(2)
    x, y = o.solution()
    units = Units(torch.full_like(o.x0, 4.0), torch.full_like(o.y0, 0.5))
    for name in sorted(SCALABLE):
        found = run(o, Rescaled(registry.get(name), units), None, SolveOptions(max_iter=100))
        assert torch.allclose(found.x, x, atol=3e-2), name
        assert torch.allclose(found.y, y, atol=3e-2), name


def test_boxes_are_scaled_with_their_variables() -> None:
    o = AutoOracle(
        lambda x, y: ((y - 2) ** 2).sum(),
        lambda x, y: (1e6 * (y[0] - x[0]) ** 2 + (y[1] - x[1]) ** 2) / 2,
        vec(0.2, 0.2),
        vec(0.0, 0.0),
        None,
        box(2, 0.0, 1.0),
    )
    units = find_units(o, [(0, 2)], [(0, 2)], rng())
    assert units is not None
    found = run(o, Rescaled(registry.get("direct"), units), None, SolveOptions())
    torch.testing.assert_close(found.y, vec(1.0, 1.0))
