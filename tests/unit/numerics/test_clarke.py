"""Clarke's condition with the normal cone of the upper domain, by closed forms and cvxpy."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.lowering.domains.product import Block, ProductSet
from bilevelpy.numerics.certificate.kinks import Normals

# Relative accuracy of the interior-point method.
CLOSE = 1e-6
N = 7

# y(a, b) = max(0, 3.2 b - 2 a). Of the two gradients (1, -0.2) and (-1, 3) of F(x, y(x)) the half
# way vector is (0, 1.4), which the bound b >= 0 holds; each alone is not stationary, and the first
# one lets b go. For b >= 0, F >= 1.4 b where a >= 1.6 b, and F = -a + 3 b >= 1.4 b elsewhere.
HELD = """
model held;
upper { var a in [-1, 1], b in [0, 1]; minimize a - 0.2*b + y; }
lower L { var y in [0, 5]; minimize (y + 2*a - 3.2*b)^2; }
"""


def test_bound_holds_a_combination_that_no_gradient_shows() -> None:
    result = bl.solve(bl.parse(HELD), time_limit=20)
    assert result.success
    assert result.decision.notes == ()
    assert abs(result.F) <= 1e-8
    beside = bl.certify(bl.parse(HELD), {"a": 0.0, "b": 0.1})
    assert beside.certificate is not None
    assert beside.certificate.kind == "none"


def _box(rng: np.random.Generator) -> tuple[Block, np.ndarray]:
    low, high = torch.zeros(N, dtype=torch.float64), torch.ones(N, dtype=torch.float64)
    return Block("box", 0, 1, N, low, high), rng.choice([0.0, 0.5, 1.0], N)


def _simplex(rng: np.random.Generator) -> tuple[Block, np.ndarray]:
    z = np.append(rng.integers(0, 2, N - 1), 1.0)
    return Block("simplex", 0, 1, N), z / z.sum()


def _ball(rng: np.random.Generator) -> tuple[Block, np.ndarray]:
    z = rng.standard_normal(N)
    return Block("ball", 0, 1, N, radius=torch.ones(1, dtype=torch.float64)), z / np.linalg.norm(z)


@pytest.mark.parametrize("make", [_box, _simplex, _ball])
def test_shortest_vector_is_that_of_a_quadratic_program(make) -> None:
    rng = np.random.default_rng(4)
    for count in (1, 2, 4):
        block, z = make(rng)
        G = rng.standard_normal((count, N)) + 0.5
        point, rows = torch.from_numpy(z), torch.from_numpy(G)
        found = Normals(ProductSet((block,), N), point, rows[0], 1e-6).shortest(rows).numpy()
        # The length is the largest slope down along directions of the tangent cone of length 1.
        d, slope = cp.Variable(N), cp.Variable()
        inside = {
            "box": [d[z == 0.0] >= 0.0, d[z == 1.0] <= 0.0],
            "simplex": [d[z == 0.0] >= 0.0, cp.sum(d) == 0.0],
            "ball": [z @ d <= 0.0],
        }[block.kind]
        problem = cp.Problem(cp.Minimize(slope), [G @ d <= slope, cp.norm(d) <= 1.0, *inside])
        problem.solve(solver=cp.CLARABEL)
        assert np.linalg.norm(found) == pytest.approx(-problem.value, abs=CLOSE)
