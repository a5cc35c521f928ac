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


def around(at: np.ndarray, part: float, rate: float) -> Shrinkage:
    """Penalties that take a part of their weights, by the response of one weight for each."""
    s = rate or part
    mixed, R = np.diag(np.full(len(at), s)), np.diag(np.full(len(at), -s * part))
    return Shrinkage.of(at, np.ones(len(at)), mixed, R, np.full(len(at), rate), at - 1.0)


@pytest.mark.parametrize("rate", [1.0, math.log(10.0), 0.0, -1.0, math.nan])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_coordinates_and_points_are_each_others_inverse(rate: float, part: float) -> None:
    at, p = np.array([0.3, 1.2, 2.0]), np.array([0.2, -0.1, 0.05])
    known = around(at, part, rate)
    assert known.coordinates(known.point(p)) == pytest.approx(p)
    step = 1e-6
    slopes = (known.point(p + step) - known.point(p - step)) / (2 * step)
    assert known.slope(known.point(p)) == pytest.approx(slopes, rel=1e-7)
    zero = np.zeros(3)
    assert known.slope(at) == pytest.approx(np.ones(3))
    bend = (known.slope(known.point(zero + step)) - known.slope(known.point(zero - step))) / (
        2 * step
    )
    assert known.bend == pytest.approx(bend, rel=1e-6, abs=1e-8)
    if math.isnan(rate):
        assert known.point(p) == pytest.approx(at + p)


@pytest.mark.parametrize(
    ("form", "rate"), [("exp", 1.0), ("10^", math.log(10.0)), ("", 0.0), ("-exp", -1.0)]
)
def test_the_response_is_linear_in_the_coordinate_of_each_penalty(form: str, rate: float) -> None:
    """All other penalties held, by closed-form fits."""
    d, n = data(), 15
    s = {"exp": np.exp, "10^": lambda x: 10.0**x, "": lambda x: x}.get(form, lambda x: np.exp(-x))
    H, c = d["X"].T @ d["X"] / n, d["X"].T @ d["y"] / n

    def fit(lam: np.ndarray) -> np.ndarray:
        return np.linalg.solve(H + np.diag(s(lam)), c)

    lam = np.linspace(0.2, 1.0, 5)
    w = fit(lam)
    mixed = np.diag(s(lam) * rate * w if rate else w)
    R = -np.linalg.solve(H + np.diag(s(lam)), mixed)
    box = np.array([[0.0] * 5, [9.0] * 5])
    known = Shrinkage.of(lam, w, mixed, R, np.full(5, rate), np.zeros(5))
    far = np.stack(known.ends(np.zeros(5), box))
    for i in range(5):
        p = np.zeros((2, 5))
        p[:, i] = 0.3 * far[:, i]
        ends = [fit(known.point(row)) for row in p]
        assert ends[0] - w == pytest.approx(p[0, i] * R[:, i], rel=1e-9, abs=1e-12)
        assert ends[1] - w == pytest.approx(p[1, i] * R[:, i], rel=1e-9, abs=1e-12)


def test_weights_of_zero_have_a_coordinate_of_their_own() -> None:
    mixed, R = np.diag([0.0, 1.0]), np.diag([0.0, -0.3])
    known = Shrinkage.of(np.zeros(2), np.array([0.0, 1.0]), mixed, R, np.ones(2), np.full(2, -9.0))
    assert known.q == pytest.approx([0.5, 0.3])


def test_what_x_weighs_with_both_signs_is_no_penalty() -> None:
    """``x y1 y2``, whose part would be far above 1: the box kept neither of its ends."""
    y, low = np.array([1.0, 0.01]), np.array([-0.5])
    mixed = y[::-1, None].copy()  # f_yy is the unit matrix at x = 0
    known = Shrinkage.of(np.zeros(1), y, mixed, -mixed, np.zeros(1), low)
    box = np.array([[-0.5], [0.5]])
    assert np.stack(known.ends(np.zeros(1), box)) == pytest.approx(box)


