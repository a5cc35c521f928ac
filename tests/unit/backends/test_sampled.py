"""Stochastic backends on finite sums with known solutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy import solving
from bilevelpy.analysis import analyze
from bilevelpy.backends import registry
from bilevelpy.backends.base import Reject
from bilevelpy.backends.stochastic.state import Stream
from bilevelpy.errors import UsageError
from bilevelpy.numerics.driver.loop import RunResult
from bilevelpy.numerics.driver.loop import run as drive
from bilevelpy.numerics.stochastic.pilot import Metric, upper_curvature
from bilevelpy.numerics.upper.lipschitz import accurate
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status

REDUCED = ("saba", "srba")
NOISY = ("soba", "ma_soba", "fsla", "amigo_sgd", "stocbio", "nsbo", "f2sa", "fdehbo")
# Validation case 6.1 (c) as a sum over the rows of A, with A'A = Q diag(d) Q'.
TEXT = """
model sum; dim k, n; param A[k, n], z[n];
upper { var x[n] start 2; minimize sum((x - z)^2) / 2 + sum((A @ y)^2) / 2; }
lower follower { var y[n] start 2; minimize sum((A @ y)^2) / 2 - sum(x * y); }
"""
# What variance reduction reaches at tol = 1e-6, and plain batches after some passes.
EXACT, ROUGH = 1e-5, 2e-2


def problem(kappa: float, n: int = 4, rows: int = 256) -> tuple[bl.Model, np.ndarray]:
    """The model and its x."""
    rng = np.random.default_rng(0)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    W, _ = np.linalg.qr(rng.standard_normal((rows, n)))
    d = np.geomspace(1.0, kappa, n)
    model = bl.parse(TEXT, data={"A": (W * np.sqrt(d)) @ Q.T, "z": np.ones(n)})
    return model, np.linalg.solve(np.eye(n) + (Q / d) @ Q.T, np.ones(n))


def run(name: str, model: bl.Model, max_iter: int = 30, **options: Any) -> RunResult:
    settings = SolveOptions(max_iter=max_iter, backend_options=options)
    return drive(solving.oracle(model), registry.get(name), None, settings)


def error(found: RunResult, x: np.ndarray) -> float:
    return float(np.abs(found.x.numpy() - x).max() / (1.0 + np.abs(x).max()))


@pytest.mark.parametrize("kappa", [1.0, 100.0])
@pytest.mark.parametrize("name", REDUCED)
def test_variance_reduction_reaches_the_tolerance(name: str, kappa: float) -> None:
    model, x = problem(kappa)
    found = run(name, model)
    assert found.status is Status.CONVERGED
    assert error(found, x) <= EXACT


@pytest.mark.parametrize("name", REDUCED)
def test_so_it_does_with_plain_steps_from_the_given_start(name: str) -> None:
    model, x = problem(2.0)
    found = run(name, model, max_iter=100, metric="none", prepare="none")
    assert found.status is Status.CONVERGED
    assert error(found, x) <= EXACT


@pytest.mark.parametrize("name", ["saba", "soba", "f2sa"])
def test_given_steps_need_no_pilot(name: str) -> None:
    """Start, metric and both steps by the user: the lower level is never solved, in no part."""
    model, x = problem(2.0)
    given = {"metric": "none", "prepare": "none", "lower_step": 0.2, "upper_step": 0.1}
    decay = {} if name == "saba" else {"decay": 0.3}
    found = run(name, model, max_iter=30, **given, **decay)
    assert error(found, x) <= 5 * ROUGH
    assert found.counts["lower_solves"] == 0


@pytest.mark.parametrize("name", NOISY)
def test_plain_batches_come_close_and_do_not_pretend(name: str) -> None:
    model, x = problem(2.0)
    found = run(name, model, max_iter=40 if name == "stocbio" else 20)
    assert error(found, x) <= ROUGH
    assert found.status is Status.ITERATION_LIMIT


def test_constant_steps_of_soba_end_at_a_noise_floor() -> None:
    model, x = problem(2.0)
    options = {"decay": 0.0, "sampling": "random"}
    long = [error(run("soba", model, max_iter=k, **options), x) for k in (10, 20)]
    exact = error(run("saba", model, max_iter=20), x)
    assert min(long) > 10.0 * exact


@pytest.mark.parametrize("controller", ["sps", "bisls"])
def test_step_controllers_come_close_too(controller: str) -> None:
    model, x = problem(2.0)
    assert error(run("soba", model, controller=controller), x) <= ROUGH


@pytest.mark.parametrize("name", [*REDUCED, *NOISY])
def test_the_seed_decides_everything(name: str) -> None:
    model, _ = problem(2.0)
    oracle, backend = solving.oracle(model), registry.get(name)

    def end(seed: int) -> torch.Tensor:
        return drive(oracle, backend, None, SolveOptions(max_iter=1, seed=seed)).y

    assert torch.equal(end(3), end(3))
    assert not torch.equal(end(3), end(4))


def test_steps_that_are_too_long_are_divergence() -> None:
    model, _ = problem(2.0)
    found = run("soba", model, lower_step=1e3, upper_step=1e3, metric="none")
    assert found.status is Status.DIVERGED


def test_steps_of_the_lower_level_that_are_too_long_are_mended() -> None:
    model, x = problem(2.0)
    found = run("saba", model, upper_step=0.0, prepare="none", passes=2.0)
    assert found.status is Status.CONVERGED
    assert error(found, x) <= EXACT


@pytest.mark.parametrize("name", [*REDUCED, *NOISY])
def test_what_is_no_sum_is_refused_with_the_fact(name: str) -> None:
    text = "model q; upper { var x; minimize (y - 1)^2; } lower l { var y; minimize (y - x)^2; }"
    model = bl.parse(text)
    verdict = registry.get(name).accepts(analyze(model.bound, solving.oracle(model)))
    assert isinstance(verdict, Reject)
    assert "sum over data" in verdict.reason
    assert verdict.fact is not None


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("saba", "sampling", "sometimes"),
        ("saba", "batch", -1),
        ("soba", "controller", "magic"),
        ("soba", "decay", 2.0),
        ("srba", "period", 0.0),
        ("stocbio", "lower_steps", 0),
        ("f2sa", "order", 3),
        ("fdehbo", "difference", 0.0),
        ("ma_soba", "weight", 0.0),
    ],
)
def test_options_out_of_range(name: str, option: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{name}.{option}"):
        registry.get(name).options.from_mapping({option: value}, name)


@pytest.mark.parametrize("mode", ["epoch", "random"])
def test_streams(mode: str) -> None:
    stream = Stream(4, mode, torch.Generator().manual_seed(0))
    drawn = [stream.next() for _ in range(400)]
    assert set(drawn) == set(range(4))
    whole = all(sorted(drawn[k : k + 4]) == [0, 1, 2, 3] for k in range(0, 400, 4))
    assert whole == (mode == "epoch")


def test_the_curvature_of_phi_on_a_pilot() -> None:
    # Phi'' = I + A^-1 of the quadratic family.
    model, _ = problem(4.0)
    oracle = solving.oracle(model)
    start = accurate(oracle, oracle.x0, oracle.y0)
    found = upper_curvature(oracle, oracle.x0, start)
    assert found is not None
    A = model.bound.data.arrays["A"]
    exact = np.eye(4) + np.linalg.inv(A.T @ A)
    np.testing.assert_allclose(found.numpy(), exact, rtol=1e-4, atol=1e-4)
    assert Metric(None, 0.0, 1.0).y(start.y) is start.y


def test_checks_are_fractions_and_a_callback_stops() -> None:
    model, _ = problem(2.0)
    found = drive(
        solving.oracle(model),
        registry.get("saba"),
        None,
        SolveOptions(max_iter=10),
        callback=lambda state: state.iteration == 2,
    )
    assert found.status is Status.INTERRUPTED
    assert found.iterations == 2
    passes = found.history[2].counts["hvp"] - found.history[1].counts["hvp"]
    assert 4 <= passes <= 7  # four passes by batches, one product to check, rounding


def test_a_run_goes_on_from_a_good_point_instead_of_that_of_a_part_of_the_data() -> None:
    model, x = problem(2.0)
    oracle, backend = solving.oracle(model), registry.get("saba")
    half = drive(oracle, backend, None, SolveOptions(max_iter=3))
    first = drive(oracle, backend, None, SolveOptions(max_iter=0), start=(half.x, half.y))
    assert torch.equal(first.x, half.x)
    fresh = drive(oracle, backend, None, SolveOptions(max_iter=0))
    assert error(fresh, x) > 10.0 * error(half, x)
    ended = drive(oracle, backend, None, SolveOptions(max_iter=20), start=(half.x, half.y))
    assert ended.status is Status.CONVERGED
    assert error(ended, x) <= EXACT
