"""Linear solvers against known spectra; numbers from section 1.6 of the design."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bilevelpy.numerics.linear_solve import (
    by_factor,
    cholesky,
    conjugate_gradients,
    fixed_point,
    neumann,
    norm,
    normal_equations,
    richardson,
)
from bilevelpy.numerics.quasi_newton import BFGS, SR1, quasi_newton_solve
from bilevelpy.numerics.spectrum import extreme_eigenvalues
from tests.oracles import toy, vec

ROUNDING = 1e-12


def system(kappa: float) -> tuple[torch.Tensor, torch.Tensor]:
    A = toy(kappa).A
    return A, torch.from_numpy(np.random.default_rng(1).standard_normal(100))


def test_identity_is_solved_in_one_step() -> None:
    d = vec(1.0, -2.0, 3.0)
    solution = conjugate_gradients(lambda v: v, d, tol=1e-12, max_iter=10)
    assert torch.equal(solution.u, d)
    assert solution.products == 1


def test_two_eigenvalues_take_two_steps() -> None:
    H = vec(1.0, 1.0, 5.0, 5.0)
    d = vec(1.0, 2.0, 3.0, 4.0)
    solution = conjugate_gradients(lambda v: H * v, d, tol=1e-12, max_iter=10)
    assert torch.allclose(solution.u, d / H, atol=1e-14)
    assert solution.products == 2


def test_start_and_preconditioner() -> None:
    A, d = system(100)
    exact = torch.linalg.solve(A, d)
    warm = conjugate_gradients(lambda v: A @ v, d, tol=1e-9, max_iter=10, u0=exact)
    assert warm.products == 1
    inverse = torch.linalg.inv(A)
    guided = conjugate_gradients(
        lambda v: A @ v, d, tol=1e-8, max_iter=10, preconditioner=lambda r: inverse @ r
    )
    assert guided.products <= 2


def test_negative_curvature_is_flagged() -> None:
    H = vec(1.0, -1.0)
    solution = conjugate_gradients(lambda v: H * v, vec(0.1, 1.0), tol=1e-12, max_iter=10)
    assert solution.negative_curvature
    assert not solution.converged


def test_singular_direction_does_not_blow_up() -> None:
    H = vec(1.0, 2.0, 0.0)
    solution = conjugate_gradients(lambda v: H * v, vec(1.0, 1.0, 1.0), tol=1e-12, max_iter=50)
    assert norm(solution.u) < 1e3


# Relative residuals after 5, 10, 20, 40 steps from u = d / L, H0 = I / L, for a random right-hand
# side: of the size of the design's table.
TABLE = {
    ("bfgs", 10): (6.3e-2, 7.2e-3, 7.1e-5, 9.1e-9),
    ("sr1", 10): (2.7e-2, 1.1e-3, 1.3e-6, 1.1e-12),
    ("bfgs", 100): (0.55, 0.26, 0.085, 6.9e-3),
    ("sr1", 100): (0.38, 0.14, 0.018, 1.1e-4),
}


@pytest.mark.parametrize(("kind", "kappa"), TABLE)
def test_subroutine_b(kind: str, kappa: int) -> None:
    A, d = system(kappa)
    for steps, expected in zip((5, 10, 20, 40), TABLE[kind, kappa], strict=True):
        memory = BFGS(1 / kappa, 60) if kind == "bfgs" else SR1(1 / kappa, 60)
        found = quasi_newton_solve(lambda v: A @ v, d, memory, iterations=steps)
        relative = norm(A @ found.u - d) / norm(d)
        assert 0.1 * expected < relative < 10 * expected
        assert found.products == steps + 1


def test_fixed_point_of_q_plus_1_steps_is_neumann_of_q() -> None:
    A, d = system(10)
    a = fixed_point(lambda v: A @ v, d, step=0.1, iterations=8)
    b = neumann(lambda v: A @ v, d, step=0.1, iterations=7)
    assert torch.allclose(a.u, b.u, atol=1e-13)


def test_stationary_solvers_converge() -> None:
    A, d = system(10)
    exact = torch.linalg.solve(A, d)
    zero = torch.zeros_like(d)
    H = lambda v: A @ v  # noqa: E731
    assert torch.allclose(fixed_point(H, d, step=0.18, iterations=300).u, exact, atol=1e-9)
    assert torch.allclose(richardson(H, d, u0=zero, step=0.18, iterations=300).u, exact, atol=1e-9)
    least = normal_equations(H, d, u0=zero, tol=1e-11, max_iter=300)
    assert torch.allclose(least.u, exact, atol=1e-8)


def test_cholesky_adds_a_ridge_only_where_it_must() -> None:
    A, d = system(100)
    factor = cholesky(A)
    assert factor is not None
    assert factor.relative_ridge == 0.0
    assert norm(A @ factor.solve(d) - d) < 1e-10 * norm(d)
    singular = cholesky(torch.diag(vec(1.0, 0.0)))
    assert singular is not None
    assert 0.0 < singular.relative_ridge <= 1e-6
    indefinite = cholesky(torch.diag(vec(1.0, -0.5)))
    assert indefinite is not None
    assert indefinite.relative_ridge > 1e-6
    # Nor is the size of a variable's unit a reason for one, as negative curvature across is.
    scale = torch.logspace(-12, 12, A.shape[0], dtype=torch.float64)
    scaled = cholesky(scale[:, None] * A * scale)
    assert scaled is not None
    assert scaled.relative_ridge == 0.0
    assert torch.allclose(scale * scaled.solve(scale * d), factor.solve(d), rtol=1e-9)
    across = cholesky(torch.tensor([[1.0, 0.5], [0.5, 1e-10]], dtype=torch.float64))
    assert across is not None
    assert across.relative_ridge > 1e-6
    assert cholesky(torch.tensor([[float("nan")]], dtype=torch.float64)) is None


def test_lanczos_finds_the_ends_of_the_spectrum() -> None:
    A, _ = system(100)
    low, high = extreme_eigenvalues(lambda v: A @ v, 100, torch.Generator().manual_seed(0))
    assert 99 < high <= 100 + ROUNDING
    assert 1 - ROUNDING <= low < 2


@pytest.mark.parametrize("make", [lambda: BFGS(0.5, 3), lambda: SR1(0.5, 3)])
def test_secant_equation_and_skipped_pairs(make) -> None:
    memory = make()
    s, g = vec(1.0, 0.0, 0.5), vec(2.0, 0.1, 0.3)
    assert memory.update(s, g)
    assert torch.allclose(memory.apply(g), s)
    assert not memory.update(vec(0.0, 0.0, 0.0), vec(0.0, 0.0, 0.0))
    memory.reset()
    assert torch.allclose(memory.apply(s), 0.5 * s)


@pytest.mark.parametrize("n", [5, 150])
def test_a_factor_solves_for_vectors_and_columns(n: int) -> None:
    """Long vectors go another way than short ones and matrices."""
    draw = torch.Generator().manual_seed(n)
    root = torch.randn(n, n, generator=draw, dtype=torch.float64)
    A = root @ root.T / n + torch.eye(n, dtype=torch.float64)
    B = torch.randn(n, 3, generator=draw, dtype=torch.float64)
    factor = cholesky(A)
    assert factor is not None
    expected = torch.linalg.solve(A, B)
    torch.testing.assert_close(torch.from_numpy(by_factor(factor.L, B.numpy())), expected)
    before = B[:, 0].clone()
    torch.testing.assert_close(factor.solve(B[:, 0]), expected[:, 0])
    assert torch.equal(B[:, 0], before)
