"""Followers whose objective the leader multiplies by next to nothing are held to their response."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq

import bilevelpy as bl
from bilevelpy.backends.nlp.response import Responses
from bilevelpy.numerics.certificate.local import certify_local
from bilevelpy.numerics.certificate.local_probe import Probe
from bilevelpy.numerics.programs.follower import follower_program, gain
from bilevelpy.numerics.programs.linearised import confirmed_by_tangent
from bilevelpy.reductions.rows import system

MODEL = """upper { var lam in [-20, 0] start -1; minimize (y - 3)^2; }
lower fit { var y; minimize exp(lam) * (softplus(y) + softplus(-2 * y)); }"""


def _sigmoid(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z))


BEST = float(brentq(lambda y: _sigmoid(y) - 2.0 * _sigmoid(-2.0 * y), -5, 5))


@pytest.mark.parametrize("lam", [-15.0, -19.0])
@pytest.mark.parametrize("off", [0.003, 0.03])
def test_a_response_that_is_off_is_refuted_in_any_unit(lam: float, off: float) -> None:
    rows = system(bl.parse(MODEL).bound)
    v = np.array([lam, BEST + off])
    found = certify_local(rows, v, Probe(4, 0.0, None), convex=True)
    assert found.kind == "none"
    told = " ".join(found.reasons)
    assert "still falls" in told or "F changes from" in told
    assert found.lower_gap > 0.0
    assert certify_local(rows, np.array([lam, BEST]), Probe(4, 0.0, None), convex=True).kind == (
        "local"
    )


def test_what_a_follower_gains_is_measured_by_its_own_changes() -> None:
    rows = system(bl.parse(MODEL).bound)
    v, best = np.array([-18.0, BEST + 0.1]), np.array([-18.0, BEST])
    least = follower_program(rows, 0, best).value(best)
    assert gain(rows, 0, v, least) > 1e-4


def test_a_slope_of_a_small_objective_is_one() -> None:
    rows = system(bl.parse(MODEL).bound)
    v = np.array([-18.0, BEST + 0.003])
    assert confirmed_by_tangent(follower_program(rows, 0, v), v, 1e-7) is None


def test_responses_to_small_objectives_are_as_good_as_others() -> None:
    pytest.importorskip("casadi")
    rows = system(bl.parse(MODEL).bound)
    solver = Responses.of(rows, np.random.default_rng(0), convex=True)
    for lam in (-1.0, -19.0):
        found = solver.solve(0, np.array([lam, 2.0]))
        assert found is not None
        assert found[0][1] == pytest.approx(BEST, abs=1e-6)
