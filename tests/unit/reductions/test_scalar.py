"""Scalar trees."""

import math

import pytest

from bilevelpy.reductions import scalar as sc


def test_the_slope_of_an_entropy_has_no_reciprocal():
    p = sc.Col(0)
    term = sc.mul(sc.Num(-2.0), sc.call("log", p), p)
    for slope in (sc.derivative(term, 0), sc.gradient(term, {0})[0]):
        assert "div" not in sc.functions(slope)
        assert sc.evaluate(slope, [0.3]) == pytest.approx(-2.0 * (1.0 + math.log(0.3)))
