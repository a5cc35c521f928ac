"""What solves of SCIP hand on: points within their ends, and the time that is left."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.engine.outcome import Limits, Outcome
from bilevelpy.backends.exact.relaxations import relax
from bilevelpy.backends.exact.relaxations.necessary import high_point
from bilevelpy.backends.exact.relaxations.relax import Relaxed
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")

ROOTS = """
upper { var x in [0, 4]; minimize (x - 2)^2 + y^4 * x; }
lower follow { var y in [0, inf]; minimize (y - x)^2; }
"""


def test_points_lie_within_their_ends() -> None:
    """A value of -1e-10 has no root."""
    program = high_point(system(bl.parse(ROOTS).bound))
    model = Relaxed(program).model(program.objective)
    model.scip = SimpleNamespace(getSolVal=lambda solution, variable: -1e-10)
    assert (model.point(None)[: program.system.columns.count] >= 0).all()


def test_a_confirmation_has_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had all of the time again: nothing was left for what comes after."""
    program = Relaxed(high_point(system(bl.parse(ROOTS).bound)))
    now, seen = [0.0], []

    def solve(self: object, limits: Limits, interlude: object = None) -> Outcome:
        now[0] += 7.0
        return Outcome("optimal", np.zeros(2), 0.0, 0.0, 1, 7.0)

    def nothing_below(self: object, found: Outcome, limits: Limits, sign: float) -> bool:
        seen.append(limits.seconds)
        return True

    monkeypatch.setattr(relax, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(relax.Model, "solve", solve)
    monkeypatch.setattr(Relaxed, "nothing_below", nothing_below)
    monkeypatch.setattr(Relaxed, "is_bounded", lambda self, sign: False)
    program.solve(replace(Limits(), seconds=10.0))
    assert seen == [3.0]


def test_powers_that_are_not_negative_bound_an_objective() -> None:
    program = Relaxed(high_point(system(bl.parse(ROOTS).bound)))
    assert program.is_bounded(1.0)
    assert not program.is_bounded(-1.0)
    assert math.isfinite(program.solve(Limits(10.0)).bound)
