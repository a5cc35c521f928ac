"""Followers of different kinds in one model, models of one level, and ends without a proof."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.points.beside import is_comparable, settled_beside
from bilevelpy.backends.exact.relaxations.necessary import high_point, necessary
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")

# One follower copies x, the other one rounds 0.6 x.
MIXED = """
upper { var x in [0, 6]; minimize (x - 4)^2 + copy.y + round.y; }
lower copy { var y in [0, 9]; minimize (y - x)^2; }
lower round { var y in integers(0, 5); minimize (y - 0.6 * x)^2; }
"""


def test_a_convex_follower_beside_one_with_whole_numbers() -> None:
    x = np.linspace(0, 6, 60001)
    # At a tie the lower value is the leader's choice.
    values = (x - 4) ** 2 + x + np.ceil(0.6 * x - 0.5 - 1e-9)
    result = bl.solve(bl.parse(MIXED), backend="exact", time_limit=30)
    assert result.success
    assert result.certificate.kind == "global"
    assert pytest.approx(values.min(), abs=1e-3) == result.F


def test_conditions_of_the_convex_one_join_the_relaxation() -> None:
    mixed = system(bl.parse(MIXED).bound)
    program = necessary(mixed)
    assert program.kinds.count("stationarity") == 1
    assert program.columns.count > high_point(mixed).columns.count
    # Whose a column is does not change.
    assert np.array_equal(program.columns.owner[: mixed.columns.count], mixed.columns.owner)


@pytest.mark.parametrize(
    ("text", "F"),
    [
        # 3 a + 2 b with 2 a + b <= 7: 13 at (1, 5).
        (
            "upper { var x[2] in integers(0, 5); maximize 3 * x[1] + 2 * x[2];"
            " subject to c: 2 * x[1] + x[2] <= 7; }",
            13.0,
        ),
        # Himmelblau's function: four zeros.
        (
            "upper { var x in [-5, 5], y in [-5, 5];"
            " minimize (x^2 + y - 11)^2 + (x + y^2 - 7)^2; }",
            0.0,
        ),
    ],
)
def test_a_model_of_one_level(text: str, F: float) -> None:
    result = bl.solve(bl.parse(text), time_limit=30)
    assert result.success
    assert pytest.approx(F, abs=1e-5) == result.F


def test_a_model_of_one_level_without_a_point() -> None:
    text = "upper { var x in [0, 1]; minimize x; subject to c: x^2 >= 2; }"
    assert bl.solve(bl.parse(text)).status == "infeasible"


def test_a_plateau_is_proved_to_be_the_bottom() -> None:
    text = """
    upper { var x in [0, 1]; minimize y; }
    lower f { var y in [0, 1]; minimize (y - 0.3)^2 + 0 * x; }
    """
    result = bl.solve(bl.parse(text))
    assert result.success
    assert pytest.approx(0.3) == result.F


def test_points_beside_show_a_local_optimum_and_lead_to_it() -> None:
    # y = x / 2 below; F = (x - 2)^2 + y^2 has its minimum at x = 8 / 5.
    text = """
    upper { var x in [-5, 5]; minimize (x - 2)^2 + y^2; }
    lower f { var y in [-9, 9]; minimize (2 * y - x)^2; }
    """
    stated = system(bl.parse(text).bound)
    assert is_comparable(stated)
    at, count = settled_beside(stated, np.array([1.6, 0.8]), 0, np.inf)
    assert count > 2
    assert at.tolist() == [1.6, 0.8]
    at, count = settled_beside(stated, np.array([1.4, 0.7]), 0, np.inf)
    assert abs(at[0] - 1.6) < 0.05
    at, count = settled_beside(stated, np.array([1.4, 0.7]), 0, 0.0)
    assert count == 0


def test_whole_numbers_above_have_no_points_beside() -> None:
    text = """
    upper { var x in integers(0, 5); minimize (x - 2)^2 + y; }
    lower f { var y in [0, 9]; minimize (y - x)^2; }
    """
    assert not is_comparable(system(bl.parse(text).bound))
