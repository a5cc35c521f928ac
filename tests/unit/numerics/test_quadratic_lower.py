"""Quadratic lower levels: the exact response is that of Newton's method, with its face."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.backends.implicit.direct import Direct, DirectOptions
from bilevelpy.numerics.driver.loop import run
from bilevelpy.numerics.lower.block_curvature import curvature_of
from bilevelpy.numerics.lower.hypergradient import dense_adjoint
from bilevelpy.numerics.lower.newton import newton
from bilevelpy.options import SolveOptions
from tests.unit.lowering.programs import RIDGE, oracle, ridge_data
from tests.unit.numerics.test_carried import Seen, through_a_file

BOX = """
dim n; param A[n, n];
upper { var x[n] start 1; minimize sumsq(y) + sumsq(x); }
lower follow { var y[n] in [-0.3, 0.4]; minimize quad(y, A) / 2 - dot(x, y); }
"""
SHARES = BOX.replace("in [-0.3, 0.4]", "in simplex")
TOY = """
model toy;
dim n; param A[n, n];
upper { var x[n] start 2; minimize sum((x[i] - 1)^2 for i in n)/2 + quad(y, A)/2; }
lower follow { var y[n] start 2; minimize quad(y, A)/2 - dot(x, y); }
"""


def definite(n: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    root = draw.standard_normal((n, n))
    return root @ root.T / n + 0.1 * np.eye(n)


def made(text: str):
    return oracle(RIDGE, **ridge_data()) if text is RIDGE else oracle(text, A=definite(12))


@pytest.mark.parametrize("text", [RIDGE, BOX, SHARES])
def test_response_and_hypergradient_are_those_of_newton(text: str) -> None:
    o = made(text)
    response = Direct().response(o, DirectOptions())
    assert not response.correct  # the exact solver is at work
    draw = torch.Generator().manual_seed(0)
    for _ in range(5):
        x = o.x0 + 0.5 * torch.randn(o.n, generator=draw, dtype=torch.float64)
        point = response.differentiate(response.evaluate(x, None, o.y0), None)
        lower = newton(o, x, o.y0, curvature_of(o), tol=1e-13)
        torch.testing.assert_close(point.y, lower.y, rtol=1e-8, atol=1e-10)
        assert point.lower.f == pytest.approx(lower.f, rel=1e-10)
        face = o.domain_y.face(point.y, point.lower.gradient)
        assert point.lower.face.is_whole == face.is_whole
        if face.free is not None and point.lower.face.free is not None:
            assert torch.equal(point.lower.face.free, face.free)
        curvature = curvature_of(o)
        curvature.refresh(o, x, lower.y)
        adjoint = dense_adjoint(o, x, lower.y, lower.face, point.gF_y, curvature)
        torch.testing.assert_close(point.g, point.gF_x - adjoint.cross, rtol=1e-7, atol=1e-9)


def test_an_adjoint_of_a_point_nearby_is_no_answer() -> None:
    """One whose residual is below the tolerance already, by a factor that is no longer the one."""
    o = oracle(TOY, A=definite(20))
    curvature, y, whole = curvature_of(o), o.y0, o.domain_y.face(o.y0, o.y0)
    curvature.refresh(o, o.x0, y)
    curvature.H = curvature.H + torch.diag(torch.linspace(0.0, 0.1, 20, dtype=torch.float64))
    d = torch.linspace(1.0, 2.0, 20, dtype=torch.float64)
    exact, near = (
        torch.from_numpy(np.linalg.solve(definite(20), v.numpy())) for v in (d, 1.001 * d)
    )
    found = dense_adjoint(o, o.x0, y, whole, d, curvature, tol=1e-2, u0=near)
    H = torch.from_numpy(definite(20))
    assert (H @ (found.u - exact)).norm() <= 0.1 * (H @ (near - exact)).norm()


def test_quadratic_levels_take_one_step() -> None:
    """The toy of section 6.1: ``(I + A^-1) x = 1``."""
    A = definite(30, 1)
    result = bl.solve(bl.parse(TOY, data={"A": A}), progress=False)
    assert result.success
    assert result.iterations == 1
    expected = np.linalg.solve(np.eye(30) + np.linalg.inv(A), np.ones(30))
    np.testing.assert_allclose(result["x"], expected, rtol=1e-9)


def test_points_so_far_out_that_sizes_overflow_raise_no_warning() -> None:
    o = oracle(TOY, A=definite(3))
    response = Direct().response(o, DirectOptions())
    with np.errstate(all="raise"):
        response.evaluate(torch.full((3,), 1e200, dtype=torch.float64), None, o.y0)


def test_bounds_above_are_respected_by_the_step() -> None:
    A = definite(20, 2)
    text = TOY.replace("var x[n] start 2", "var x[n] in [0.45, 2] start 2")
    result = bl.solve(bl.parse(text, data={"A": A}), progress=False)
    assert result.success
    free = np.eye(20) + np.linalg.inv(A)
    x = result["x"]
    gradient = free @ x - 1
    assert x.min() >= 0.45
    assert np.abs(gradient[x > 0.45 + 1e-9]).max(initial=0.0) <= 1e-6
    assert gradient[x <= 0.45 + 1e-9].min(initial=0.0) >= -1e-9


def test_a_singular_lower_level_is_left_to_the_general_solver() -> None:
    A = np.ones((3, 3)) + np.diag([0.0, 0.0, 1e-30])
    o = oracle(BOX.replace("in [-0.3, 0.4]", ""), A=A)
    response = Direct().response(o, DirectOptions())
    point = response.evaluate(torch.full((3,), 1.0, dtype=torch.float64), None, o.y0)
    assert math.isfinite(point.lower.started)  # the general solver says where it began
    assert float(o.grad_f(point.x, point.y).abs().max()) <= 1e-8


def test_bounds_of_large_factors_cover_the_residuals() -> None:
    """From the third point on one solve each, whose residuals are below the bounds that are given
    in their place.
    """
    o = oracle(TOY.replace("model toy;", ""), A=definite(320, 3))
    response = Direct().response(o, DirectOptions())
    draw, bounds = torch.Generator().manual_seed(0), []
    for _ in range(4):
        x = o.x0 + torch.randn(o.n, generator=draw, dtype=torch.float64)
        point = response.differentiate(response.evaluate(x, None, o.y0), None)
        true = float(o.grad_f(x, point.y).norm())
        assert true <= max(point.lower.residual, 1e-11)
        assert point.lower.residual <= 1e-9 * float(x.norm())
        assert point.lower.f == pytest.approx(o.f(x, point.y), rel=1e-10)
        assert point.adjoint is not None
        wrong = o.hvp(x, point.y)(point.adjoint.u) - point.gF_y
        assert float(wrong.norm()) <= max(point.adjoint.residual, 1e-11) * float(point.gF_y.norm())
        bounds.append(point.lower.residual)
    assert min(bounds[2:]) > 100 * bounds[0]  # bounds, not residuals


def test_an_ill_conditioned_factor_is_not_believed() -> None:
    """Where the bound is wide, the residual is computed."""
    root = np.random.default_rng(1).standard_normal((320, 320))
    Q, _ = np.linalg.qr(root)
    A = (Q * np.geomspace(1.0, 1e7, 320)) @ Q.T
    o = oracle(TOY.replace("model toy;", ""), A=(A + A.T) / 2)
    response = Direct().response(o, DirectOptions())
    costs = []
    for k in range(4):
        before = o.counts.grad_f
        response.differentiate(response.evaluate(o.x0 + k, None, o.y0), None)
        costs.append(o.counts.grad_f - before)
    assert len(set(costs)) == 1


def test_large_quadratic_runs_go_on_as_they_would_have() -> None:
    def course(most: int, start: Seen | None = None) -> list[Seen]:
        seen: list[Seen] = []

        def keep(record: Any, m: Any, capture: Any) -> None:
            seen.append(Seen(m.x.clone(), m.y.clone(), m.F, through_a_file(capture())))

        o = oracle(TOY.replace("model toy;", ""), A=definite(620, 4))
        at = None if start is None else (start.x, start.y)
        run(
            o, Direct(), None, SolveOptions("direct", tol=1e-10, max_iter=most), start=at,
            keep=keep, carried=None if start is None else start.carried,
        )  # fmt: skip
        return seen

    whole = course(8)
    assert len(whole) > 5
    for at in (1, 3, 5):
        for a, b in zip(course(8 - at, whole[at]), whole[at:], strict=True):
            assert torch.equal(a.x, b.x)
            assert torch.equal(a.y, b.y)
            assert a.F == b.F


def test_an_adjoint_that_the_factor_does_not_solve() -> None:
    """Condition 1e9: the general adjoint takes over, with a matrix of its own."""
    Q, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((60, 60)))
    A = (Q * np.geomspace(1.0, 1e9, 60)) @ Q.T
    result = bl.solve(bl.parse(TOY, data={"A": (A + A.T) / 2}), backend="direct", progress=False)
    expected = np.linalg.solve(np.eye(60) + np.linalg.inv(A), np.ones(60))
    assert result.success
    np.testing.assert_allclose(result["x"], expected, atol=1e-7)
