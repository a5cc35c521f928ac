"""Units of columns and rows: what is the same problem in other units becomes the same program."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.reductions.rewriting.normalize import Units, normalize
from bilevelpy.reductions.rewriting.scales import column_scales, is_ordinary
from bilevelpy.reductions.rows import system

TEXT = """
upper {{ var x in [0, {b}]; maximize {p} * x - {q} * y; }}
lower r {{ var y in [0, {u}], z in [0, 9]; minimize {c} * y + 3 * z + z * z;
          subject to need: {a} * y + z >= {d} * x; roof: {a} * y <= 7; }}
"""
PLAIN = {"b": 8, "p": 3, "q": 2, "u": 6, "c": 2, "a": 1, "d": 1}


def in_units(x: float, y: float) -> str:
    """The same problem with ``x`` and ``y`` written in units that make their numbers so much
    larger.
    """
    values = dict(PLAIN)
    for name in ("p", "d"):
        values[name] /= x
    for name in ("q", "c", "a"):
        values[name] /= y
    values["b"] *= x
    values["u"] *= y
    return TEXT.format(**{k: repr(float(v)) for k, v in values.items()})


def made(text: str) -> Units:
    return normalize(system(bl.parse(text).bound))


def test_ordinary_models_are_left_alone() -> None:
    given = system(bl.parse(in_units(1, 1)).bound)
    assert is_ordinary(given)
    assert normalize(given).system is given


def test_the_leaders_objective_says_nothing_about_units() -> None:
    """Units of its coefficients would make the follower's objective flat."""
    given = system(bl.parse(in_units(1, 1).replace("maximize 3.0", "maximize 1e7")).bound)
    assert float(abs(given.objective.linear).max()) == 1e7
    assert normalize(given).system is given


@pytest.mark.parametrize(("x", "y"), [(1e4, 1), (1e-4, 1e4), (1e6, 1e-6)])
def test_units_are_found(x: float, y: float) -> None:
    found = column_scales(system(bl.parse(in_units(x, y)).bound))
    assert np.allclose(np.log10(found[:2]), np.log10([x, y]), atol=1.0)
    assert found[2] == 1.0


@pytest.mark.parametrize(("x", "y"), [(1e4, 1), (1e-4, 1e4), (1e6, 1e-6)])
def test_values_are_those_of_the_model(x: float, y: float) -> None:
    given = system(bl.parse(in_units(x, y)).bound)
    units = normalize(given)
    v = np.array([5.0 * x, 3.0 * y, 2.0])
    inside = v / units.columns
    assert np.allclose(units.given(inside), v)
    at = units.system
    assert np.allclose(units.lower_rows * at.lower_rows.functions.value(inside),
                       given.lower_rows.functions.value(v))  # fmt: skip
    assert np.allclose(units.lower * at.lower_objectives.value(inside),
                       given.lower_objectives.value(v))  # fmt: skip
    assert np.allclose(units.told().objective.value(inside), given.objective.value(v))
    assert np.abs(np.log10(np.abs(at.lower_rows.functions.linear.data))).max() < 1.5


def test_what_is_declared_together_gets_one_unit() -> None:
    text = """
    param a[4];
    upper { var x in [0, 1e5]; maximize x - sum(y); }
    lower r { var y[4] in [0, inf]; minimize sum(a[i] * y[i] for i in 4);
              subject to all: sum(y) >= x; }
    """
    given = system(bl.parse(text, a=[1e-4, 2e-4, 5e-4, 9e-4]).bound)
    assert len(set(column_scales(given)[1:].tolist())) == 1


def test_trees_are_read_in_the_new_units() -> None:
    text = """
    upper { var x in [0, 2e6]; minimize (x - 1e6)^2 * 1e-12 + y; }
    lower r { var y in [0, 5]; minimize exp(-1e-6 * x) * y^3 - y; }
    """
    given = system(bl.parse(text).bound)
    units = normalize(given)
    assert units.columns[0] > 1e3
    v = np.array([1.5e6, 0.7])
    inside = v / units.columns
    assert np.allclose(units.lower * units.system.lower_objectives.value(inside),
                       given.lower_objectives.value(v))  # fmt: skip


def test_whole_numbers_keep_their_unit() -> None:
    text = """
    upper { var n in integers(0, 20000); minimize (n - 7e3)^2 * 1e-6 + y; }
    lower r { var y in [0, 1e6]; minimize (y - 50 * n)^2 * 1e-9; }
    """
    found = made(text)
    assert found.columns[0] == 1.0
    assert found.columns[1] >= 100.0


def test_small_entries_of_a_kernel_are_no_units() -> None:
    """Products that fall to nothing beside their squares left a follower in units of 1e12, in which
    every response is stationary to the tolerance of an engine.
    """
    points = np.random.default_rng(0).normal(size=(12, 2)) * 2.0
    K = np.exp(-2.0 * ((points[:, None] - points) ** 2).sum(2))
    assert K.min() < 1e-12
    text = """
    dim n;
    param K[n, n], s[n];
    upper { var c in [-4, 4]; minimize sum((K @ (s * a) - s)^2); }
    lower svm {
      var a[n] in [0, inf];
      minimize a' @ K @ a / 2 + 0.01 * sumsq(a) - sum(a);
      subject to
        box[i in n]: a[i] <= exp(c);
        balance: dot(s, a) == 0;
    }
    """
    data = {"K": K, "s": np.where(np.arange(12) % 2, 1.0, -1.0)}
    model = bl.parse(text, data=data)
    units = normalize(system(model.bound))
    assert (units.columns == 1.0).all()
    assert (units.lower == 1.0).all()
    result = bl.solve(model, time_limit=30)
    assert result.certificate.lower_gap_relative < 1e-6
