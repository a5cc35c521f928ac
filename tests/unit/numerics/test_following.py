"""Matrices that follow x in the terms that cost no pass over data."""

import numpy as np
import pytest
import torch

from bilevelpy.numerics.driver.carried import Reader, taken
from bilevelpy.numerics.lower.dense_curvature import DenseCurvature
from bilevelpy.numerics.lower.newton import newton
from tests.unit.lowering.programs import oracle

TALL = """
model tall;
dim n, p;
param X[n, p], s[n];
upper { var lam[p] in [-8, 2] start -2; minimize sumsq(w); }
lower fit { var w[p]; minimize mean(softplus(-s * (X @ w))) + sum(exp(lam) * w^2) / 2; }
"""
"""Many rows of few features: a gradient is dearer than a factor."""


@pytest.fixture
def tall():
    draw = np.random.default_rng(0)
    X = draw.standard_normal((20_000, 20))
    s = np.sign(X @ draw.standard_normal(20) + draw.standard_normal(20_000))
    return oracle(TALL, X=X, s=s)


def moved(o, size):
    """Another x with the response of the first one."""
    y = newton(o, o.x0, o.y0, DenseCurvature()).y
    return y, o.x0 + size * torch.linspace(-1, 1, o.n, dtype=torch.float64)


def test_only_the_penalties_move(tall):
    o = tall
    y, x = moved(o, 0.7)
    base = o.hessian(o.x0, y)
    kept = base.clone()
    found = o.moved_hessian(base, (o.x0, y), (x, y))
    torch.testing.assert_close(found, o.hessian(x, y))
    assert torch.equal(base, kept)
    elsewhere = o.moved_hessian(base, (o.x0, y), (x, y + 1.0))
    torch.testing.assert_close(elsewhere, found, msg="the losses stay where they were")


def test_a_factor_that_follows_saves_evaluations(tall, monkeypatch):
    o = tall
    y, x = moved(o, 1.5)

    def solves():
        curvature = DenseCurvature()
        curvature.refresh(o, o.x0, y)
        before = o.counts.grad_f
        found = newton(o, x, y, curvature, tol=1e-6)
        return found.y, o.counts.grad_f - before

    following, few = solves()
    monkeypatch.setattr(type(o), "moved_hessian", lambda *_: None)
    plain, many = solves()
    torch.testing.assert_close(following, plain, rtol=1e-5, atol=1e-6)
    assert few < many


def test_it_is_carried(tall):
    o = tall
    y, x = moved(o, 0.5)
    curvature = DenseCurvature()
    curvature.refresh(o, o.x0, y)
    curvature.follow(o, x, y)
    curvature.settle(o.domain_y.face(y, y))
    known = taken({"it": curvature})
    assert known is not None
    found = Reader(known).read("it", DenseCurvature(), o)
    assert torch.equal(found.solve(y), curvature.solve(y))


def test_small_data_are_evaluated_instead():
    draw = np.random.default_rng(0)
    o = oracle(TALL, X=draw.standard_normal((50, 20)), s=np.ones(50))
    assert o.moved_hessian(o.hessian(o.x0, o.y0), (o.x0, o.y0), (o.x0 + 1, o.y0)) is None
