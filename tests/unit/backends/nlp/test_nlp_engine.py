"""Runs of IPOPT from given ends."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.numerics.programs.interior_point import InteriorPoint
from bilevelpy.reductions.rows import system

pytest.importorskip("casadi")

ROWS = """
upper { var x[2] in [0, 4]; minimize sumsq(x - 1) + y^4;
  subject to a: x[1] == x[2]; b: x[1] + x[2] == 2; c: x[1] * x[2] == 1; d: y == 0; }
lower follow { var y; minimize y^2; }
"""


def test_more_equations_than_variables_are_told_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    """CasADi warns of them at every run."""
    made = system(bl.parse(ROWS).bound)
    engine = InteriorPoint(made.objective, made.upper_rows)
    engine.solve(np.zeros(3), made.columns.lower, made.columns.upper)
    assert capfd.readouterr() == ("", "")


def test_ends_of_rows_that_cross_leave_nothing() -> None:
    made = system(bl.parse(ROWS).bound)
    engine = InteriorPoint(made.objective, made.upper_rows)
    ends = made.columns.lower, made.columns.upper
    low = made.upper_rows.lower + np.array([0.0, 1.0, 0.0, 0.0])
    assert engine.solve(np.zeros(3), *ends, low, made.upper_rows.upper) is None
    start = np.array([1.0, 1.0, 0.0])
    only_one = made.upper_rows.upper + np.array([0.0, 0.0, 1.0, 0.0])
    found = engine.solve(start, *ends, made.upper_rows.lower, only_one)
    assert found is not None
    assert found.is_feasible
