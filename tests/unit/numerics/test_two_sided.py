"""Solutions of interior points, sharpened by the rows that hold them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from bilevelpy.numerics.qp.two_sided import TwoSided, sharpened


@pytest.mark.parametrize("gap", [1e-4, 1e-8, -1e-8])
def test_a_row_that_only_seems_to_hold_is_exchanged(gap: float) -> None:
    """``min |v - c|^2 / 2``, v <= 1, and c beside the corner: the optimum is ``min(c, 1)``."""
    c = np.array([1.0 - gap, 2.0])
    eye = sp.eye_array(2, format="csc")
    # What an interior point may leave: a multiplier larger than the slack.
    near = TwoSided("Solved", np.array([1.0 - 1e-9, 1.0]), np.array([1e-3, 1.0]))
    low, high = np.full(2, -np.inf), np.ones(2)
    found = sharpened(eye, -c, eye, low, high, near)
    assert np.abs(found.values - np.minimum(c, 1.0)).max() < 1e-15
    assert np.abs(found.multipliers - np.maximum(c - 1.0, 0.0)).max() < 1e-15
