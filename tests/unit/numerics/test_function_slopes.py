"""Derivatives of rows, against differences."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.numerics.programs.function_slopes import FunctionSlopes
from bilevelpy.reductions.rows import system

TEXT = """
upper { var x[3] in [0.5, 2]; minimize sum(x); subject to
  a: x[1] + 2 * x[2] <= 9;
  b: x[1] * x[2] + 3 * x[3]^2 - x[2] <= 9;
  c: exp(x[1] * x[3]) + log(x[2]) <= 99;
}
lower f { var y in [0, 1]; minimize y; }
"""


def test_derivatives_are_those_of_differences() -> None:
    stated = system(bl.parse(TEXT).bound)
    functions = stated.upper_rows.functions
    free = np.array([0, 2])
    made = FunctionSlopes(functions, free)
    assert made.is_smooth
    v = np.array([0.7, 1.3, 1.9, 0.4])
    assert made.value(v) == pytest.approx(functions.value(v))
    step = 1e-6
    for n, j in enumerate(free):
        e = np.zeros(v.size)
        e[j] = step
        slope = (functions.value(v + e) - functions.value(v - e)) / (2 * step)
        assert made.jacobian(v)[:, n] == pytest.approx(slope, rel=1e-6, abs=1e-6)


def test_kinks_have_no_derivative() -> None:
    text = "upper { var x in [-1, 1]; minimize x; subject to a: max(x, exp(x)) - abs(x) <= 3; }"
    stated = system(bl.parse(text + " lower f { var y in [0, 1]; minimize y; }").bound)
    made = FunctionSlopes(stated.upper_rows.functions, np.array([0]))
    assert not made.is_smooth
