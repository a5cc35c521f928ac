"""PZOBO-S: common random numbers, the unrolled hypergradient, and the noise floor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy import solving
from bilevelpy.analysis import analyze
from bilevelpy.backends import registry
from bilevelpy.backends.base import Reject
from bilevelpy.backends.stochastic.pzobo_s import PZOBOS, PZOBOSOptions, common_paths
from bilevelpy.backends.stochastic.state import SampledState
from bilevelpy.errors import UsageError
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.together import batch_gradients_together
from bilevelpy.numerics.driver.loop import RunResult
from bilevelpy.numerics.driver.loop import run as drive
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status

# Validation case 6.1 (c) as a sum over the rows of A, with A'A = I: y = x, x = z / 2.
QUADRATIC = """
model sum; dim k, n; param A[k, n], z[n];
upper { var x[n] start 2; minimize sum((x - z)^2) / 2 + sum((A @ y)^2) / 2; }
lower follower { var y[n] start 2; minimize sum((A @ y)^2) / 2 - sum(x * y); }
"""
LOGISTIC = """
model penalty; dim k, l, n; param X[k, n], s[k], V[l, n], t[l];
upper { var x in [-6, 6] start 0;
  minimize sum(log(1 + exp(-t[i] * sum(V[i, j] * y[j] for j in n))) for i in l) / l; }
lower fit { var y[n];
  minimize sum(log(1 + exp(-s[i] * sum(X[i, j] * y[j] for j in n))) for i in k) / k
    + exp(x) * sum(y^2) / 2; }
