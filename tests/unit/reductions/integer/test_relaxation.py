"""Whole followers that are settled in real numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.reductions.integer.relaxation import in_real_numbers
from bilevelpy.reductions.rows import system

# Workers and jobs; the leader forbids some pairs and pays for what is done.
MODEL = """
dim man, job;
param worth[man, job], gain[man, job], budget;
upper {
  var x[man, job] in binary;
  minimize sum(gain * y) + sum(x) / 4;
  subject to few: sum(x) <= budget;
}
lower boss {
  var y[man, job] in binary;
  maximize sum(worth * y);
  subject to
    once[i in man]: sum(y[i, j] for j in job) <= 1;
    each[j in job]: sum(y[i, j] for i in man) <= 1;
    may[i in man, j in job]: y[i, j] <= 1 - x[i, j];
}
"""


def data(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "worth": rng.integers(1, 4, (2, 3)),
        "gain": rng.integers(-4, 5, (2, 3)),
        "budget": 2,
    }


def is_real(text: str) -> bool:
    return not in_real_numbers(system(bl.parse(text, data=data(0)).bound)).columns.integer[6:].any()


def test_assignments_are() -> None:
    assert is_real(MODEL)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("sum(x) <= budget;", "sum(x) <= budget; mine: sum(y) <= 1;"),  # her rows read responses
        ("<= 1 - x[i, j]", "<= 1 - 0.5 * x[i, j]"),  # ends are not whole
        ("x[man, job] in binary", "x[man, job] in [0, 1]"),
        ("sum(gain * y)", "sum(gain * y^2)"),  # inside of faces F may be less
        ("sum(worth * y)", "sum(worth * y) - sum(y^2) / 8"),
        ("once[i in man]:", "knapsack: sum(worth * y) <= 4; once[i in man]:"),
    ],
)
def test_others_are_not(before: str, after: str) -> None:
    assert before in MODEL
    assert not is_real(MODEL.replace(before, after))


@pytest.mark.parametrize("stance", ["optimistic", "pessimistic"])
@pytest.mark.parametrize("seed", range(2))
def test_answers_are_whole_and_the_best(seed: int, stance: str) -> None:
    pytest.importorskip("pyscipopt")
    given = data(seed)
    text = MODEL.replace("upper {", f"upper {stance} {{")
    result = bl.solve(bl.parse(text, data=given), backend="exact", time_limit=30)
    ys = np.array(list(itertools.product((0, 1), repeat=6))).reshape(-1, 2, 3)
    ys = ys[(ys.sum(axis=1) <= 1).all(axis=1) & (ys.sum(axis=2) <= 1).all(axis=1)]
    best = np.inf
    for x in forbidden():
        mine = ys[(ys <= 1 - x).all(axis=(1, 2))]
        f = (mine * given["worth"]).sum(axis=(1, 2))
        F = (mine * given["gain"]).sum(axis=(1, 2))[f == f.max()]
        best = min(best, (F.min() if stance == "optimistic" else F.max()) + x.sum() / 4)
    assert result.certificate.kind == "global"
    assert pytest.approx(best, abs=1e-6) == result.F
    assert set(np.unique(np.asarray(result["y"]))) <= {0.0, 1.0}


def forbidden() -> list[np.ndarray]:
    """All forbidden pairs, two at most."""
    xs = [np.array(x).reshape(2, 3) for x in itertools.product((0, 1), repeat=6)]
    return [x for x in xs if x.sum() <= 2]
