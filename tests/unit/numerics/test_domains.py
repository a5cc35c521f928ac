"""Projections, faces and stationarity on products of boxes, simplices and balls."""

from __future__ import annotations

import math

import pytest
import torch

from bilevelpy.lowering.domains.product import Block, ProductSet, project_simplex
from tests.oracles import box, free, vec


def mixed() -> ProductSet:
    blocks = [
        Block("free", 0, 1, 2),
        Block("box", 2, 1, 3, vec(0.0, -1.0, -math.inf), vec(1.0, math.inf, 2.0)),
        Block("simplex", 5, 2, 3),
        Block("ball", 11, 2, 2, radius=vec(1.0, 2.0)),
    ]
    return ProductSet(blocks, 15)


def rand(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kinds_and_flags() -> None:
    assert mixed().kinds == {"free", "box", "simplex", "ball"}
    assert not mixed().is_box
    assert free(3).is_free
    assert free(3).kinds == {"free"}
    assert box(2, -math.inf, math.inf).is_free
    assert box(2, 0.0, 1.0).is_box
    assert not box(2, 0.0, 1.0).is_free


@pytest.mark.parametrize("seed", range(5))
def test_projection_is_the_nearest_point(seed: int) -> None:
    # Variational inequality: (z - P z)'(w - P z) <= 0 for every member w.
    domain = mixed()
    z = 3 * rand(15, seed)
    p = domain.project(z)
    assert domain.contains(p)
    assert torch.allclose(domain.project(p), p, atol=1e-14)
    for k in range(20):
        w = domain.project(3 * rand(15, 100 + k))
        assert float((z - p) @ (w - p)) <= 1e-12


def test_projection_of_batches() -> None:
    domain = mixed()
    Z = torch.stack([3 * rand(15, s) for s in range(4)])
    assert torch.equal(domain.project(Z)[2], domain.project(Z[2]))


def test_simplex_projection_of_a_known_point() -> None:
    p = project_simplex(vec(0.9, 0.5, -0.6, 0.1, -1.0))
    assert torch.allclose(p, vec(0.7, 0.3, 0.0, 0.0, 0.0))


def test_violation() -> None:
    assert box(2, 0.0, 1.0).violation(vec(0.5, 1.25)) == pytest.approx(0.25)
    assert free(2).violation(vec(1e9, 0.0)) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_projected_gradient_is_the_limit_of_projected_steps(seed: int) -> None:
    domain = mixed()
    z, g = domain.project(2 * rand(15, seed)), rand(15, seed + 50)
    t = 1e-7
    step = (z - domain.project(z - t * g)) / t
    assert torch.allclose(domain.projected_gradient(z, g), step, atol=1e-5)


def test_projected_gradient_vanishes_at_a_projection() -> None:
    # P z minimises |w - z|^2 / 2 over the set, whose gradient at P z is P z - z.
    domain = mixed()
    z = 3 * rand(15, 3)
    p = domain.project(z)
    assert domain.projected_gradient_norm(p, p - z) < 1e-12 * float(z.norm())


def test_box_face_holds_bounds_that_push_outwards() -> None:
    domain = box(3, 0.0, 1.0)
    face = domain.face(vec(0.0, 0.0, 0.5), vec(1.0, -1.0, 0.3))
    assert face.free is not None
    assert face.free.tolist() == [False, True, True]
    assert face.weak == 0
    assert domain.face(vec(0.0, 0.5, 0.5), vec(0.0, 1.0, 1.0)).weak == 1


def test_simplex_face_projects_to_zero_sum_on_the_support() -> None:
    domain = ProductSet([Block("simplex", 0, 1, 4)], 4)
    face = domain.face(vec(0.5, 0.5, 0.0, 0.0), vec(0.1, 0.1, 1.0, 1.0))
    v = face.project(vec(3.0, 1.0, 5.0, -2.0))
    assert torch.allclose(v, vec(1.0, -1.0, 0.0, 0.0))


def test_ball_face_has_the_tangent_plane_and_its_curvature() -> None:
    domain = ProductSet([Block("ball", 0, 1, 2, radius=vec(2.0))], 2)
    face = domain.face(vec(2.0, 0.0), vec(-3.0, 0.0))
    assert torch.allclose(face.project(vec(1.0, 1.0)), vec(0.0, 1.0))
    assert torch.allclose(face.bend(vec(0.0, 1.0)), vec(0.0, 1.5))
    assert domain.face(vec(2.0, 0.0), vec(3.0, 0.0)).is_whole
