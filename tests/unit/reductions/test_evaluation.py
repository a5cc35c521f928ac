"""Values and gradients of trees against symbolic ones."""

from __future__ import annotations

import numpy as np
import pytest

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.evaluation import Evaluation

X = [sc.Col(j) for j in range(4)]


def linear(*weights: float) -> sc.Scalar:
    return sc.add(*(sc.mul(sc.Num(w), x) for w, x in zip(weights, X, strict=False)), sc.Num(0.5))


SHARED = linear(1.0, -2.0, 0.5)
TREES = {
    "linear": linear(1.0, 2.0, -3.0),
    "loss": sc.add(
        *(
            sc.call("log", sc.add(sc.ONE, sc.call("exp", linear(0.3 * k, -1.0, 0.2))))
            for k in range(5)
        )
    ),
    "shared": sc.mul(SHARED, sc.call("sin", SHARED), sc.add(SHARED, X[3])),
    "powers": sc.add(
        sc.power(X[0], sc.Num(3.0)), sc.power(sc.add(X[1], sc.Num(3.0)), X[2]), sc.div(X[3], X[0])
    ),
    "functions": sc.add(
        *(
            sc.call(f, sc.add(sc.mul(sc.Num(0.3), x), sc.Num(1.0)))
            for f, x in zip(
                ("sqrt", "cos", "tan", "atan", "sinh", "cosh", "tanh", "exp"), X + X, strict=True
            )
        )
    ),
    "column": X[2],
    "number": sc.Num(4.0),
}


@pytest.mark.parametrize("name", TREES)
def test_they_are_those_of_the_tree(name: str) -> None:
    tree, v = TREES[name], np.array([0.7, -0.4, 1.3, 0.2])
    made = Evaluation(tree, 5)
    point = np.append(v, 9.0)
    assert made.value(point) == pytest.approx(sc.evaluate(tree, v.tolist()), rel=1e-14)
    known = sc.gradient(tree, range(4))
    slopes = [known.get(j, sc.ZERO) for j in range(4)]
    expected = [sc.evaluate(s, v.tolist()) for s in slopes if s is not None]
    assert np.allclose(made.gradient(point), [*expected, 0.0], rtol=1e-12, atol=1e-14)
    assert not made.has_kinks(range(4))


def test_kinks_count_in_columns_that_move() -> None:
    tree = sc.add(sc.call("abs", X[0]), sc.call("exp", X[1]))
    made = Evaluation(tree, 2)
    assert made.has_kinks([0])
    assert not made.has_kinks([1])
    assert np.allclose(made.gradient(np.array([-2.0, 0.0])), [-1.0, 1.0])
    larger = Evaluation(sc.call("max", X[0], sc.mul(sc.Num(2.0), X[1])), 2)
    assert np.allclose(larger.gradient(np.array([1.0, 3.0])), [0.0, 2.0])


def test_chains_of_shared_sums_take_no_more_than_their_length() -> None:
    """Written out at every use, forty doublings would take 2^40 terms."""
    node = linear(1.0, 1.0)
    for _ in range(40):
        node = sc.Call("add", (node, node))
    made = Evaluation(sc.call("sin", sc.mul(sc.Num(2.0**-40), node)), 4)
    assert made.value(np.array([0.1, 0.2, 0.0, 0.0])) == pytest.approx(np.sin(0.8))


def test_large_exponents_have_their_logarithm() -> None:
    tree = sc.call("log", sc.add(sc.ONE, sc.call("exp", linear(1.0))))
    assert Evaluation(tree, 1).value(np.array([1000.0])) == pytest.approx(1000.5)
