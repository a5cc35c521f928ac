"""Local ends of small models, where F is better elsewhere in the upper set."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl

# An agent with the return b log(1 + e) for the effort e at the cost e: e = b - 1 from b = 1 on. The
# principal earns 3 - b a unit: (b - 1) (3 - b) has its maximum 1 at b = 2. Below b = 1 the effort
# is the least one, 0.01, and the principal pays as little as possible: a local maximum.
AGENT = """
upper { var b in [0.1, 5]; maximize e * (3 - b); }
lower agent { var e in [0.01, 10]; maximize b * log(1 + e) - e; }
"""

# Labels of two further points of a ridge regression through the origin; the response is linear in
# them, w = (14 + 1.5 a + 0.5 b) / 17.5, the loss 5 (w - 1)^2 convex: largest at a corner.
POISON = """
dim n = 3;
param x[n] = [1, 2, 3];
upper { var a in [-5, 5] start 5, b in [-5, 5] start 5; maximize 5 * (w - 1)^2; }
lower fit { var w; minimize sumsq(w * x - x) + (1.5 * w - a)^2 + (0.5 * w - b)^2 + w^2; }
"""


def test_effort_starts_at_a_kink() -> None:
    res = bl.solve(bl.parse(AGENT))
    assert res.success
    assert pytest.approx(1.0, abs=1e-6) == res.F
    assert float(res["b"]) == pytest.approx(2.0, abs=1e-3)
    assert any("elsewhere" in text for text in res.warnings)


def test_the_worst_corner_is_found_from_another_one() -> None:
    corners = [5 * ((14 + 1.5 * a + 0.5 * b) / 17.5 - 1) ** 2 for a in (-5, 5) for b in (-5, 5)]
    res = bl.solve(bl.parse(POISON))
    assert res.success
    assert pytest.approx(max(corners), rel=1e-6) == res.F


def test_a_start_of_the_caller_is_where_the_answer_belongs_to() -> None:
    res = bl.solve(bl.parse(AGENT), start={"b": 0.3})
    assert res.success
    assert float(res["b"]) == pytest.approx(0.1, abs=1e-9)


def test_ranges_without_ends_are_looked_at_too() -> None:
    # F(x, y(x)) with y = x: two valleys, at -1 and, deeper, at 3.
    text = """
    upper { var x start -1; minimize (y + 1)^2 * (y - 3)^2 / 10 - x; }
    lower copy { var y; minimize (y - x)^2; }
    """
    grid = np.linspace(-10, 10, 200001)
    wanted = float(((grid + 1) ** 2 * (grid - 3) ** 2 / 10 - grid).min())
    res = bl.solve(bl.parse(text))
    assert pytest.approx(wanted, abs=1e-4) == res.F
