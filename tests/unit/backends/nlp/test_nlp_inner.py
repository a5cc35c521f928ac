"""What the leader chooses beside the followers, and responses that leave no choice."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import linprog

import bilevelpy as bl
from bilevelpy.backends.nlp.inner import pushed
from bilevelpy.numerics.followers.choice import Choice
from bilevelpy.numerics.followers.response import JointResponse
from bilevelpy.reductions.rows import system


@pytest.mark.parametrize("seed", range(5))
def test_epigraph_variables_in_closed_form(seed: int) -> None:
    """Rows of one entry each: the optimum and its prices, against HiGHS."""
    rng = np.random.default_rng(seed)
    cost = np.array([1.0, 2.0, -1.0, 0.0])
    at = rng.integers(0, 4, 9)
    factor = rng.choice([-2.0, 1.0, 3.0], 9)
    matrix = sp.csr_array((factor, (np.arange(9), at)), shape=(9, 4))
    w = rng.normal(size=4)
    low = matrix @ w - rng.random(9)
    high = matrix @ w + rng.random(9)
    bounds = w - 2.0, w + 2.0
    found = pushed(cost, matrix, np.r_[low, bounds[0]], np.r_[high, bounds[1]])
    assert found is not None
    A = matrix.toarray()
    known = linprog(cost, np.r_[A, -A], np.r_[high, -low], bounds=list(zip(*bounds, strict=True)))
    assert cost @ found[0] == pytest.approx(known.fun, abs=1e-9)
    rest = cost + A.T @ found[1]
    inside = (found[0] > bounds[0] + 1e-9) & (found[0] < bounds[1] - 1e-9)
    assert rest[inside] == pytest.approx(0.0, abs=1e-12)


def test_rows_of_several_entries_are_left_to_a_solver() -> None:
    matrix = sp.csr_array([[1.0, 1.0]])
    ends = np.array([0.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0])
    assert pushed(np.ones(2), matrix, *ends) is None


@pytest.mark.parametrize(("slope", "alone"), [("y[1] + 2*y[2]", True), ("y[1] + y[2]", False)])
def test_whether_a_linear_response_is_the_only_one(slope: str, alone: bool) -> None:
    """min y1 + y2 under y1 + y2 >= x: an edge of responses; min y1 + 2 y2: a vertex."""
    text = f"""
    upper {{ var x in [1, 2]; minimize y[1]; }}
    lower l {{ var y[2] in [0, 5]; minimize {slope}; subject to c: y[1] + y[2] >= x; }}
    """
    made = system(bl.parse(text).bound)
    joint = JointResponse(made)
    response = joint.solve(np.array([1.5, 0.0, 0.0]))
    assert response is not None
    assert Choice.of(joint, np.zeros(0, dtype=np.int64)).alone(response) is alone
