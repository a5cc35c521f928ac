"""Batches of sums whose rows go through a function handed over, and time limits of pilots."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.backends.stochastic.scale import prepared
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.sums.sampled import SampledOracle
from bilevelpy.numerics.driver.deadline import DeadlineOracle, OutOfTime

ROWS = 37
# Label y[i] is picked from the scores of row i, which are not written in the model.
MODEL = """
model rows;
dim n, m, p, k;
set CLASS = 0..2;
param X[n, p], y[n], V[m, p], v[m];
extern net(theta[k], row[p]) -> [CLASS] : smooth;
upper {
  var weight[n] start 0;
  let Zv[i in m, c in CLASS] = net(theta, V[i, :])[c];
  minimize mean(softmax_cross_entropy(Zv, v));
}
lower fit {
  var theta[k] start 0.1;
  let Z[i in n, c in CLASS] = net(theta, X[i, :])[c];
  minimize mean(sigmoid(weight) * softmax_cross_entropy(Z, y)) + sumsq(theta) / 2;
}
"""


def net(theta: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    return torch.tanh(row @ theta.reshape(4, 3))


@pytest.fixture
def oracle() -> TorchOracle:
    rng = np.random.default_rng(0)
    data = {
        "X": rng.normal(size=(ROWS, 4)), "y": rng.integers(0, 3, ROWS),
        "V": rng.normal(size=(20, 4)), "v": rng.integers(0, 3, 20), "k": 12,
    }  # fmt: skip
    return TorchOracle(bl.parse(MODEL, data=data, externs={"net": net}).bound)


def test_batches_add_up_to_the_objectives(oracle: TorchOracle) -> None:
    """Each level is the mean of its batches, derivatives included."""
    rng = torch.Generator().manual_seed(0)
    sampled = SampledOracle(oracle, batch=8, upper_batch=7, rng=rng)
    below, above = sampled.counts
    assert below > 2
    assert above > 2
    x = torch.randn(oracle.n, generator=rng, dtype=torch.float64)
    y = torch.randn(oracle.m, generator=rng, dtype=torch.float64)
    v = torch.randn(oracle.m, generator=rng, dtype=torch.float64)

    def mean(part: Any, count: int, *, upper: bool = False) -> torch.Tensor:
        found = [part(sampled.at(0, j) if upper else sampled.at(j, 0)) for j in range(count)]
        return torch.stack([torch.as_tensor(f, dtype=torch.float64) for f in found]).mean(0)

    for whole, parts in (
        (oracle.f(x, y), mean(lambda o: o.f(x, y), below)),
        (oracle.F(x, y), mean(lambda o: o.F(x, y), above, upper=True)),
        (oracle.grad_f(x, y), mean(lambda o: o.grad_f(x, y), below)),
        (oracle.cross(x, y)(v), mean(lambda o: o.cross(x, y)(v), below)),
        (oracle.hvp(x, y)(v), mean(lambda o: o.hvp(x, y)(v), below)),
    ):
        torch.testing.assert_close(torch.as_tensor(whole, dtype=torch.float64), parts)


def test_a_pilot_ends_with_the_run(oracle: TorchOracle) -> None:
    rng = torch.Generator().manual_seed(0)
    state: Any = SimpleNamespace(
        x=oracle.x0, y=oracle.y0, data=SampledOracle(oracle, batch=8, rng=rng), rng=rng
    )
    options = SimpleNamespace(prepare="none", metric="pilot")
    late = DeadlineOracle(oracle, -math.inf)
    with pytest.raises(OutOfTime):
        prepared(late, state, options)
    prepared(DeadlineOracle(oracle, math.inf), state, options)
    assert state.first > 0
