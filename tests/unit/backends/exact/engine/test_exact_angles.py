"""Hyperbolic and inverse tangents, which SCIP does not have."""

from __future__ import annotations

import math

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rewriting.intervals import tree_range

pytest.importorskip("pyscipopt")


@pytest.mark.parametrize(("name", "function"), [("tanh", np.tanh), ("atan", np.arctan)])
def test_models_of_one_level(name: str, function: np.ufunc) -> None:
    model = f"upper {{ var x in [-3, 3]; minimize x^2 / 3 + sin(2 * x) / 2 - {name}(3 * x - 1); }}"
    x = np.linspace(-3, 3, 600_001)
    least = (x**2 / 3 + np.sin(2 * x) / 2 - function(3 * x - 1)).min()
    result = bl.solve(bl.parse(model), backend="exact", time_limit=30)
    assert result.success
    assert pytest.approx(least, abs=1e-5) == result.F


@pytest.mark.parametrize(("name", "function"), [("tanh", np.tanh), ("atan", np.arctan)])
def test_followers_with_tangents(name: str, function: np.ufunc) -> None:
    model = f"""
    upper {{ var x in [-1, 1]; minimize (x - 0.4)^2 + y; }}
    lower f {{ var y in [-2, 2]; minimize (y - {name}(2 * x))^2; }}
    """
    x = np.linspace(-1, 1, 20_001)
    least = ((x - 0.4) ** 2 + function(2 * x)).min()
    result = bl.solve(bl.parse(model), backend="exact", time_limit=30)
    assert result.certificate.kind == "global"
    assert pytest.approx(least, abs=1e-5) == result.F


def test_angles_far_out() -> None:
    model = "upper { var x in [-1e4, 1e4]; minimize atan(x) + atan(atan(x)); }"
    result = bl.solve(bl.parse(model), backend="exact", time_limit=30)
    least = math.atan(-1e4) + math.atan(math.atan(-1e4))
    assert pytest.approx(least, abs=1e-5) == result.F


def test_ranges_of_tangents() -> None:
    low, high = np.array([-math.inf]), np.array([2.0])
    for name, ends in {
        "tanh": (-1.0, math.tanh(2.0)),
        "atan": (-0.5 * math.pi, math.atan(2.0)),
        "sin": (-1.0, 1.0),
    }.items():
        tree = sc.call(name, sc.Col(0))
        assert tree_range(tree, low, high)[id(tree)] == pytest.approx(ends)
