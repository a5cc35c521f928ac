"""The ends of a piece of the response where they are no planes: their second derivatives, and where
they are beyond them.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.numerics.rows.piece import Piece
from bilevelpy.numerics.rows.piece_sample import Pieces
from bilevelpy.numerics.rows.response import constrained_lower
from bilevelpy.numerics.rows.sample import RowsSampler
from tests.unit.lowering.programs import oracle

CURVED = """
dim m, n; param A[m, n], B[m, n], D[m, m];
upper { var x[n] in [-4, 4]; minimize sum(huber(y - 1, 0.5)) + sum(exp(x)) / 50; }
lower f {
  var y[m] in [0, 1];
  minimize sum(exp(A @ x + D @ y)) + sum(exp(B @ x) * y^2) / 2 - 2 * sum(y);
  subject to
    r: sum(y) <= 2 + x[1] / 3;
    q: y[1] + 0.5 * y[2] >= 0.1 * x[2];
}
"""
# Central differences of slopes; a sample finds its response to 1e-12.
STEP, CLOSE = 1e-5, 1e-6


def pieces(seed: int) -> tuple[Pieces, Piece, RowsSampler]:
    draw = np.random.default_rng(seed)
    A, B = draw.standard_normal((2, 8, 3))
    o = oracle(CURVED, A=A, B=B, D=0.3 * draw.standard_normal((8, 8)))
    sampler = RowsSampler(constrained_lower(o, 1e-12))
    here = sampler(o, torch.from_numpy(draw.uniform(0.3, 1.0, 3)), o.y0)
    assert here is not None
    found = Pieces.at(sampler.solver, here)
    assert found is not None
    on = found.on()
    assert on is not None
    return found, on[1], sampler


def moved(at: Pieces, sampler: RowsSampler, d: np.ndarray) -> Pieces:
    here = sampler(sampler.solver.oracle, at.here.x + torch.from_numpy(d), at.here.y)
    assert here is not None
    found = Pieces.at(sampler.solver, here)
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(4))
def test_pushes_bring_in_the_second_derivatives_of_ends(seed: int) -> None:
    """Differences of the slopes of ``F - p'e`` on the same piece, for pushes at a third of all
    ends: of rows, prices, bounds and what pushes at them.
    """
    at, piece, sampler = pieces(seed)
    draw = np.random.default_rng(seed)
    p = draw.uniform(size=len(piece.member)) * (draw.uniform(size=len(piece.member)) < 0.3)

    def slope(d: np.ndarray) -> np.ndarray:
        on = moved(at, sampler, d).on(piece.sides)
        assert on is not None
        return np.asarray(on[0].slope.numpy() - p @ on[1].within.slopes)

    eye = STEP * np.eye(3)
    seen = np.stack([(slope(e) - slope(-e)) / (2.0 * STEP) for e in eye])
    found = at.second(piece, np.zeros(0), p)
    assert found is not None
    np.testing.assert_allclose(found, seen, atol=CLOSE * np.abs(seen).max())


@pytest.mark.parametrize("seed", range(4))
def test_ends_elsewhere_are_those_of_the_response_that_goes_on_by_itself(seed: int) -> None:
    at, piece, sampler = pieces(seed)
    d = 1e-3 * np.random.default_rng(seed).standard_normal(3)
    there = moved(at, sampler, d)
    on = there.on(piece.sides)
    assert on is not None
    found = at.ahead(piece, there.here.x)
    assert found is not None
    np.testing.assert_allclose(found, on[1].within.ahead, atol=1e-9)


MACHINE = """
dim N, m; param X[N, m], z[N], Xv[N, m], zv[N];
upper { var lam[m] in [-8, 4] start -2; minimize mean(logistic(-zv * (Xv @ w))); }
lower fit { var w[m]; minimize mean(relu(1 - z * (X @ w))) + sum(exp(lam) * w^2) / 2; }
"""


def test_kinks_that_bend_are_followed_to_a_stationary_end() -> None:
    """A machine with a penalty of every feature: 40 pieces meet in surfaces that are no planes, and
    steps to their tangents come to no end in hundreds of iterations.
    """
    draw = np.random.default_rng(500)
    w = draw.standard_normal(12) * (draw.uniform(size=12) < 0.5)
    X, Xv = draw.standard_normal((2, 40, 12))
    z, zv = (np.sign(A @ w + 0.5 * draw.standard_normal(40)) for A in (X, Xv))
    found = bl.solve(bl.parse(MACHINE, X=X, z=z, Xv=Xv, zv=zv), backend="kkt")
    assert found.success
    assert found.iterations < 200
