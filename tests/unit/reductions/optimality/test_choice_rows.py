"""Followers with a ranking of what is there, against all that they may do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.reductions.optimality.choice_rows import choice_rows
from bilevelpy.reductions.rows import System, system

MODEL = """
dim m;
param c[m], d[m], o[m];
upper { var x[m] in binary; minimize sum(o * x) + sum(d * y); }
lower f {
  var y[m] in integers(0, 2);
  minimize sum(c * y);
  subject to spread: sum(y) SIGN 2; there[j in m]: y[j] <= 3 * x[j];
}
"""


def made(sign: str, seed: int) -> tuple[System, np.ndarray]:
    rng = np.random.default_rng(seed)
    c = rng.integers(-2, 3, 4)
    data = {"c": c, "d": rng.integers(-5, 6, 4), "o": rng.integers(0, 4, 4)}
    return system(bl.parse(MODEL.replace("SIGN", sign), data=data).bound), c


@pytest.mark.parametrize("sign", ["==", "<="])
@pytest.mark.parametrize("seed", range(4))
def test_the_rows_are_the_best_responses(sign: str, seed: int) -> None:
    stated, c = made(sign, seed)
    found = choice_rows(stated)
    assert found is not None
    assert choice_rows(stated) is found
    assert found.complete
    ys = np.array(list(itertools.product(range(3), repeat=4)))
    for x in itertools.product((0, 1), repeat=4):
        mine = ys[(ys <= 3 * np.array(x)).all(axis=1)]
        total = mine.sum(axis=1)
        mine = mine[total == 2 if sign == "==" else total <= 2]
        for y in mine:
            off = found.rows.violation(np.concatenate([x, y]).astype(float)).max()
            assert (off <= 0.0) == (c @ y == (mine @ c).min())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x[m] in binary", "x[m] in [0, 1]"),  # a part of an alternative is there
        ("<= 3 * x[j]", "<= x[j]"),  # one alternative does not hold all
        ("sum(c * y)", "sum(c * x * y)"),  # the ranking moves
        ("in integers(0, 2)", "in integers(0, 1)"),
        ("there[j in m]:", "more: y[1] + y[2] <= 2; there[j in m]:"),
    ],
)
def test_other_followers_have_none(before: str, after: str) -> None:
    text = MODEL.replace("SIGN", "==").replace(before, after)
    data = {"c": np.arange(4), "d": np.ones(4), "o": np.ones(4)}
    assert choice_rows(system(bl.parse(text, data=data).bound)) is None
