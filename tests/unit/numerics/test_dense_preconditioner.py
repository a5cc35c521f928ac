"""The dense inverse that conjugate gradients of `aid` get once their products would have paid."""

from __future__ import annotations

import numpy as np
import torch

from bilevelpy.backends.implicit.aid import AID, AIDOptions
from bilevelpy.numerics.lower.dense_preconditioner import PRICE, DensePreconditioner
from bilevelpy.numerics.lower.response import Response
from tests.oracles import AutoOracle

m = 40


def ill(*, flat: int = 0) -> AutoOracle:
    """A quartic below of condition number 1e5; the last ``flat`` variables change nothing."""
    draw = np.random.default_rng(0)
    Q, _ = np.linalg.qr(draw.normal(size=(m, m)))
    values = np.geomspace(1.0, 1e5, m)
    values[:flat] = 0.0
    A = torch.from_numpy(Q * values @ Q.T)
    b, t = (torch.from_numpy(draw.normal(size=m)) for _ in range(2))
    if flat:
        b, t = A @ b, A @ t
    zero = torch.zeros(m, dtype=torch.float64)
    return AutoOracle(
        lambda x, y: ((y - t) ** 2).sum() / 2 + torch.dot(t, y),
        lambda x, y: y @ A @ y / 2 + (0.0 if flat else 0.1) * (y**4).sum() - torch.dot(b + x, y),
        torch.zeros(m, dtype=torch.float64),
        zero,
    )


def walk(o: AutoOracle) -> tuple[Response, list[int]]:
    """Responses and adjoints of four more points; the products of each adjoint."""
    response, products = AID().response(o, AIDOptions()), []
    response.accuracy.level = 1e-8
    point = response.differentiate(response.evaluate(o.x0, None, o.y0), None)
    for k in range(4):
        x = point.x + 0.1 * torch.cos(torch.arange(m) + k).double()
        point = response.differentiate(response.evaluate(x, point, point.y), point)
        assert point.adjoint is not None
        products.append(point.adjoint.products)
    H = o.hessian(point.x, point.y)
    u = torch.linalg.solve(H, point.gF_y)
    assert torch.allclose(point.g, point.gF_x - o.cross(point.x, point.y)(u), rtol=1e-4, atol=1e-7)
    return response, products


def test_products_fall_once_they_have_paid() -> None:
    response, products = walk(ill())
    assert response.method.steps.inverse.matrix is not None
    assert products[-1] <= 6


def test_what_is_singular_has_no_inverse() -> None:
    o, inverse = ill(flat=1), DensePreconditioner()
    inverse.rent = PRICE * m
    inverse.settle(o, o.x0, o.y0)
    assert inverse.matrix is None
    inverse.rent += 100.0 * m
    assert inverse.rent < PRICE * m  # nor is it asked for again


def test_it_is_carried_by_its_place() -> None:
    o, inverse, again = ill(), DensePreconditioner(), DensePreconditioner()
    inverse.rent = PRICE * m
    inverse.settle(o, o.x0, o.y0)
    again.restore(inverse.carried(), o)
    r = torch.ones(m, dtype=torch.float64)
    assert torch.equal(inverse(r), again(r))
    assert torch.allclose(o.hvp(o.x0, o.y0)(inverse(r)), r, atol=1e-8)
