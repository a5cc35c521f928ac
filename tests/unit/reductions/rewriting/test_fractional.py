"""Followers that minimise a quotient of affine functions (W. Dinkelbach, Management Science 13,
1967; H. I. Calvete, C. Galé, J. Optim. Theory Appl. 1999 for the bilevel problem).
"""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.reductions.optimality.validity import require_convex
from bilevelpy.reductions.rewriting.fractional import without_quotients
from bilevelpy.reductions.rows import System, system


def made(text: str) -> tuple[System, System]:
    given = system(bl.parse(text).bound)
    return given, without_quotients(given)


SHARES = """upper {{ var x in [0, 1]; minimize {F}; {rows} }}
lower f {{ var y in [0, 1], z in [0, 1]; minimize {f}; subject to most: y + z <= 1 + x; }}"""


@pytest.mark.parametrize("sign", ["", "-"])
def test_the_parametric_form_is_linear_and_has_the_value(sign: str) -> None:
    # The denominator is positive where y + z <= 1 + x <= 2, or negative there.
    quotient = f"({sign}1)*(x - 2*y + z) / ({sign}1*(5 - 2*y - 2*z)) + 3*x^2"
    given, new = made(SHARES.format(F="x", f=quotient, rows=""))
    assert new.columns.count == given.columns.count + 1
    assert not new.lower_objectives.trees
    require_convex(new)
    v = np.array([0.5, 1.0, 0.25, (0.5 - 2.0 + 0.25) / 2.5])
    assert new.upper_rows.violation(v).max() < 1e-12
    assert new.columns.lower[3] <= v[3] <= new.columns.upper[3]


@pytest.mark.parametrize(
    "f",
    [
        "(x - y) / (2*y + 2*z - 1)",  # the denominator changes its sign
        "y^2 / (5 - y)",  # the numerator is not affine
        "y / (1 + z) + z",  # no single quotient
        "y / (2 + z^2)",
    ],
)
def test_other_quotients_stay(f: str) -> None:
    given, new = made(SHARES.format(F="x", f=f, rows=""))
    assert new is given


def test_an_optimum_is_proved() -> None:
    # The follower has y = 1, z = x where x < 1/4 (z lowers the quotient), else ...: by hand on a
    # grid below.
    text = SHARES.format(
        F="(z - 0.5)^2 + 0.1*x", f="(1 - 3*y - z)/(2 + y - z)", rows="subject to r: y - z >= 0.2;"
    )
    found = bl.solve(bl.parse(text), backend="exact", progress=False)
    assert found.certificate is not None
    assert found.certificate.kind == "global"

    def best(x: float) -> float:
        # The optimum of a quotient of affine functions is at a corner of the rows.
        corners = [(0, 0), (1, 0), (0, 1), (1, x), (x, 1)]
        value = [(1 - 3 * y - z) / (2 + y - z) for y, z in corners]
        y, z = corners[int(np.argmin(value))]
        return (z - 0.5) ** 2 + 0.1 * x if y - z >= 0.2 - 1e-9 else np.inf

    assert pytest.approx(min(map(best, np.linspace(0, 1, 2001))), abs=1e-5) == found.F


def test_a_published_problem() -> None:
    # Calvete and Gale (1999), problem 1: F = -29.2 at x = (0, 0.9), y = (0, 0.6, 0.4).
    text = """upper { var a in [0, inf], b in [0, inf];
      minimize -8*a - 4*b + 4*p - 40*q - 4*r; }
    lower f { var p in [0, inf], q in [0, inf], r in [0, inf];
      minimize (a + b + 2*p - q + r + 1)/(2*a + p + q - 3*r + 6);
      subject to
        l: -p + q + r <= 1;
        m: 2*a - p + 2*q - 0.5*r <= 1;
        n: 2*b + 2*p - q - 0.5*r <= 1; }"""
    found = bl.solve(bl.parse(text), progress=False)
    assert found.certificate is not None
    assert found.certificate.kind == "global"
    assert pytest.approx(-29.2, abs=1e-6) == found.F
    assert pytest.approx((1.9 - 0.6 + 0.4) / (0.6 - 1.2 + 6), abs=1e-6) == found.f["f"]
