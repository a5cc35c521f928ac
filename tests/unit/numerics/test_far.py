"""Points far from a local solution."""

from __future__ import annotations

import math

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.numerics.programs.far import falls_away, far_points, is_lower

MODEL = """
model hill;
upper { var x in [0, 2] start 0.2; minimize (y - 1)^2 / 9 + (x - 0.3)^2; }
lower follow { var y; minimize OBJECTIVE; }
"""
# Valleys at 0 beside hills, behind which the objective falls without bound.
HILLS = ["-(y - x)^3 + sqrt(1 + (y + 0.5)^2) / 2", "3 * y^2 - exp(-y / 2)"]


def test_both_sides_of_lines_at_every_scale() -> None:
    for size, dim in ((0.0, 1), (50.0, 2), (2.0, 9)):
        base = size * np.ones(dim)
        points = np.array([p for _, p in far_points(base, np.random.default_rng(0))])
        assert np.allclose(points.mean(0), base)
        distances = np.linalg.norm(points - base, axis=1)
        assert distances.max() > 50 * distances.min()
        assert distances.min() > 0.1 * max(1.0, size)
    assert is_lower(-1.0, -0.5)
    assert not is_lower(-1.0 - 1e-9, -1.0)
    assert not is_lower(-np.inf, -1.0)


@pytest.mark.parametrize("objective", HILLS)
@pytest.mark.parametrize("backend", ["direct", "nlp", "pbgd"])
def test_a_valley_beside_a_slope_without_end_is_no_response(objective: str, backend: str) -> None:
    model = bl.parse(MODEL.replace("OBJECTIVE", objective))
    result = bl.solve(
        model, backend=backend, force=True, time_limit=20, max_iter=60, progress=False,
        options={"starts": 2} if backend == "nlp" else {},
    )  # fmt: skip
    assert not result.success
    assert "unbounded" in result.message or "still falls" in result.message


def test_a_slope_behind_rows_of_a_reformulation() -> None:
    """``max`` is a row of `exact`: a far point is on it only after a descent."""
    text = """
model rows;
upper { var x in [0, 1.999] start 0.5; minimize (2 * y + x)^2 - x; }
lower follow { var y; minimize max(x * y, 0) / 2 - softplus(y); }
"""
    result = bl.solve(bl.parse(text), backend="exact", time_limit=20, progress=False)
    assert not result.success


def test_a_valley_among_higher_ones_is_a_response() -> None:
    model = bl.parse(MODEL.replace("OBJECTIVE", "(y - x)^2 / 9 - cos(3 * (y - x))"))
    result = bl.solve(model, backend="direct", force=True, progress=False)
    assert result.success
    assert result["y"] == pytest.approx(result["x"], abs=1e-6)


@pytest.mark.parametrize(
    ("f", "falls"),
    [
        (lambda y: math.exp(-y[0]), True),
        (lambda y: math.sqrt(1.0 + y[0] ** 2) - y[0], True),
        (lambda y: max(0.0, 1.0 - y[0]), False),  # least from 1 on
        (lambda y: (y[0] - 40.0) ** 2 * 1e-9, False),
        (lambda y: -5.0, False),
    ],
)
def test_what_falls_away(f, falls):
    assert falls_away(f, np.array([40.0]), 1e-12 * abs(f([40.0]))) is falls


@pytest.mark.parametrize("f", ["sqrt(1 + y^2) - (1 + x) * y", "exp(-y) * (1 + x)"])
def test_a_response_at_infinity_is_not_certified(f):
    text = (
        "model t; upper { var x in [0, 1] start 0.5; minimize (y - 1)^2 + x; }\n"
        f"lower f {{ var y; minimize {f}; }}\n"
    )
    found = bl.solve(bl.parse(text), backend="nlp", time_limit=20, options={"starts": 2})
    assert not found.success
    assert found.certificate is None or "at infinity" in found.certificate.reasons[0]
