"""Quadratic programs by their working sets, against SciPy and the conditions of optimality."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from bilevelpy.lowering.domains.product import project_simplex
from bilevelpy.numerics.qp.working_set import Program, WorkingSet

# What SLSQP reaches on these problems.
CLOSE = 1e-6


def definite(draw: np.random.Generator, n: int) -> np.ndarray:
    root = draw.standard_normal((n, n))
    return root @ root.T + 0.1 * np.eye(n)


def conditions(program: Program, working: WorkingSet, y: np.ndarray) -> float:
    """The largest violation of feasibility and of the sign of a multiplier."""
    found = working.solve(program)
    assert found is not None
    outside = max(float((working.low - y).max()), float((y - working.high).max()), 0.0)
    pushing = float(np.maximum(found.side * found.multipliers, 0.0).max(initial=0.0))
    inside = float(np.abs(found.multipliers[found.side == 0]).max(initial=0.0))
    return max(outside, pushing, inside)


@pytest.mark.parametrize("seed", range(8))
def test_boxes_against_scipy(seed: int) -> None:
    draw = np.random.default_rng(seed)
    n = 8
    low = np.where(draw.random(n) < 0.3, -np.inf, -draw.random(n))
    high = np.where(draw.random(n) < 0.3, np.inf, draw.random(n))
    working = WorkingSet(low, high, np.zeros((0, n)))
    H, d, b = definite(draw, n), draw.random(n), 3 * draw.standard_normal(n)
    found = working.solve(Program(H, d, b))
    assert found is not None
    whole = H + np.diag(d)
    reference = minimize(
        lambda y: b @ y + y @ whole @ y / 2,
        np.zeros(n),
        jac=lambda y: b + whole @ y,
        bounds=list(zip(low, high, strict=True)),
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert np.abs(found.y - reference.x).max() <= CLOSE
    assert conditions(Program(H, d, b), working, found.y) <= 1e-10


@pytest.mark.parametrize("blocks", [1, 3])
def test_simplices_one_program_after_another(blocks: int) -> None:
    """Warm working sets are those of other programs: every answer is still the solution."""
    draw = np.random.default_rng(blocks)
    size = 6
    n = blocks * size
    sums = np.kron(np.eye(blocks), np.ones(size))
    working = WorkingSet(np.zeros(n), np.full(n, np.inf), sums)
    H = definite(draw, n)
    for _ in range(20):
        program = Program(H, None, 4 * draw.standard_normal(n))
        found = working.solve(program)
        assert found is not None
        assert np.abs(sums @ found.y - 1.0).max() <= 1e-12
        assert conditions(program, working, found.y) <= 1e-9
        # No feasible direction descends: towards any vertex of the product.
        for k in range(size):
            vertex = np.zeros(n)
            vertex[k::size] = 1.0
            assert found.gradient @ (vertex - found.y) >= -1e-9


def test_projection_on_the_simplex() -> None:
    """H = I is the projection of -b."""
    draw = np.random.default_rng(0)
    for _ in range(10):
        v = draw.standard_normal(7)
        working = WorkingSet(np.zeros(7), np.full(7, np.inf), np.ones((1, 7)))
        found = working.solve(Program(np.eye(7), None, -v))
        assert found is not None
        expected = project_simplex(torch.from_numpy(v)[None])[0].numpy()
        np.testing.assert_allclose(found.y, expected, atol=1e-12)


def test_singular_matrices_are_refused() -> None:
    working = WorkingSet(np.full(2, -np.inf), np.full(2, np.inf), np.zeros((0, 2)))
    assert working.solve(Program(np.ones((2, 2)), None, np.array([1.0, -1.0]))) is None


def test_fixed_variables_stay() -> None:
    low, high = np.array([0.5, 0.0]), np.array([0.5, 1.0])
    working = WorkingSet(low, high, np.zeros((0, 2)))
    H = np.array([[2.0, 1.0], [1.0, 2.0]])
    found = working.solve(Program(H, None, np.array([5.0, -2.0])))
    assert found is not None
    np.testing.assert_allclose(found.y, [0.5, 0.75])