"""
N, ROWS = 3, 256


def quadratic() -> bl.Model:
    A, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((ROWS, N)))
    return bl.parse(QUADRATIC, data={"A": A, "z": np.ones(N)})


def logistic() -> bl.Model:
    rng = np.random.default_rng(1)
    w, X, V = rng.standard_normal(N), rng.standard_normal((400, N)), rng.standard_normal((400, N))
    s, t = (np.where(M @ w + 2 * rng.standard_normal(400) > 0, 1.0, -1.0) for M in (X, V))
    return bl.parse(LOGISTIC, data={"X": X, "s": s, "V": V, "t": t})


def run(model: bl.Model, max_iter: int = 60, **options: Any) -> RunResult:
    settings = SolveOptions(max_iter=max_iter, backend_options=options)
    return drive(solving.oracle(model), PZOBOS(), None, settings)


def started(model: bl.Model, **options: Any) -> tuple[TorchOracle, SampledState, PZOBOSOptions]:
    given = {"metric": "none", "prepare": "none", "sampling": "random", **options}
    settings = PZOBOSOptions(**given)
    o = solving.oracle(model)
    rng = torch.Generator().manual_seed(0)
    return o, PZOBOS().init(o, o.x0, o.y0, settings, rng), settings


def test_common_batches_take_the_noise_out_of_the_difference() -> None:
    # With the same batches delta = J_N(B) U for any mu; batches of their own leave the noise of y_N
    # over mu in it: 2e5 times the variance with mu = 1e-2, and a hundred times that with mu = 1e-3.
    o, state, _ = started(quadratic(), batch=16)
    U, x = np.sqrt(N) * torch.eye(N, dtype=torch.float64), state.x[None]

    def common(mu: float) -> torch.Tensor:
        ends = common_paths(o, state, 10, torch.cat([x, x + mu * U]))
        return (ends[1:] - ends[0]) / mu

    def independent(mu: float) -> torch.Tensor:
        moved = common_paths(o, state, 10, x + mu * U)
        return (moved - common_paths(o, state, 10, x)) / mu

    def variance(draw: Callable[[float], torch.Tensor], mu: float) -> float:
        return float(torch.stack([draw(mu) for _ in range(40)]).var(dim=0).sum())

    same = [variance(common, mu) for mu in (1e-2, 1e-3)]
    own = [variance(independent, mu) for mu in (1e-2, 1e-3)]
    assert own[0] > 1e5 * same[0]
    assert 0.3 < same[1] / same[0] < 3.0
    assert 30.0 < own[1] / own[0] < 300.0


def test_a_single_batch_gives_the_unrolled_hypergradient() -> None:
    # J_{t+1} = J_t - s (J_t - I) for A'A = I, and h = x - z + J_N' y_N.
    o, state, options = started(
        quadratic(), batch=ROWS, lower_steps=5, lower_step=0.3, upper_step=0.1, decay=0.0
    )
    x, y, J = state.x, state.y, 0.0
    for _ in range(5):
        y, J = y - 0.3 * (y - x), J - 0.3 * (J - 1.0)
    expected = x - 0.1 * (x - 1.0 + J * y)
    state.wait = 0
    PZOBOS().iterate(o, state, options)
    assert torch.allclose(state.y, y, rtol=0, atol=1e-12)
    assert torch.allclose(state.x, expected, rtol=0, atol=1e-10)


def test_gradients_of_a_batch_together_are_those_one_by_one() -> None:
    o, state, _ = started(logistic())
    batch = state.batch()
    X = torch.randn(4, o.n, dtype=torch.float64, generator=state.rng)
    Y = torch.randn(4, o.m, dtype=torch.float64, generator=state.rng)
    found = batch_gradients_together(batch)(batch, X, Y)
    single = torch.stack([batch.grad_f(x, y) for x, y in zip(X, Y, strict=True)])
    assert torch.allclose(found, single, rtol=1e-12, atol=1e-14)


def test_a_quadratic_sum_ends_near_its_solution_and_does_not_pretend() -> None:
    found = run(quadratic())
    assert float((found.x - 0.5).abs().max()) < 3e-2
    assert found.status is Status.ITERATION_LIMIT


def test_a_logistic_sum_comes_to_the_noise_of_its_batches() -> None:
    # From 0.038 above the optimum: a run on single batches ends at a hundredth of that, one on all
    # rows, which has no noise but the same steps, well below. Seeds differ by a factor of three.
    model = logistic()
    oracle = solving.oracle(model)
    exact = drive(oracle, registry.get("direct"), None, SolveOptions())
    assert exact.status is Status.CONVERGED
    first = drive(oracle, registry.get("direct"), None, SolveOptions(max_iter=0))
    noisy, quiet = (
        abs(run(model, 100, prepare="respond", batch=batch).F - exact.F) for batch in (64, 400)
    )
    assert noisy < 0.03 * (first.F - exact.F)
    assert quiet < 0.006 * (first.F - exact.F)


def test_the_seed_decides_everything() -> None:
    o = solving.oracle(quadratic())

    def end(seed: int) -> torch.Tensor:
        return drive(o, PZOBOS(), None, SolveOptions(max_iter=2, seed=seed)).x

    assert torch.equal(end(3), end(3))
    assert not torch.equal(end(3), end(4))


def test_what_is_no_sum_is_refused_with_the_fact() -> None:
    text = "model q; upper { var x; minimize (y - 1)^2; } lower l { var y; minimize (y - x)^2; }"
    model = bl.parse(text)
    verdict = PZOBOS().accepts(analyze(model.bound, solving.oracle(model)))
    assert isinstance(verdict, Reject)
    assert "sum over data" in verdict.reason
    assert verdict.fact is not None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lower_steps": 2}, "perturbed problem"),
        ({"count": 1}, "noisy"),
        ({"directions": "published"}, "1/n_x"),
    ],
)
def test_bias_and_noise_are_told(options: dict[str, Any], said: str) -> None:
    assert any(said in w for w in run(quadratic(), 1, **options).warnings)


@pytest.mark.parametrize(
    ("option", "value"),
    [("directions", "all"), ("count", -1), ("difference", 0.0), ("lower_steps", -1)],
)
def test_options_out_of_range(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"pzobo_s.{option}"):
        PZOBOSOptions.from_mapping({option: value}, "pzobo_s")
