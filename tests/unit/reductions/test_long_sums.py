"""Sums and products of many parts are written out at once, and are what they were."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.polynomial import MANY, Form, hessians, plus, times, total

WIDTH = 4


def squares(count: int) -> list[Form]:
    """Tensors of two entries with constant, linear and quadratic parts."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        a, b = (
            Form(rng.normal(size=2), sp.csr_array(rng.normal(size=(2, WIDTH)))) for _ in range(2)
        )
        made.append(times(sp.eye_array(2, format="csr"), a, b))
    return made


def test_a_long_sum_is_the_sum_of_its_parts() -> None:
    forms = squares(MANY + 3)
    found, expected = total(forms), forms[0]
    for form in forms[1:]:
        expected = plus(expected, form)
    assert found.constant == pytest.approx(expected.constant)
    assert found.linear.toarray() == pytest.approx(expected.linear.toarray())
    for row, q in hessians(expected).items():
        assert hessians(found)[row].toarray() == pytest.approx(q.toarray())
    assert len(found.products) == 1


@pytest.mark.parametrize("join", [sc.add, sc.mul])
def test_what_reads_itself_twice_does_not_double(join) -> None:
    node = sc.call("sin", sc.Col(0))
    for _ in range(60):
        node = join(node, node)
    assert sum(len(n.arguments) for n in sc.postorder(node) if isinstance(n, sc.Call)) < 2000


def test_a_long_chain_keeps_its_value_and_its_slope() -> None:
    node = sc.Col(0)
    for _ in range(3 * sc.LONG):
        node = sc.mul(node, sc.Col(0))
    slope = sc.derivative(node, 0)
    assert slope is not None
    degree = 3 * sc.LONG + 1
    assert sc.evaluate(node, [0.999]) == pytest.approx(0.999**degree)
    assert sc.evaluate(slope, [0.999]) == pytest.approx(degree * 0.999 ** (degree - 1))
