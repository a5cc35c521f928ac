"""Directions along which a convex follower has other responses."""

from __future__ import annotations

import numpy as np
import pytest

from bilevelpy.numerics.certificate.other_responses import Directions

NONE = np.zeros((0, 3))
FREE = np.zeros(3, dtype=bool)


def along(H: np.ndarray, g: np.ndarray, tight: np.ndarray = NONE) -> Directions:
    return Directions.at(H, g, NONE, tight, FREE, FREE)


def test_curvature_leaves_one_response() -> None:
    rng = np.random.default_rng(0)
    still = np.zeros(3)
    assert along(np.diag([1.0, 1e-5, 3e2]), still).is_alone(rng)
    assert not along(np.diag([1.0, 0.0, 3e2]), still).is_alone(rng)


def test_a_slope_and_a_row_leave_one_response() -> None:
    """f rises along the third variable, and a row keeps it from falling: an epigraph."""
    rng = np.random.default_rng(0)
    g, row = np.array([0.0, 0.0, 2.0]), np.array([[0.0, 0.0, -1.0]])
    H = np.diag([1.0, 1.0, 0.0])
    assert along(H, g, row).is_alone(rng)
    both = along(np.diag([1.0, 0.0, 0.0]), g, np.array([[0.0, 1.0, -1.0], [0.0, -1.0, -1.0]]))
    assert both.is_alone(rng)  # abs(y_2) <= y_3, at 0


def test_a_cone_of_one_side() -> None:
    """The second variable lies at a floor and may rise."""
    floor = np.array([False, True, False])
    found = Directions.at(np.diag([1.0, 0.0, 1.0]), np.zeros(3), NONE, NONE, floor, FREE)
    assert not found.is_alone(np.random.default_rng(0))
    assert found.range(np.array([5.0, 2.0, 0.0])) == pytest.approx((0.0, 2.0))


@pytest.mark.parametrize("seed", range(20))
def test_random_cones_agree_with_their_ranks(seed: int) -> None:
    """Equations and curvature that cross in 0 alone, or in a line."""
    rng = np.random.default_rng(seed)
    B, E = rng.standard_normal((3, 6)), rng.standard_normal((2 + seed % 2, 6))
    free = np.zeros(6, dtype=bool)
    found = Directions.at(B.T @ B, np.zeros(6), E, np.zeros((0, 6)), free, free)
    assert found.is_alone(rng) == (seed % 2 == 1)
