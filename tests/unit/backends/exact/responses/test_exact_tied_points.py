"""Responses that tie: the relaxation must not lose the one that the leader prefers."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.engine.outcome import Limits
from bilevelpy.backends.exact.responses.cut import ROOM
from bilevelpy.backends.exact.responses.followers import Followers
from bilevelpy.reductions.rewriting.difference import difference
from bilevelpy.reductions.rewriting.fixing import polynomial
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rows import Functions, system
from bilevelpy.reductions.trees import tree_of

pytest.importorskip("pyscipopt")

# |t| / 2 - 2 t^2 with t = y[2] - 1 is largest at t = 1/8 and at t = -1/8; y[1] is 3.
TWO_TOPS = """
upper {
  var x in DOMAIN;
  maximize -(3 * x - 1)^2 + 1.5 * abs(y[1] / 2 - y[2] + 2) - 2 * (2 * y[1] - x / 2 - 3)^2 - 2 * x^2;
}
lower f {
  var y[2] in [-3, 3];
  maximize 0.5 * abs(y[2] - 1) - 1.5 * (0.5 - y[1] - 3 * x) - 2 * (y[2] - 1)^2;
}
"""


@pytest.mark.parametrize("domain", ["[-1e9, 1e9]", "[-inf, inf]"])
def test_the_top_that_the_leader_prefers(domain: str) -> None:
    x = np.linspace(-2, 3, 500001)
    F = -((3 * x - 1) ** 2) + 1.5 * (3.5 - 0.875) - 2 * (3 - x / 2) ** 2 - 2 * x**2
    result = bl.solve(bl.parse(TWO_TOPS.replace("DOMAIN", domain)), time_limit=30)
    assert result.success
    assert pytest.approx(F.max(), abs=1e-4) == result.F
    assert result["y"] == pytest.approx([3.0, 0.875], abs=1e-3)


def test_a_cut_has_room_for_what_its_response_gains_by_a_tolerance() -> None:
    text = """
    upper { var x in [0, 1]; minimize x; }
    lower f { var y in [-3, 3]; minimize 100 * y + x; }
    """
    stated = system(bl.parse(text).bound)
    run = Followers(stated, Limits)
    cut = run.cut(0, np.array([0.5, -3.0 - 1e-8]))
    assert cut.response[1] == -3.0
    assert cut.room == pytest.approx(100 * ROOM, rel=1e-6)


def test_differences_keep_what_differs() -> None:
    # What depends on x alone is in both and goes; e^x is no polynomial and goes too.
    text = """
    upper { var x in [-9, 9]; minimize y; }
    lower f { var y in [-3, 3]; minimize exp(x) + 7 * x^2 - 3 * x + x * y + abs(y - 1) - y; }
    """
    stated = system(bl.parse(text).bound)
    first = stated.lower_objectives.take([0])
    second = Functions(first.constant, first.linear, {}, {0: tree_of(first, 0)})
    gone = difference(first, second)
    assert polynomial(tree_of(gone, 0)) in ({}, {(): 0.0})
    lifted = lift(stated)
    made = difference(lifted.lower_objectives.take([0]), lifted.lower_objectives.take([0]))
    assert not made.reads(0)


def test_differences_have_the_values_of_both() -> None:
    text = """
    upper { var x in [-9, 9]; minimize a.y + b.y; }
    lower a { var y; minimize exp(x) * y^2 + 2 * (x * y - y) + sin(x); }
    lower b { var y; minimize exp(x) + y^2 + 2 * x * y + sin(x) - 4; }
    """
    stated = system(bl.parse(text).bound)
    one, two = (stated.lower_objectives.take([k]) for k in range(2))
    made = difference(one, two)
    rng = np.random.default_rng(1)
    for v in rng.normal(size=(5, 3)):
        assert made.value(v)[0] == pytest.approx(one.value(v)[0] - two.value(v)[0])
