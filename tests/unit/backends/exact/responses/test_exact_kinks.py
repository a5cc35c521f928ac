"""Cuts of followers with kinks, and responses on the edge of what they may do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.cuts.ways_out import common, whole_steps
from bilevelpy.backends.exact.responses.kinks import as_given, kink_columns
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")


def test_functions_as_given_have_the_values_of_the_kinks() -> None:
    text = """
    upper { var x in [-3, 3]; minimize w; }
    lower g {
      var w in [-5, 5];
      minimize 2 * max(abs(w - x), 3 * w - 1) - min(w, 2 * x) + w^2;
      subject to c: abs(w + x) - x <= 2;
    }
    """
    stated = system(bl.parse(text).bound)
    lifted = lift(stated)
    objective, rows = as_given(lifted, 0)
    assert kink_columns(lifted).sum() == 4
    assert rows.names == stated.lower_rows.names
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, w = rng.uniform(-3, 3, 2)
        v = np.concatenate([[x, w], rng.normal(size=4)])  # the heights do not matter
        f = 2 * max(abs(w - x), 3 * w - 1) - min(w, 2 * x) + w**2
        assert objective.value(v)[0] == pytest.approx(f)
        assert rows.functions.value(v)[0] == pytest.approx(abs(w + x) - x)


def test_whole_numbers_and_kinks_that_move_with_x() -> None:
    # A cut with the height of a kink at one x would say nothing at another one.
    text = """
    upper { var x in integers(-2, 3); maximize (3 * y - 1.5)^2; subject to u: 3 * y - x / 2 <= 4; }
    lower f {
      var y in integers(-3, 3);
      minimize 3 * max(1.5 * x + 0.5, x - 3 * y - 0.5) + 2 * y + 2 * x * y;
    }
    """
    best = -np.inf
    for x in range(-2, 4):
        values = [
            (3 * max(1.5 * x + 0.5, x - 3 * y - 0.5) + 2 * y + 2 * x * y, y) for y in range(-3, 4)
        ]
        least = min(values)[0]
        allowed = [y for f, y in values if f <= least + 1e-9 and 3 * y - x / 2 <= 4]
        best = max([best, *((3 * y - 1.5) ** 2 for y in allowed)])
    result = bl.solve(bl.parse(text), backend="exact", time_limit=30)
    assert result.success
    assert result.certificate.kind == "global"
    assert pytest.approx(best) == result.F


def test_a_row_that_no_x_breaks_leaves_no_way_out() -> None:
    # The response 0 is on the edge of `c` at x = 3, the end of what the leader may do.
    text = """
    upper { var x in [0, 3]; maximize y + x / 10; }
    lower f { var y in integers(0, 4); minimize y * (1 + x); subject to c: 2 * y - x >= -3; }
    """
    result = bl.solve(bl.parse(text), backend="exact", time_limit=30)
    assert result.success
    assert pytest.approx(0.3, abs=1e-6) == result.F


@pytest.mark.parametrize("c", [(0.5, 1.5), (3.0, -2.0), (-6.0, 4.0), (0.4, 0.6), (1.0, 1 / 3)])
def test_half_the_way_to_the_next_value_of_a_row_of_whole_numbers(c: tuple[float, float]) -> None:
    """Also where the values are multiples of a divisor of both coefficients."""
    text = f"""
    upper {{ var a in integers(0, 5), b in integers(0, 5); minimize a; }}
    lower f {{ var y; minimize y^2; subject to c: -1 <= {c[0]} * a + {c[1]} * b + y <= 2.2; }}
    """
    stated = system(bl.parse(text).bound)
    rows = stated.lower_rows
    values = {c[0] * a + c[1] * b for a, b in itertools.product(range(-9, 9), repeat=2)}
    above = min(v for v in values if v > 2.2 + 1e-9) - 2.2
    below = -1 - max(v for v in values if v < -1 - 1e-9)
    functions = rows.functions
    narrow = type(functions)(functions.constant, functions.linear[:, :], {}, {})
    narrow.linear.data[narrow.linear.indices == 2] = 0.0
    narrow.linear.eliminate_zeros()
    found = whole_steps(stated, narrow, 0, (-1.0, 2.2))
    assert found == pytest.approx((above / 2, below / 2))


def test_no_common_step_is_no_step() -> None:
    assert common(np.array([1.0, 2.0**0.5])) == 0.0
    assert common(np.array([1.0, 0.3, 0.5**0.5])) == 0.0
    assert common(np.array([0.25, -0.75, 1.0])) == pytest.approx(0.25)
    assert common(np.array([6.0, -4.0, 10.0])) == 2.0
