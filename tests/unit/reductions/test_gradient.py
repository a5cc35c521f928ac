"""Gradients of scalar trees: the chain rule from the root down against that from the leaves up."""

import numpy as np
import pytest
from scipy.special import expit

from bilevelpy.reductions import scalar as sc

X, Y, Z = sc.Col(0), sc.Col(1), sc.Col(2)
INNER = sc.add(sc.mul(sc.Num(2.0), X), sc.mul(sc.Num(-1.0), Y), sc.Num(0.5))
TREES = [
    INNER,
    sc.mul(sc.Num(3.0), X, Y, sc.call("exp", X)),
    sc.call("log", sc.add(sc.ONE, sc.call("exp", INNER))),
    sc.div(sc.mul(X, Y), sc.add(sc.ONE, sc.power(INNER, sc.Num(2.0)))),
    sc.power(sc.add(sc.Num(3.0), X), Y),
    sc.add(*(sc.mul(sc.Num(k + 1.0), sc.call("tanh", INNER), X) for k in range(5))),
    sc.mul(sc.call("sin", sc.call("sqrt", sc.add(sc.power(X, sc.Num(2.0)), sc.ONE))), INNER),
]


@pytest.mark.parametrize("tree", TREES)
def test_both_ways_agree(tree):
    found = sc.gradient(tree, [0, 1, 2])
    for point in np.random.default_rng(0).uniform(0.1, 1.5, (5, 3)).tolist():
        for j in range(3):
            expected = sc.evaluate(sc.derivative(tree, j), point)
            value = sc.evaluate(found.get(j, sc.ZERO), point)
            assert value == pytest.approx(expected, rel=1e-12, abs=1e-14)
    assert 2 not in found


def test_only_what_is_wanted():
    assert set(sc.gradient(TREES[1], [1])) == {1}
    assert sc.gradient(sc.Num(2.0), [0]) == {}


def test_kinks_are_in_the_way_of_the_columns_below_them():
    found = sc.gradient(sc.add(sc.mul(X, X), sc.call("abs", sc.mul(Y, Z)), Z), [0, 1, 2])
    assert found[1] is None
    assert found[2] is None
    assert sc.evaluate(found[0], [3.0, 1.0, 1.0]) == 6.0


def test_what_a_shared_node_contributes_is_shared():
    # sum_i exp(z_i): every column gets the same exp(z_i), not a copy of its own.
    sums = [sc.add(sc.mul(sc.Num(i + 1.0), X), sc.mul(sc.Num(2.0), Y)) for i in range(3)]
    found = sc.gradient(sc.add(*(sc.call("exp", z) for z in sums)), [0, 1])
    exps = [{id(n) for n in sc.postorder(found[j]) if isinstance(n, sc.Call)
             and n.function == "exp"} for j in (0, 1)]  # fmt: skip
    assert exps[0] == exps[1]
    assert len(exps[0]) == 3


def test_large_exponents_have_values():
    """Of ``log(1 + exp(x))`` and ``1 / (1 + exp(-x))`` as other formats write them."""
    softplus = sc.call("log", sc.add(sc.ONE, sc.call("exp", X)))
    doubled = sc.call("log", sc.add(sc.ONE, sc.mul(sc.Num(2.0), sc.call("exp", X))))
    sigmoid = sc.div(sc.ONE, sc.add(sc.ONE, sc.call("exp", sc.mul(sc.Num(-1.0), X))))
    slope = sc.gradient(softplus, [0])[0]
    for x in (-1e4, -800.0, -1.0, 0.0, 1.0, 700.0, 708.9, 709.1, 800.0, 1e4, 1e300):
        assert sc.evaluate(softplus, [x]) == pytest.approx(np.logaddexp(0.0, x), rel=1e-15)
        assert sc.evaluate(doubled, [x]) == pytest.approx(np.logaddexp(0, x + np.log(2)), rel=1e-9)
        assert sc.evaluate(sigmoid, [x]) == pytest.approx(expit(x), rel=1e-12, abs=1e-307)
        assert sc.evaluate(slope, [x]) == pytest.approx(expit(x), rel=1e-12, abs=1e-307)


def test_entropy_has_its_limit_at_zero():
    entropy = sc.mul(X, sc.call("log", X))
    assert sc.evaluate(entropy, [0.0]) == 0.0
    assert sc.evaluate(sc.call("log", X), [0.0]) == -np.inf
    with pytest.raises(ValueError, match="domain"):
        sc.evaluate(entropy, [-1e-9])
