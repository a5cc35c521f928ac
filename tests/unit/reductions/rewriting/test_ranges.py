"""Ranges of trees against their values at sampled points."""

from __future__ import annotations

import numpy as np
import pytest

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rewriting.intervals import tree_range

INFINITE = float("inf")


@pytest.mark.parametrize(
    ("ends", "power", "expected"),
    [
        ((0.0, INFINITE), 4.0, (0.0, INFINITE)),
        ((-3.0, 2.0), 4.0, (0.0, 81.0)),
        ((-3.0, -2.0), 4.0, (16.0, 81.0)),
        ((-3.0, 2.0), 2.0, (0.0, INFINITE)),
        ((-3.0, 2.0), 3.0, (-27.0, 8.0)),
        ((-INFINITE, 2.0), 5.0, (-INFINITE, 32.0)),
        ((0.0, 9.0), 0.5, (0.0, 3.0)),
        ((0.0, 9.0), -1.0, (-INFINITE, INFINITE)),
        ((-1.0, 9.0), 0.5, (-INFINITE, INFINITE)),
        ((-1.0, 9.0), -2.0, (-INFINITE, INFINITE)),
        ((2.0, 4.0), -1.0, (0.25, 0.5)),
    ],
)
def test_ranges_of_powers(
    ends: tuple[float, float], power: float, expected: tuple[float, float]
) -> None:
    tree = sc.Call("pow", (sc.Col(0), sc.Num(power)))
    low, high = (np.array([end]) for end in ends)
    found = tree_range(tree, low, high)[id(tree)]
    assert found == pytest.approx(expected)
    sampled = np.linspace(max(ends[0], -50.0), min(ends[1], 50.0), 41)
    if expected[0] > -INFINITE or expected[1] < INFINITE:
        assert all(found[0] - 1e-9 <= float(v) ** power <= found[1] + 1e-9 for v in sampled)
