"""What depends on x alone is computed once for the many evaluations of the lower level at one x."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.lowering.oracle import TorchOracle

MODEL = """\
model hoisted;
dim k, n, d;
param images[n, k], t[n], theta0[k];
extern features(theta[k], A[n, k]) -> [n, d] : smooth;
upper { var theta[k] start theta0; minimize sum((features(theta, images) @ w - t)^2); }
lower fit { var w[d]; minimize sum((features(theta, images) @ w - t)^2) + sumsq(w); }
"""


class Features:
    """Three smooth features of each row; counts how often it is evaluated."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, theta: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        z = A * theta
        return torch.stack([torch.tanh(z.sum(1)), torch.sin(z.sum(1)), z.square().sum(1)], 1)


@pytest.fixture
def made() -> tuple[TorchOracle, Features]:
    rng = np.random.default_rng(0)
    features = Features()
    model = bl.parse(
        MODEL, images=rng.normal(size=(5, 2)), t=rng.normal(size=5), theta0=rng.normal(size=2),
        d=3, externs={"features": features},
    )  # fmt: skip
    return TorchOracle(model.bound), features


def test_a_function_handed_over_is_called_once_for_an_x(made: tuple[TorchOracle, Features]) -> None:
    oracle, features = made
    x = oracle.x0
    oracle.f(x, oracle.y0), oracle.grad_f(x, oracle.y0), oracle.hvp(x, oracle.y0)
    before = features.calls
    for _ in range(5):
        y = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        oracle.f(x, y)
        oracle.grad_f(x, y)
        oracle.hvp(x, y)(y)
    assert features.calls == before
    oracle.f(x + 0.1, oracle.y0)
    assert features.calls == before + 1


def test_values_follow_x_and_are_those_of_the_plain_program(
    made: tuple[TorchOracle, Features],
) -> None:
    """Also where the same tensor is changed in place."""
    oracle, _ = made
    plain = oracle.function((oracle.f_expr,))
    x = oracle.x0.clone()
    for step in range(4):
        x += 0.1 * step
        y = torch.full((3,), 0.3 * step, dtype=torch.float64)
        exact = plain(*oracle.upper.split(x), *oracle.lower.split(y)).item()
        assert oracle.f(x, y) == pytest.approx(exact, rel=1e-13)
        h = 1e-6
        for k, e in enumerate(torch.eye(3, dtype=torch.float64)):
            slope = (oracle.f(x, y + h * e) - oracle.f(x, y - h * e)) / (2 * h)
            assert oracle.grad_f(x, y)[k].item() == pytest.approx(slope, rel=1e-6, abs=1e-7)
