"""Curvature on faces of simplices, dense, in blocks and in bands, against the bordered system."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.lowering.hessians import known
from bilevelpy.numerics.lower.block_curvature import BlockCurvature, comes_in_parts, curvature_of
from bilevelpy.numerics.lower.dense_curvature import DenseCurvature
from bilevelpy.numerics.lower.newton import newton
from bilevelpy.numerics.lower.on_sums import OnSums
from tests.unit.lowering.programs import oracle

# Routes of each group share its demand, and meet in a quartic term: blocks of a group.
GROUPS = """
dim k, n;
param t[k, n];
upper { var x[n] start 0; minimize sum((y - t)^2)/2 + 0.05*sumsq(x); }
lower L {
  var y[k, n] in simplex;
  minimize sum((y[i, j] - x[j])^2 for i in k, j in n)
    + sum(sum(y[i, j] for j in n where j > 1)^4 for i in k);
}
"""
# One simplex over all, and a chain beside it that is no part of the simplex.
CHAIN = """
dim n;
param t[n];
upper { var x[n] start 0; minimize sum((y - t)^2)/2 + 0.05*sumsq(x); }
lower L {
  var y[n] in simplex, z[n] in [0, 1];
  minimize sumsq(y - x) + 0.3*sum((y - z)^2) + sumsq(z - 0.5*x)
    + sum((z[j+1] - z[j])^2 for j in n where j < n);
}
"""


def bordered(H: np.ndarray, face, v: np.ndarray) -> np.ndarray:
    """The same step from the whole system of optimality, entries that are held left out."""
    free = np.ones(len(v), bool) if face.free is None else face.free.numpy()
    owners = face.owners().numpy()
    rows = [(owners == k)[free] for k in range(owners.max() + 1)]
    E = np.array(rows, float).reshape(len(rows), free.sum())
    K = np.block([[H[np.ix_(free, free)], E.T], [E, np.zeros((len(E), len(E)))]])
    out = np.zeros_like(v)
    out[free] = np.linalg.solve(K, np.concatenate([v[free], np.zeros(len(E))]))[: free.sum()]
    return out


@pytest.mark.parametrize(
    ("text", "shape", "kind"),
    [(GROUPS, (7, 4), BlockCurvature), (CHAIN, (9,), OnSums)],
)
def test_steps_solve_the_bordered_system(text, shape, kind, monkeypatch):
    monkeypatch.setattr(known, "MANY", 5)
    monkeypatch.setattr(known, "BANDED", 5)
    draw = np.random.default_rng(3)
    o = oracle(text, t=draw.random(shape))
    assert comes_in_parts(o)
    parts, dense = curvature_of(o), DenseCurvature()
    assert type(parts) is kind
    x = torch.from_numpy(draw.standard_normal(o.n))
    y = newton(o, x, o.domain_y.project(o.y0), DenseCurvature()).y
    face = o.domain_y.face(y, o.grad_f(x, y))
    assert face.free is not None, "some entries are 0 here"
    v = torch.from_numpy(draw.standard_normal(o.m))
    expected = bordered(o.hessian(x, y).numpy(), face, v.numpy())
    for curvature in (parts, dense):
        curvature.refresh(o, x, y)
        assert curvature.settle(face)
        assert not curvature.negative
        np.testing.assert_allclose(curvature.solve(v).numpy(), expected, atol=1e-10)


def test_a_large_simplex_is_not_a_dense_matrix():
    t = np.linspace(1.5, 0.5, 3000)
    model = bl.parse(
        """
        model wide;
        dim n;
        param t[n];
        upper { var x[n] start 0; minimize sumsq(y - t)/2 + 0.05 * sumsq(x); }
        lower L { var y[n] in simplex; minimize sumsq(y)/2 - dot(x, y); }
        """,
        data={"t": t / t.sum()},
    )
    result = bl.solve(model)
    assert result.backend == "direct"
    assert result.success
    # All entries stay positive: y - 1/n is x without its mean, and the leader halves the way.
    middle = t / t.sum() - 1 / len(t)
    found, known = result.F, 0.5 * np.sum(middle**2) * 0.1 / 1.1
    assert found == pytest.approx(known, rel=1e-6)


def test_prices_do_not_hide_the_last_digits():
    """Gradients that are large along the normals of simplices cancel in slopes."""
    draw = np.random.default_rng(9)
    text = """
        dim k, n;
        param t[k, n];
        upper { var x[n]; minimize sum((y - t)^2)/2; }
        lower L {
          var y[k, n] in simplex;
          minimize 0.5*sum((y[i, j] - x[j])^2 for i in k, j in n)
            + sum(sum(t[i, j]*y[i, j] for j in n)^4 for i in k);
        }
    """
    o = oracle(text, t=draw.normal(size=(4, 5)))
    for _ in range(5):
        x = torch.from_numpy(draw.normal(size=5))
        curvature = DenseCurvature()
        for move in (0.0, 1e-5, -1e-5):
            found = newton(o, x + move, o.domain_y.project(o.y0), curvature, tol=1e-11)
            assert found.ended == "reached"
            assert found.residual < 1e-9
