"""``nlp`` keeps responses that are confirmed, and none that time has cut off."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.nlp.backend import NLPOptions
from bilevelpy.backends.nlp.response import Responses
from bilevelpy.backends.nlp.search import Search
from bilevelpy.backends.whole import Hooks
from bilevelpy.numerics.programs.interior_point import InteriorPoint
from bilevelpy.options import SolveOptions
from bilevelpy.reductions.rows import system

pytest.importorskip("casadi")

# Two valleys: the deeper one is at y = 1 for x > 0.
TEXT = """
upper { var x in [0.2, 1] start 0.5; minimize x + y; }
lower f { var y in [-2, 2]; minimize (y^2 - 1)^2 - x * y; }
"""


def test_a_run_that_time_has_cut_off_is_no_response(monkeypatch: pytest.MonkeyPatch) -> None:
    program = system(bl.parse(TEXT).bound)
    responses = Responses.of(program, np.random.default_rng(0), convex=False)
    solve = InteriorPoint.solve
    v = np.array([0.5, -2.0])
    found = responses.solve(0, v)
    assert found is not None
    assert found[0][1] > 1.0

    def cut(self: InteriorPoint, start: np.ndarray, *args: object, **more: object) -> object:
        made = solve(self, start, *args, **more)  # type: ignore[arg-type]
        assert made is not None
        return replace(made, values=start, objective=9.0, converged=False)

    monkeypatch.setattr(InteriorPoint, "solve", cut)
    responses.deadline = time.perf_counter()
    assert responses.solve(0, v) is None


def test_responses_are_kept_where_nothing_is_better_from_elsewhere() -> None:
    """A response in the shallow valley would give F = -0.5 where the follower's gives 1.5."""
    bound = bl.parse(TEXT).bound
    search = Search(bound, SolveOptions(), NLPOptions(), True, Hooks())
    shallow = np.array([0.5, -0.93])
    search._keep_confirmed(shallow)
    assert search.best is None
    assert search.objective == math.inf
    answer = search.quick.all(shallow)
    assert answer is not None
    search._keep_confirmed(answer[0])
    assert search.best is not None
    assert search.best[1] > 1.0
