"""Proofs that are given up, where another method goes on."""

import math

import pytest

from bilevelpy.backends.exact.engine.pace import Pace


@pytest.mark.parametrize(
    ("bounds", "objective", "hopeless"),
    [
        ([(2.0, -100.0), (4.0, -100.0)], -10.0, True),  # nothing moves
        ([(2.0, -100.0), (4.0, -60.0)], -10.0, False),  # 20 a second
        ([(2.0, -100.0), (4.0, -99.0)], -10.0, True),  # half of one a second, for ten seconds
        ([(2.0, -100.0), (2.5, -100.0)], -10.0, False),  # too early
        ([(2.0, -math.inf), (4.0, -math.inf)], -10.0, True),  # no bound at all
        ([(2.0, -math.inf), (4.0, -50.0)], -10.0, False),  # one that has just come
        ([(2.0, -100.0), (4.0, -100.0)], -98.0, False),  # a better point may close the gap
        ([(2.0, -100.0), (4.0, -100.0)], math.inf, False),  # nothing to compare with
        ([(4.0, -100.0)], -10.0, False),  # a single look shows no pace
    ],
)
def test_pace(bounds, objective, hopeless):
    pace = Pace()
    for seconds, bound in bounds:
        pace.see(seconds, bound)
    assert pace.is_hopeless(10.0, objective) is hopeless
