"""Shares that penalties leave of weights, and quasi-Newton steps in them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.numerics.scaled import ScaledOracle, Units
from bilevelpy.numerics.upper.shares import Shares, share_pairs
from tests.unit.lowering.programs import oracle as oracle_of
from tests.unit.numerics.test_shrinkage import RIDGE, data, ridge

BOX = "in [0.1, 4] start 1"


@pytest.mark.parametrize("rate", [1.0, math.log(10.0), 0.0, -1.0])
def test_shares_and_points_are_each_others_inverse(rate: float) -> None:
    known = Shares(np.full(3, rate), np.array([0.5, 1.0, 2.0]), np.array([1.0, 2.0, 0.5]))
    x, step = np.array([0.2, 1.5, 3.0]), 1e-6
    z = known.of(x)
    assert known.point(z) == pytest.approx(x)
    slopes = (known.point(z + step) - known.point(z - step)) / (2 * step)
    assert known.slope(x) == pytest.approx(slopes, rel=1e-7)


@pytest.mark.parametrize(
    ("penalty", "curvature"),
    [
        ("sum(exp(lam) * w^2) / 2", np.exp),
        ("sum(10^lam * w^2) / 2", lambda x: 10.0**x),
        ("sum(exp(-lam) * w^2) / 2", lambda x: np.exp(-x)),
        ("sum(lam * w^2) / 2", lambda x: x),
    ],
)
def test_shares_are_those_of_each_weight_alone(penalty: str, curvature: object) -> None:
    d, x = data(), np.linspace(0.3, 1.4, 5)
    own = oracle_of(RIDGE.format(box=BOX, penalty=penalty), **d)
    h, y = (d["X"] ** 2).mean(0), torch.linspace(-1.0, 2.0, 5, dtype=torch.float64)
    s = np.asarray(curvature(x))  # type: ignore[operator]
    w = y.numpy() * (h + s) / h
    units = Units(*(torch.tensor([u] * 5, dtype=torch.float64) for u in (0.5, 4.0)))
    for oracle, ux, uy in ((own, 1.0, 1.0), (ScaledOracle(own, units), 0.5, 4.0)):
        pairs = share_pairs(oracle)
        assert pairs is not None
        shares = Shares.at(pairs.penalties, torch.from_numpy(x / ux), y / uy)
        assert shares is not None
        assert shares.of(x / ux) / shares.unit == pytest.approx(h / (h + s))
        squares = h * w * w
        assert shares.unit**2 - 0.1 == pytest.approx(squares / squares.mean())


def test_weights_of_a_group_share_their_penalty() -> None:
    penalty = "sum(exp(lam[j]) * (w[j]^2 + z[j]^2) for j in p) / 2"
    text = RIDGE.format(box=BOX, penalty=penalty)
    text = text.replace("var w[p];", "var w[p], z[p];").replace("(X @ w - y)", "(X @ (w + z) - y)")
    pairs = share_pairs(oracle_of(text, **data()))
    assert pairs is not None
    one = torch.ones(5, dtype=torch.float64)
    centre, _ = pairs.penalties.beside(one, torch.cat([one, 2.0 * one]))
    assert centre == pytest.approx(np.log((data()["X"] ** 2).mean(0)))


@pytest.mark.parametrize(
    ("penalty", "box"),
    [
        ("sum(exp(lam) * w^2) / 2", "start 0"),
        ("sum(lam * w^2) / 2", "in [-0.01, 4] start 1"),
        ("sum(exp(lam) * (w - 1)^2) / 2", BOX),
        ("sum(exp(lam[j] + lam[1]) * w[j]^2 for j in p) / 2", BOX),
    ],
)
def test_what_has_no_share_has_no_pairs(penalty: str, box: str) -> None:
    assert share_pairs(oracle_of(RIDGE.format(box=box, penalty=penalty), **data())) is None


@pytest.mark.parametrize(
    ("penalty", "box", "F"),
    [
        ("lam * w^2", "in [0, 4] start 1", 0.391208),
        ("10^lam * w^2", "in [-4, 1] start -1", 0.379051),
    ],
)
def test_steps_in_shares_end_soon(penalty: str, box: str, F: float) -> None:
    """Where steps in x end, which take 186 and 138: the best strengths of many are at bounds."""
    model = ridge(f"sum({penalty}) / 2", box, p=40)
    found = bl.solve(model, progress=False, backend="aid")
    assert found.status == "converged"
    assert found.certificate.kind == "local"
    assert found.iterations <= 80
    assert pytest.approx(F, rel=1e-4) == found.F


def test_a_run_that_is_carried_on_makes_the_same_steps() -> None:
    oracle = oracle_of(RIDGE.format(box=BOX, penalty="sum(lam * w^2) / 2"), **data())
    first, second = share_pairs(oracle), share_pairs(oracle)
    assert first is not None
    assert second is not None
    y = torch.ones(5, dtype=torch.float64)
    draw = np.random.default_rng(0)

    class At:
        def __init__(self, x: np.ndarray) -> None:
            self.x, self.y = torch.from_numpy(x), y
            self.g = self.x - 1.5

    points = [At(1.0 + draw.random(5)) for _ in range(4)]
    for p in points[:-1]:
        first.step(p, p.g.numpy(), None)  # type: ignore[arg-type]
    second.restore(first.carried(), oracle)
    p = points[-1]
    steps = [known.step(p, p.g.numpy(), None) for known in (first, second)]  # type: ignore[arg-type]
    assert steps[0] is not None
    assert np.array_equal(steps[0], steps[1])
    with pytest.raises(ValueError, match="another size"):
        second.restore({**first.carried(), "shares": (np.ones(3), np.ones(3))}, oracle)
