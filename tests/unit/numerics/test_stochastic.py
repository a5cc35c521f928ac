"""Averages, tables and step rules of stochastic methods against what they are by definition."""

from __future__ import annotations

import pytest
import torch

from bilevelpy.numerics.stochastic.averages import MovingAverage, Storm, TailMean
from bilevelpy.numerics.stochastic.step_rules import BACKTRACKS, SHRINK, Armijo, Polyak
from bilevelpy.numerics.stochastic.variance_reduction import SagaTable, Sarah

BATCHES, DIM = 5, 3


def batches() -> torch.Tensor:
    """Gradients of ``f_j(z) = |z - c_j|^2 / 2``, less z: the c_j."""
    return torch.randn(BATCHES, DIM, generator=torch.Generator().manual_seed(0)).double()


def gradient(c: torch.Tensor, j: int, z: torch.Tensor) -> torch.Tensor:
    return z - c[j]


def test_saga_is_unbiased_and_exact_where_the_table_is_new() -> None:
    c, z = batches(), torch.ones(DIM, dtype=torch.float64)
    mean = z - c.mean(0)
    old = torch.full((DIM,), 4.0, dtype=torch.float64)
    values = torch.stack([gradient(c, j, old) for j in range(BATCHES)])
    estimates = [SagaTable(values.clone()).direction(j, gradient(c, j, z)) for j in range(BATCHES)]
    torch.testing.assert_close(torch.stack(estimates).mean(0), mean)
    fresh = SagaTable.filled(BATCHES, lambda j: gradient(c, j, z))
    torch.testing.assert_close(fresh.direction(2, gradient(c, 2, z)), mean)


def test_the_running_mean_of_saga_is_the_mean_of_its_table() -> None:
    c, table = batches(), SagaTable.zeros(BATCHES, DIM)
    rng = torch.Generator().manual_seed(1)
    for k in range(1200):
        j = int(torch.randint(BATCHES, (1,), generator=rng))
        table.direction(j, gradient(c, j, torch.full((DIM,), 0.01 * k).double()))
        torch.testing.assert_close(table.mean, table.values.mean(0))


def test_sarah_and_storm_follow_a_move_exactly_where_batches_differ_by_constants() -> None:
    c, z = batches(), torch.zeros(DIM, dtype=torch.float64)
    sarah, storm = Sarah(z - c.mean(0)), Storm(z - c.mean(0))
    for k in range(4):
        new = z + 1.0 + k
        sarah.update(gradient(c, k, new), gradient(c, k, z))
        storm.update(gradient(c, k, new), gradient(c, k, z), 0.0)
        z = new
        torch.testing.assert_close(sarah.direction, z - c.mean(0))
        torch.testing.assert_close(storm.value, z - c.mean(0))


def test_storm_with_weight_one_is_the_newest_direction() -> None:
    storm = Storm()
    first, second = torch.ones(2).double(), torch.zeros(2).double()
    assert torch.equal(storm.update(first, first, 0.1), first)
    assert torch.equal(storm.update(second, first, 1.0), second)


def test_moving_average() -> None:
    average = MovingAverage(0.25)
    assert float(average.update(torch.tensor(8.0))) == 8.0
    assert float(average.update(torch.tensor(0.0))) == 6.0


@pytest.mark.parametrize("count", [1, 7, 8, 9, 100, 1000])
def test_the_tail_mean_forgets_the_beginning(count: int) -> None:
    tail = TailMean()
    for k in range(count):
        tail.update(torch.tensor([float(k)]).double())
    assert tail.mean is not None
    mean = float(tail.mean)
    # The mean of a stretch that ends at the newest point, or shortly before it.
    assert mean >= 0.4 * (count - 1) or count <= 8
    assert mean <= count - 1


def test_polyak_steps_are_exact_on_a_quadratic_and_capped() -> None:
    # F = a x^2 / 2 with minimum 0: t = F / (c |F'|^2) with c = 1/2 is 1/a.
    a, x = 4.0, 3.0
    rule = Polyak(cap=10.0)
    assert rule.length(a * x * x / 2, (a * x) ** 2, 1.0) == pytest.approx(1 / a)
    assert Polyak(cap=0.1).length(a * x * x / 2, (a * x) ** 2, 0.5) == pytest.approx(0.05)
    assert rule.length(-1.0, 1.0, 1.0) == 0.0
    assert rule.length(float("nan"), 1.0, 1.0) == 0.0


def test_armijo_accepts_decrease_and_never_needs_the_true_response() -> None:
    a, x = 4.0, 3.0
    slope = (a * x) ** 2

    def value(t: float) -> float:
        return a * (x - t * a * x) ** 2 / 2

    rule = Armijo(cap=8.0, most=8.0)
    t = rule.length(value, slope, 0.0, 1.0)
    assert value(t) <= value(0.0) - rule.c * t * slope
    assert value(t / SHRINK) > value(0.0) - rule.c * t / SHRINK * slope
    # What the response is wrong by is allowed.
    assert Armijo(8.0, 8.0).length(value, slope, 1e9, 1.0) == 8.0
    never = Armijo(1.0, 1.0).length(lambda t: 0.0 if t == 0 else 1.0, 1.0, 0.0, 1.0)
    assert never == SHRINK**BACKTRACKS
