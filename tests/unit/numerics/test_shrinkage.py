"""Coordinates of penalties: what a fit keeps of its weights is linear in them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.numerics.scaled import ScaledOracle, Units
from bilevelpy.numerics.upper.newton import ReducedNewton
from bilevelpy.numerics.upper.shrinkage import Shrinkage
from tests.unit.lowering.programs import oracle as oracle_of

RIDGE = """
model ridge;
dim n, m, p;
param X[n, p], y[n], V[m, p], v[m];
upper {{ var lam[p] {box}; minimize mean((V @ w - v)^2); }}
lower fit {{ var w[p]; minimize mean((X @ w - y)^2) / 2 + {penalty}; }}
"""
WIDE = "in [-9, 9] start 0"


def data(p: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    X, V = draw.standard_normal((3 * p, p)), draw.standard_normal((2 * p, p))
    truth = draw.standard_normal(p) * (np.arange(p) % 2)
    y, v = (M @ truth + 0.7 * draw.standard_normal(len(M)) for M in (X, V))
    return {"X": X, "y": y, "V": V, "v": v}


def ridge(penalty: str = "sum(exp(lam) * w^2) / 2", box: str = WIDE, p: int = 5) -> bl.Model:
    return bl.parse(RIDGE.format(box=box, penalty=penalty), data=data(p))


@pytest.mark.parametrize("rate", [1.0, math.log(10.0), 0.0])
def test_coordinates_and_points_are_each_others_inverse(rate: float) -> None:
    at, p = np.array([0.3, 1.2, 2.0]), np.array([0.2, -0.1, 0.05])
    known = Shrinkage(at, np.array([0.1, 0.5, 0.9]) * (rate or 1.0), rate)
    assert known.coordinates(known.point(p)) == pytest.approx(p)
    step = 1e-6
    slopes = (known.point(p + step) - known.point(p - step)) / (2 * step)
    assert known.slope(p) == pytest.approx(slopes, rel=1e-7)
    zero = np.zeros(3)
    assert known.slope(zero) == pytest.approx(np.ones(3))
    bend = (known.slope(zero + step) - known.slope(zero - step)) / (2 * step)
    assert known.bend == pytest.approx(bend, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(("form", "rate"), [("exp", 1.0), ("10^", math.log(10.0)), ("", 0.0)])
def test_the_response_is_linear_in_the_coordinate_of_each_penalty(form: str, rate: float) -> None:
    """All other penalties held, by closed-form fits."""
    d, n = data(), 15
    s = {"exp": np.exp, "10^": lambda x: 10.0**x, "": lambda x: x}[form]
    H, c = d["X"].T @ d["X"] / n, d["X"].T @ d["y"] / n

    def fit(lam: np.ndarray) -> np.ndarray:
        return np.linalg.solve(H + np.diag(s(lam)), c)

    lam = np.linspace(0.2, 1.0, 5)
    w = fit(lam)
    mixed = np.diag(s(lam) * rate * w if rate else w)
    R = -np.linalg.solve(H + np.diag(s(lam)), mixed)
    box = np.array([[0.0] * 5, [9.0] * 5])
    known = Shrinkage.of(lam, w, mixed, R, rate)
    far = known.ends(lam, box)
    for i in range(5):
        p = np.zeros((2, 5))
        p[:, i] = 0.3 * far[:, i]
        ends = [fit(known.point(row)) for row in p]
        assert ends[0] - w == pytest.approx(p[0, i] * R[:, i], rel=1e-9, abs=1e-12)
        assert ends[1] - w == pytest.approx(p[1, i] * R[:, i], rel=1e-9, abs=1e-12)


def test_weights_of_zero_have_a_coordinate_of_their_own() -> None:
    mixed, R = np.diag([0.0, 1.0]), np.diag([0.0, -0.3])
    known = Shrinkage.of(np.zeros(2), np.array([0.0, 1.0]), mixed, R, 1.0)
    assert known.q == pytest.approx([0.5, 0.3])


@pytest.mark.parametrize("rate", [1.0, 0.0])
def test_steps_go_on_from_the_end_of_an_earlier_one(rate: float) -> None:
    """Between two second derivatives the coordinates stay those of the first point."""
    known = Shrinkage(np.array([1.0]), np.array([0.4]), rate)
    box, x = np.array([[0.0], [1e9]]), np.array([1.0])
    reached = []
    for _ in range(3):
        x = known.point(known.ends(x, box)[1])
        reached.append(x[0])
    if rate:
        assert reached == pytest.approx([5.0, 9.0, 13.0])
    else:  # strengths beside the curvature 1 / 0.4 - 1
        assert np.array(reached) + 1.5 == pytest.approx([25.0, 250.0, 2500.0])
    assert known.point(known.ends(np.array([1.0]), box)[0]) == pytest.approx([0.0], abs=1e-12)


@pytest.mark.parametrize(
    ("penalty", "rate"),
    [
        ("sum(exp(lam) * w^2) / 2", 1.0),
        ("sum(exp(2 * lam) * w^2)", 2.0),
        ("sum(10^lam * w^2)", math.log(10.0)),
        ("sum(lam * w^2) / 2 + sumsq(w)", 0.0),
        ("sum(exp(lam) * (w - 1)^2) / 2", None),  # not a form in y alone
        ("sum(softplus(lam) * w^2)", None),
        ("exp(sum(lam)) * sumsq(w)", None),  # each column reads all of x
        ("sum(exp(lam) * w^2) + sum(lam * w)", None),
    ],
)
def test_penalties_are_recognised_by_how_they_grow(penalty: str, rate: float | None) -> None:
    text = RIDGE.format(box=WIDE, penalty=penalty)
    oracle = oracle_of(text, **data())
    assert oracle.second_order.penalty_rate == (None if rate is None else pytest.approx(rate))


def test_units_of_the_upper_variables_change_the_rate() -> None:
    oracle = oracle_of(RIDGE.format(box=WIDE, penalty="sum(exp(lam) * w^2)"), **data())
    y, same = torch.ones(5).double(), torch.full((5,), 4.0).double()
    assert ScaledOracle(oracle, Units(same, y)).second_order.penalty_rate == pytest.approx(4.0)
    mixed = torch.tensor([1.0, 1.0, 2.0, 1.0, 1.0]).double()
    assert ScaledOracle(oracle, Units(mixed, y)).second_order.penalty_rate is None


@pytest.mark.parametrize("penalty", ["exp(lam)", "10^lam"])
def test_newton_in_them_ends_in_few_steps(penalty: str) -> None:
    """Steps in x have the length 1 along penalties that end at their bounds."""
    model = ridge(f"sum({penalty} * w^2) / 2", "in [-4, 2] start 0")
    result = bl.solve(model, progress=False)
    assert result.status == "converged"
    assert result.iterations <= 8
    other = bl.solve(model, backend="qnbo", progress=False)
    assert pytest.approx(other.F, rel=1e-6) == result.F


def test_one_penalty_of_one_weight_is_solved_in_one_step() -> None:
    """F is a quadratic in the coordinate."""
    result = bl.solve(ridge(p=1, box="in [-3, 3] start 0"), progress=False)
    d = {name: array.reshape(-1) for name, array in data(1).items()}
    h, c = float(d["X"] @ d["X"]) / 3, float(d["X"] @ d["y"]) / 3
    best = float(d["V"] @ d["v"]) / float(d["V"] @ d["V"])
    ends = sorted(c / (h + math.exp(x)) for x in (-3.0, 3.0))
    w = float(np.clip(best, *ends))
    assert result.lower["fit"]["w"][0] == pytest.approx(w, abs=1e-9)
    assert result.iterations <= 2


def test_penalties_without_ends_stay_in_their_own_coordinates() -> None:
    """Minima far out are those of another function there: the shrinkage has come to its end."""
    text = RIDGE.format(box="start 0", penalty="sum(exp(lam) * w^2)")
    oracle = oracle_of(text, **data())
    newton = ReducedNewton(oracle, lambda point, mixed: None, 1e-6, kept=True)
    assert newton._rate() is None