@pytest.mark.parametrize("far", [-60.0, -25.0, 25.0, 60.0])
@pytest.mark.parametrize("part", [1e-9, 0.5, 1.0])
def test_coordinates_end_before_they_are_lost_in_rounding(far: float, part: float) -> None:
    known = around(np.zeros(1), part, 1.0)
    box = np.array([[-70.0], [70.0]])
    with np.errstate(all="raise"):
        p, slope = known.coordinates(np.array([far])), known.slope(np.array([far]))
        assert known.point(p) == pytest.approx([math.copysign(20.0, far)], abs=1e-4)
        low, high = known.ends(p, box)
        assert np.isfinite([slope, known.point(low), known.point(high)]).all()
        assert low <= p <= high


def test_linear_penalties_that_take_all_stay_within_the_box() -> None:
    """A weight without data: ``s = x`` takes all of it, at the bound 0 of x, too."""
    x, ones = np.array([2.0, 0.0]), np.ones(2)
    mixed, R = np.eye(2), -np.diag([0.5, 3.0])
    known = Shrinkage.of(x, ones, mixed, R, np.zeros(2), np.zeros(2))
    low, high = known.ends(np.zeros(2), np.array([[0.0, 0.0], [9.0, 9.0]]))
    assert (low <= 0.0).all()
    assert (high > 0.0).all()
    assert known.point(low) == pytest.approx([0.0, 0.0], abs=1e-6)


def test_penalties_that_fall_with_x_are_those_that_rise_with_its_negative() -> None:
    at, p = np.array([0.5, -1.0]), np.array([0.1, -0.2])
    rising, falling = around(-at, 0.3, 1.0), around(at, 0.3, -1.0)
    box = np.array([[-4.0, -3.0], [3.0, 4.0]])
    low, high = falling.ends(p, box)
    mirrored = rising.ends(-p, -box[::-1])
    assert (-high, -low) == (pytest.approx(mirrored[0]), pytest.approx(mirrored[1]))
    assert falling.point(p) == pytest.approx(-rising.point(-p))
    assert falling.slope(at + 0.4) == pytest.approx(rising.slope(-at - 0.4))


@pytest.mark.parametrize("rate", [1.0, 0.0])
def test_a_step_leaves_a_tenth_of_what_is_left(rate: float) -> None:
    """Also from the end of an earlier one, in the coordinates of the first point."""
    known, p = around(np.array([1.0]), 0.6, rate), np.zeros(1)
    box = np.array([[-1e9 if rate else 0.0], [1e9]])
    left = 1.0
    for _ in range(3):
        p = known.ends(p, box)[1]
        assert 1.0 - known.q[0] * p[0] == pytest.approx(0.1 * left)
        left *= 0.1
    least = known.point(known.ends(np.zeros(1), box)[0])[0]
    if rate:  # a tenth of what the penalty takes
        s = 1.5 * math.exp(least - 1.0)
        assert s / (1.0 + s) == pytest.approx(0.06)
    else:
        assert least == pytest.approx(0.0, abs=1e-9)


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
        ("sum(exp(-lam) * w^2)", -1.0),
        ("sum(exp(lam) * (w + exp(lam))^2)", None),
        ("sum(exp(lam) * w^2) + sum(lam * w)", None),
    ],
)
def test_penalties_are_recognised_by_how_they_grow(penalty: str, rate: float | None) -> None:
    text = RIDGE.format(box=WIDE, penalty=penalty)
    found = oracle_of(text, **data()).second_order.penalty_rates
    assert found is None if rate is None else found == pytest.approx(np.full(5, rate))


def test_other_variables_beside_penalties_have_no_rate() -> None:
    text = RIDGE.format(box=WIDE, penalty="sum(exp(lam[i]) * w[i]^2 for i in 1..3) + lam[4] * w[4]")
    found = oracle_of(text, **data()).second_order.penalty_rates
    assert found[:3] == pytest.approx(np.ones(3))
    assert np.isnan(found[3:]).all()


def test_units_of_the_upper_variables_change_the_rates() -> None:
    oracle = oracle_of(RIDGE.format(box=WIDE, penalty="sum(exp(lam) * w^2)"), **data())
    x, y = torch.tensor([1.0, 4.0, 2.0, 1.0, 1.0]).double(), torch.ones(5).double()
    assert ScaledOracle(oracle, Units(x, y)).second_order.penalty_rates == pytest.approx(x.numpy())


@pytest.mark.parametrize("penalty", ["exp(lam)", "10^lam", "exp(-lam)"])
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
    assert newton._rates is None
