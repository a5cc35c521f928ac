"""Zeroth order: differences against derivatives, smooth and kinked black boxes."""

from __future__ import annotations

import pytest
import torch

import bilevelpy as bl
from bilevelpy import analyze
from bilevelpy import parse as parse_model
from bilevelpy.backends.zeroth_order.zo import ZO
from bilevelpy.errors import UsageError
from bilevelpy.numerics.driver.loop import run
from bilevelpy.numerics.smoothing import GaussianOracle, ValueOracle, has_kink
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status
from tests.oracles import AutoOracle, box, box_kink, free, ridge, toy, vec
from tests.unit.backends.helpers import relative_error, solve


def derivatives(o) -> int:
    return sum(o.counts.as_dict()[k] for k in ("grad_F", "grad_f", "hvp", "jvp"))


def test_differences_of_values_are_the_derivatives() -> None:
    o = ridge(20, 4)
    x, y = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v = torch.arange(1.0, 5.0, dtype=torch.float64)
    d = ValueOracle(o)
    assert torch.allclose(d.grad_f(x, y), o.grad_f(x, y), rtol=1e-6, atol=1e-6)
    assert torch.allclose(d.grad_F(x, y)[1], o.grad_F(x, y)[1], rtol=1e-6, atol=1e-6)
    (H, J), (h, j) = d.pullback(x, y)(v), o.pullback(x, y)(v)
    assert torch.allclose(H, h, rtol=1e-5, atol=1e-5)
    assert torch.allclose(J, j, rtol=1e-5, atol=1e-5)


def test_gaussian_estimates_have_the_derivatives_as_means() -> None:
    o = toy(4, n=2)
    x, y, u = vec(0.3, -0.2), vec(0.5, 1.0), vec(1.0, -2.0)
    g = GaussianOracle(o, 6000, 1e-2, torch.Generator().manual_seed(0))
    assert torch.allclose(g.grad_f(x, y), o.grad_f(x, y), atol=0.3)
    H, J = g.pullback(x, y)(u)
    assert torch.allclose(H, o.A @ u, atol=1.0)
    assert torch.allclose(J, o.C @ u, atol=1.0)


def test_kinks_are_seen_in_second_differences() -> None:
    assert has_kink(lambda z: float(z.abs().sum()), vec(0.0, 1.0), free(2))
    assert not has_kink(lambda z: float((z**4).sum() + z.sum()), vec(0.3, -1.0), free(2))


@pytest.mark.parametrize("kappa", [1, 10])
def test_values_alone_solve_the_toy(kappa: float) -> None:
    o = toy(kappa, n=5)
    before = derivatives(o)
    found = run(o, ZO(), None, SolveOptions())
    assert derivatives(o) == before
    assert found.status is Status.CONVERGED
    assert relative_error(found.x, o.solution()[0]) < 1e-5


def test_a_kinked_response_and_a_kinked_follower() -> None:
    assert pytest.approx(0.55, abs=1e-6) == solve(ZO(), box_kink()).F
    lasso = AutoOracle(  # y = max(1.5 - x, 0): x = 1, F = 0
        lambda x, y: (0.5 * (y - 0.5) ** 2).sum(),
        lambda x, y: (0.5 * (y - 1.5) ** 2 + x * y.abs()).sum(),
        vec(0.1),
        vec(0.3),
        box(1, 0.0, 5.0),
    )
    found = run(lasso, ZO(), None, SolveOptions(backend_options={"loop": "nested"}))
    assert float(found.x[0]) == pytest.approx(1.0, abs=1e-3)
    assert any("kinks" in w for w in found.warnings)


def test_the_smoothing_loop_comes_near_and_says_that_it_is_noisy() -> None:
    o = toy(2, n=3)
    options = {"loop": "smoothing", "count": 10, "stride": 200}
    found = run(o, ZO(), None, SolveOptions(max_iter=5, backend_options=options))
    assert relative_error(found.x, o.solution()[0]) < 0.15
    assert any("random directions" in w for w in found.warnings)


def test_many_variables_are_refused() -> None:
    text = "model m; upper { var x; minimize x^2; } lower f { var y[20]; minimize sum((y - x)^2); }"
    verdict = ZO().accepts(analyze(parse_model(text)))
    assert not verdict
    assert "at most 20" in verdict.reason


def test_nonsmooth_functions_are_taken() -> None:
    text = "model m; upper { var x; minimize abs(y - 1) + x^2; } " + (
        "lower f { var y; minimize abs(y - x) + y^2; }"
    )
    assert ZO().accepts(analyze(parse_model(text)))


@pytest.mark.parametrize("bad", [{"loop": "pattern"}, {"radius": 0.0}, {"count": 0}])
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="zo"):
        ZO().options.from_mapping(bad, "zo")


HINGES = """
model hinges;
dim n = 6, p = 2;
param X[n, p] = [[2, 1], [1, 2], [-0.2, 0.4], [-2, -1], [-1, -2], [0.5, 0.6]];
param y[n] = [1, 1, 1, -1, -1, -1];
upper { var c in [0.01, 10] start 1; minimize mean(relu(1 - y * (X @ w + b))); }
lower fit {
  var w[p], b;
  minimize sumsq(w) / 2 + 1e-4 * b^2 + c * sum(relu(1 - y * (X @ w + b)));
}
"""


def test_kinks_that_are_not_at_the_start_are_read_from_the_text() -> None:
    found = bl.solve(bl.parse(HINGES), backend="zo", max_iter=5)
    assert found.certificate is not None
    assert found.certificate.lower_gap < 1e-6
