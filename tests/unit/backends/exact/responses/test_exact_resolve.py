"""Responses solved again: what tolerances of engines are worth where F is steep."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.responses.resolve import resolved
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")

STEEP = """
upper { var x in [0, 1]; minimize 1e6 * x * x - 1e6 * x * y + (x - 0.3)^2; }
lower f { %s }
"""
FOLLOWERS = {
    "quadratic": "var y in [0, 1]; minimize (y - x)^2;",
    "linear": "var y in [0, 1]; minimize y; subject to c: y >= x;",
    "mixed": "var y in [0, 1], z in binary; minimize z + 2 * y; subject to c: y + 3 * z >= x;",
}


@pytest.mark.parametrize("kind", FOLLOWERS)
def test_a_response_is_sharp_to_the_last_digits(kind: str) -> None:
    made = lift(system(bl.parse(STEEP % FOLLOWERS[kind]).bound))
    v = np.array([0.3, 0.3 + 2e-8, 0.0])[: made.columns.count]
    point, F = resolved(made, v)
    assert pytest.approx(0.3, abs=1e-13) == point[1]
    assert pytest.approx(0.0, abs=1e-6) == F


def test_of_responses_that_tie_the_given_one_stays() -> None:
    text = """
    upper { var x in [0, 1]; minimize -y[1]; }
    lower f { var y[2] in [0, 1]; minimize sum(y); subject to c: sum(y) >= x; }
    """
    made = lift(system(bl.parse(text).bound))
    v = np.array([0.5, 0.3, 0.2])
    assert (resolved(made, v)[0] == v).all()


def test_what_a_tolerance_is_worth_is_no_proof() -> None:
    """F is nowhere negative; with y below x by 1e-8 it is about -0.003."""
    model = bl.parse(STEEP % FOLLOWERS["quadratic"])
    result = bl.solve(model, backend="exact", time_limit=20, progress=False)
    assert result.certificate is not None
    assert result.certificate.kind != "global" or result.F > -1e-5
