"""Variables that all best responses share."""

from __future__ import annotations

import pytest

import bilevelpy as bl
from bilevelpy.numerics.programs.follower import follower_program
from bilevelpy.numerics.programs.linearised import tangent_bound
from bilevelpy.reductions.rewriting.determined import determined
from bilevelpy.reductions.rows import system


def program(lower):
    model = f"model m; upper {{ var x in [0, 1]; minimize x; }} lower f {{ {lower} }}"
    rows = system(bl.parse(model).bound)
    return rows, follower_program(rows, 0, rows.columns.start).reduced()


def names(lower):
    rows, made = program(lower)
    return {rows.columns.names[j] for j in determined(made.objective, made.free)}


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("exp(a) + b", {"a"}),
        ("a^4 + b^2", {"a", "b"}),
        ("3 * (a^4 + 2 * exp(b))", {"a", "b"}),
        ("a^2 + b^2 - 2 * a * b", set()),
        ("a^2 + b^2 - a * b", {"a", "b"}),
        ("exp(a + b) + a^4", set()),
        ("abs(a) + b^4", {"b"}),
        ("a + x * b^4", set()),
        ("a + (x + 1) * b^4", {"b"}),
        ("exp(a) + a - exp(a) + b^4", {"b"}),
    ],
)
def test_determined(objective, expected):
    assert names(f"var a in [-3, 3], b in [-3, 3]; minimize {objective};") == expected


def test_the_tangent_bounds_a_convex_program():
    _, made = program(
        "var a in [0, 3], b in [0, 3]; minimize a^4 + exp(b); subject to r: a + b >= 1;"
    )
    best = made.solve()
    assert best.values is not None
    assert tangent_bound(made, best.values) == pytest.approx(best.objective, abs=1e-6)
    away = best.values.copy()
    away[made.free] = [1.0, 1.0]
    assert tangent_bound(made, away) < best.objective - 0.1
