"""Quadratics with weighted absolute values by a path: the conditions of the minimum, which are
sufficient, are checked themselves.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy import solving
from bilevelpy.numerics.certificate.resolve import Resolver
from bilevelpy.numerics.lower.absolute_path import follow
from bilevelpy.numerics.lower.group_newton import minimise
from bilevelpy.numerics.lower.grouped import SupportCurvature, grouped_oracle
from bilevelpy.numerics.units import find_units
from tests.oracles import vec

NET = """
model net;
dim n, m, p;
param A[n, p], b[n], V[m, p], v[m];
upper { var t in [-12, 3] start -1; var s in [-12, 3] start -3; minimize mean((V @ w - v)^2); }
lower fit {
  var w[p];
  minimize sumsq(A @ w - b) / (2 * n) + exp(t) * norm1(w) + exp(s) / 2 * sumsq(w);
}
"""


def wide(n: int = 20, p: int = 200, seed: int = 0) -> dict[str, np.ndarray]:
    """Ten times as many columns as rows, five of which matter."""
    r = np.random.default_rng(seed)
    A, V, w = r.normal(size=(n, p)), r.normal(size=(n, p)), np.zeros(p)
    w[:5] = 2.0, -3.0, 1.5, 2.5, -1.0
    noise = r.normal(size=(2, n))
    return {"A": A, "V": V, "b": A @ w + 0.5 * noise[0], "v": V @ w + 0.5 * noise[1]}


def descended(A: np.ndarray, b: np.ndarray, t: float, s: float) -> np.ndarray:
    """The elastic net by coordinate descent."""
    n, p = A.shape
    w, rest, tops = np.zeros(p), b.copy(), np.sum(A * A, 0) / n
    for _ in range(100_000):
        most = 0.0
        for j in range(p):
            at = w[j] * tops[j] + A[:, j] @ rest / n
            new = np.sign(at) * max(abs(at) - np.exp(t), 0.0) / (tops[j] + np.exp(s))
            if new != w[j]:
                rest -= A[:, j] * (new - w[j])
                most, w[j] = max(most, abs(new - w[j])), new
        if most < 1e-13:
            return w
    raise AssertionError("coordinate descent has not ended")


@pytest.mark.parametrize("ridge", [0.0, 1e-4, 1.0])
@pytest.mark.parametrize("warm", [False, True])
def test_slopes_at_the_end_of_the_path(ridge: float, warm: bool) -> None:
    """``b + Hz = -l sign(z)`` on the support and ``|b + Hz| <= l`` elsewhere, also where H is
    singular, columns are equal, and some entries have no weight.
    """
    for seed in range(20):
        r = np.random.default_rng(seed)
        n, k = int(r.integers(3, 12)), int(r.integers(4, 30))
        A = r.normal(size=(n, k))
        A[:, 1] = A[:, 0]
        H, b = A.T @ A / n + ridge * np.eye(k), -A.T @ r.normal(size=n)
        weights = 10.0 ** r.uniform(-5, -1, size=k)
        weights[2] = 0.0
        start = np.where(r.random(k) < 0.2, r.normal(size=k), 0.0) if warm else np.zeros(k)
        z = follow(H, b, weights, start)
        assert z is not None
        slope = b + H @ z
        on = z != 0.0
        assert np.allclose(slope[on], -(weights * np.sign(z))[on], rtol=0.0, atol=1e-9)
        assert (np.abs(slope) <= weights + 1e-9).all()


def test_no_minimum_no_path() -> None:
    """Two equal columns without weights have no unique answer."""
    assert follow(np.ones((2, 2)), np.array([1.0, 1.0]), np.zeros(2), np.zeros(2)) is None


@pytest.mark.parametrize(("t", "s"), [(-1.0, -3.0), (-3.0, -3.0), (-6.0, -3.0)])
def test_an_elastic_net_with_many_columns(t: float, s: float) -> None:
    """The response is that of coordinate descent, the hypergradient that of differences."""
    data = wide()
    o = grouped_oracle(solving.oracle(bl.parse(NET, data=data)))
    assert o is not None
    x = vec(t, s)
    found = minimise(o, x, o.y0, SupportCurvature(), tol=1e-11)
    assert found.ended == "reached"
    assert np.allclose(found.y.numpy(), descended(data["A"], data["b"], t, s), atol=1e-7)
    solver = Resolver(o, x, found.y, torch.Generator().manual_seed(0))
    base = solver.answer(x, found.y)
    assert base is not None
    for k in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[k] = 1e-6
        up, down = solver.answer(x + step, found.y), solver.answer(x - step, found.y)
        assert up is not None
        assert down is not None
        slope = (up.F - down.F) / 2e-6
        assert slope == pytest.approx(float(base.gradient[k]), rel=1e-4)


def test_small_weights_end_after_few_steps() -> None:
    """Coordinate steps alone were not done after 200 models."""
    o = grouped_oracle(solving.oracle(bl.parse(NET, data=wide(30, 600))))
    assert o is not None
    found = minimise(o, vec(-11.0, -11.0), o.y0, SupportCurvature(), tol=1e-10)
    assert found.ended == "reached"
    assert found.iterations < 60


def test_units_are_looked_for_on_the_support() -> None:
    """Descent across the kinks took thousands of gradients."""
    o = solving.oracle(bl.parse(NET, data=wide(30, 600)))
    find_units(o, [(0, 1), (1, 2)], [(0, 600)], torch.Generator().manual_seed(0))
    assert o.counts.grad_f < 200


def test_behind_a_kink_only_what_is_weakly_held_is_released() -> None:
    """``w = soft(b, t)`` with ``b = (3, 1, 0.2)`` at ``t = 1``: the second entry is about to join
    with the sign of b, the third one is not.
    """
    model = bl.parse(
        "model threshold; dim p; param b[p];\n"
        "upper { var t in [0, 10]; minimize sumsq(w); }\n"
        "lower fit { var w[p]; minimize sumsq(w - b) / 2 + t * norm1(w); }",
        data={"b": [3.0, 1.0, 0.2]},
    )
    o = grouped_oracle(solving.oracle(model))
    assert o is not None
    z, face = o.released(vec(1.0), vec(2.0, 0.0, 0.0), 1e-6)
    assert face.free is not None
    assert face.free.tolist() == [True, True, False]
    assert float(z[1]) > 0.0
