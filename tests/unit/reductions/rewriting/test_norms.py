"""Norms in conditions of optimality, against differences and what the text says of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.refusal import Refused
from bilevelpy.reductions.rewriting.norms import Norms, epigraphs, norm_parts
from bilevelpy.reductions.rows import system

FOLLOWER = """
upper {{ var x in [1, 2]; minimize x + sum(y); }}
lower f {{ var y[2] in [-3, 3]; minimize {f}; subject to r: y[1] + y[2] <= 1; assume convex; }}
"""


def _system(f: str) -> object:
    return system(bl.parse(FOLLOWER.format(f=f)).bound)


@pytest.mark.parametrize(
    ("f", "count"),
    [
        ("norm2([y[1] - x, 2 * y[2]])", 2),
        ("sqrt(y[1]^2 + 2 * y[1] * y[2] + 3 * y[2]^2)", 2),  # by factors of the form
        ("sqrt(1 + sumsq(y))", 3),
        ("x * norm2([x * y[1], y[2]])", 2),  # affine in y, not in both
        ("sqrt(y[1]^2 + 4 * y[1] * y[2] + y[2]^2 + 20)", None),  # indefinite
        ("norm2([y[1]^2, y[2]])", None),  # not affine
        ("-sqrt(y[1] + 4)", None),
    ],
)
def test_what_is_a_norm(f: str, count: int | None) -> None:
    made = _system(f)
    tree = made.lower_objectives.trees[0]
    own = set(made.lower_columns.tolist())
    found = [p for n in sc.postorder(tree) if (p := norm_parts(n, own)) is not None]
    if count is None:
        assert not found
        return
    assert [len(p) for p in found] == [count]
    rng = np.random.default_rng(0)
    root = next(n for n in sc.postorder(tree) if norm_parts(n, own) is not None)
    for _ in range(5):
        v = rng.uniform(-2, 2, made.columns.count)
        size = math.sqrt(sum(sc.evaluate(p, v) ** 2 for p in found[0]))
        assert sc.evaluate(root, v) == pytest.approx(size)


def test_the_gradient_with_unit_vectors_is_that_of_the_norm() -> None:
    made = _system("3 * norm2([y[1] - x, 2 * y[2]])^2 + x * norm2([x * y[1], y[2] - 1]) + y[1]")
    tree = made.lower_objectives.trees[0]
    norms = Norms(made, made.columns.count)
    slopes = norms.gradient(tree, 1, set(made.lower_columns.tolist()))
    rng = np.random.default_rng(1)
    for _ in range(5):
        v = rng.uniform(-2, 2, made.columns.count)
        full = np.concatenate([v, np.zeros(len(norms.names))])
        for norm in norms.made:
            parts = np.array([sc.evaluate(p, v) for p in norm.parts])
            full[norm.height] = np.linalg.norm(parts)
            full[list(norm.slope)] = parts / np.linalg.norm(parts)
        rows = norms.rows(full.size)
        assert rows.violation(full).max() < 1e-12
        for j in made.lower_columns:
            step = np.zeros(v.size)
            step[j] = 1e-6
            difference = (sc.evaluate(tree, v + step) - sc.evaluate(tree, v - step)) / 2e-6
            assert sc.evaluate(slopes[int(j)], full) == pytest.approx(difference, abs=1e-6)


def test_conditions_hold_where_a_norm_vanishes() -> None:
    # 0 is the response for every x in [1, 2]: the pull (1, 0.5) is shorter than any of these x.
    program = kkt(_system("x * norm2(y) - y[1] / 2 - y[2] / 2"), optimistic=True, norms=True)
    names = list(program.columns.names)
    v = np.zeros(program.columns.count)
    v[names.index("x")] = 1.0
    for name in ("slope.1.1", "slope.1.2"):
        v[names.index(name)] = 0.5
    assert program.rows.violation(v).max() < 1e-12
    assert set(program.kinds) == {"lower", "stationarity", "norm"}
    # The same pull with a shorter subgradient leaves something over.
    v[names.index("slope.1.1")] = 0.3
    assert program.rows.violation(v).max() == pytest.approx(0.2)


def test_a_norm_that_something_else_makes_good_is_refused() -> None:
    # Convex as a whole, but with two subgradients at 0 that need not be the same.
    made = _system("2 * norm2(y) - norm2([y[2], y[1]]) + sumsq(y)")
    with pytest.raises(Refused, match="need not grow"):
        kkt(made, optimistic=True, norms=True)
    assert kkt(made, optimistic=True, norms=True, force=True).kinds.count("norm") > 0


def test_heights_stand_for_norms_that_are_to_be_small() -> None:
    made = _system("2*norm2(y) + x*norm2([y[1] - 1, y[2]])^3 - norm2([y[1], y[2] - x])")
    tree = made.lower_objectives.trees[0]
    low, high = made.columns.lower, made.columns.upper
    inner, norms = epigraphs(tree, 1.0, low, high)
    assert len(norms) == 2  # not the one with the minus
    rng = np.random.default_rng(2)
    for _ in range(5):
        v = rng.uniform(low, high)
        heights = [math.hypot(*(sc.evaluate(p, v) for p in parts)) for parts in norms]
        assert sc.evaluate(inner, [*v, *heights]) == pytest.approx(sc.evaluate(tree, v))
    assert len(epigraphs(tree, -1.0, low, high)[1]) == 1
