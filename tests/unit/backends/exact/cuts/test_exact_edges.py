"""Edges of cuts: responses that break a row by nothing, and responses that move with x."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.cuts.closure import is_affine
from bilevelpy.backends.exact.cuts.moving import moving
from bilevelpy.backends.exact.engine.outcome import Limits, Outcome
from bilevelpy.backends.exact.engine.scip import Model
from bilevelpy.backends.exact.responses.followers import Followers
from bilevelpy.reductions.rewriting.fixing import placed
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")

# Every x but 0 would let the follower out of the response (0, 1), and no response is left there.
NOTHING_BEHIND = """
upper {
  var x[2] in [0, 3];
  maximize x[1] * y[1] - x[2] * y[2] + 3 * y[1] + 2 * y[2];
}
lower f {
  var y[2] in binary;
  minimize 2 * y[1] + 5 * y[2] + x[1] * y[1] - x[2] * y[2];
  subject to
    a: y[2] - x[2] >= 1;
    b: 2 * x[1] - y[1] - y[2] >= 0;
}
"""

# At x = 1/2 the response (-1, 0, 1) is feasible, and below it y = (2, 0, 2) is not.
NO_WAY_ACROSS = """
upper { var x in [0, 2]; maximize x * a + 3 * a - 2 * b; }
lower f {
  var a in integers(-1, 2);
  var b in binary;
  var c in integers(0, 4);
  minimize 2 * a + 3 * b - 6 * c + x * a;
  subject to
    room: -a - b + 3 * c - 2 * x <= 3;
}
"""

# The response is a vertex that moves with x.
MOVING = """
upper { var x in [0, 1]; minimize -100 * x * n + 2 * n - 3 * z[2] + 2 * x; }
lower f {
  var n in integers(0, 3);
  var z[3] in [-2, 4];
  maximize -n - 5 * z[1] - z[2] + 6 * z[3] - x * n;
  subject to
    a: 3 * z[1] + z[3] - 2 * x >= 2.5;
    b: 3 * n + 3 * z[1] + z[2] + 2 * z[3] - x <= 4;
    c: 0 <= z[3] <= 2;
    d: z[1] >= 0;
}
"""


# At x[2] = 4 a row and a bound hold the response: along the row it leaves the bound at once.
TWO_HOLDS = """
upper { var x[2] in [0, 4]; minimize -x[1] * y - x[2] * n; subject to a: x[1] <= 2; }
lower f {
  var y in [0, 3];
  var n in binary;
  maximize -3 * n - x[1] * y + x[2] * n;
  subject to
    b: 2 * y + 2 * n - x[2] >= -2;
}
"""

# The optimum is a tie of both parts, at x = (0, 3): the terms of the second are 0 there.
TIE_OF_NOTHING = """
upper { var x[2] in [0, 4]; maximize x[1] * b + x[2] * a + 3 * a + 2 * b + 2 * x[2]; }
lower f {
  var a in binary;
  var b in binary;
  maximize 3 * a - x[1] * b - x[2] * a;
  subject to
    c: b - x[2] <= 2;
    d: a - 2 * x[1] <= 6;
}
"""

# The tie at x = 0 ends beside it: the row lets no other whole numbers in from any x > 0 on.
TIE_AT_A_BOUND = """
upper { var x in [0, 1.5]; minimize -x * a + 3 * d; }
lower f {
  var a in integers(0, 4);
  var c in integers(-1, 3);
  var d in integers(-1, 2);
  minimize -6 * a + 6 * c - 6 * d + x * a;
  subject to
    r: 3 * a + 3 * c + x >= 2;
    s: -a + c - d - 2 * x >= -1;
}
"""

# From x[1] = 2 on (0, 1, 1) breaks its row; (0, 1, 0) is better there, and nothing breaks it.
NO_WAY_BEHIND = """
upper {
  var x[2] in [0, 3];
  maximize 2 * x[1] * y[2] + x[1] * y[3] + x[2] * y[1] + x[2] * y[3] - 0.03 * y[2];
  subject to
    a: 2 * x[1] + x[2] - y[2] <= 5;
    b: x[2] <= 1;
}
lower f {
  var y[3] in binary;
  maximize 5 * y[2] + 2 * y[3] - 2 * x[1] * y[2] - x[1] * y[3] - x[2] * y[1] + x[2] * y[3];
  subject to
    c: -y[1] + 2 * y[3] + 2 * x[1] <= 6;
}
"""

# At x = 1/2 the terms of f cancel at y = 1, which ties with y = 0: their size is that of f.
TERMS_THAT_CANCEL = """
upper { var x in [-1, 1]; maximize y * (5 + 2 * x); }
lower f { var y in [0, 1]; minimize -4 * y^3 + 3 * y + 2 * x * y; }
"""


@pytest.mark.parametrize(
    ("text", "F"),
    [
        (TERMS_THAT_CANCEL, 6.0),
        (NO_WAY_BEHIND, 6.97),
        (NOTHING_BEHIND, 2.0),
        (NO_WAY_ACROSS, 4.0),
        (MOVING, 6.0),
        (TWO_HOLDS, -4.0),
        (TIE_OF_NOTHING, 14.0),
        (TIE_AT_A_BOUND, -3.0),
    ],
)
def test_values_behind_edges_are_proved(text: str, F: float) -> None:
    result = bl.solve(bl.parse(text), backend="exact", time_limit=20, progress=False)
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    assert pytest.approx(F, abs=1e-4) == result.F


def test_a_value_that_no_point_attains_is_not_called_attained() -> None:
    # Below y = 4 there is a response at x = 0 only: F comes as near to 4 as one likes.
    text = """
    upper { var x in [0, 1]; maximize y - x; }
    lower f { var y in integers(0, 5); minimize y; subject to a: y - x >= 3; }
    """
    began = time.perf_counter()
    result = bl.solve(bl.parse(text), backend="exact", time_limit=60, progress=False)
    assert time.perf_counter() - began < 30.0
    assert result.status == "stalled"
    assert "without being attained" in result.message
    assert pytest.approx(4.0, abs=1e-4) == result.F


def test_a_moving_response_is_the_best_one_beside_x() -> None:
    stated = lift(system(bl.parse(MOVING).bound))
    run = Followers(stated, Limits)
    at = np.zeros(stated.columns.count)
    x = stated.upper_columns[0]
    at[x] = 0.5
    best = run.solve(0, at).values
    assert best is not None
    cut = moving(run, run.cut(0, best[: at.size]))
    assert cut is not None
    assert cut.slopes is not None
    own = stated.columns.owner == 1
    there = placed(stated.lower_objectives, own, cut.response, cut.slopes)
    for value in (0.1, 0.9):
        at[x] = value
        answer = run.solve(0, at)
        assert answer.objective == pytest.approx(float(there.value(at)[0]), abs=1e-6)


def test_the_same_moving_response_is_one_cut() -> None:
    stated = lift(system(bl.parse(MOVING).bound))
    run = Followers(stated, Limits)
    made = []
    for value in (0.2, 0.8):
        at = np.zeros(stated.columns.count)
        at[stated.upper_columns[0]] = value
        best = run.solve(0, at).values
        assert best is not None
        made.append(moving(run, run.cut(0, best[: at.size])))
    first, second = made
    assert first is not None
    assert second is not None
    assert first.is_same(second, run.decided(0), 1e-9)


def test_what_is_affine_in_real_numbers() -> None:
    text = """
    upper { var x in [0, 3]; var n in integers(0, 3); minimize x; subject to
      a: x * n <= 2; b: x^2 <= 4; c: n^2 <= 4; d: exp(x) <= 9; e: x + n <= 5; }
    lower f { var y in [0, 1]; minimize y; }
    """
    stated = system(bl.parse(text).bound)
    rows = stated.upper_rows
    found = {
        name: is_affine(stated.columns, rows.functions, r) for r, name in enumerate(rows.names)
    }
    assert found == {"a": True, "b": False, "c": True, "d": False, "e": True}


def test_infeasible_is_said_only_where_there_is_no_point_without_an_objective(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # SCIP 10.0 has called problems infeasible for the kinks of their objectives.
    true, count = Model.solve, itertools.count()

    def wrong(self: Model, *args: Any, **more: Any) -> Outcome:
        found = true(self, *args, **more)
        lost = replace(found, status="infeasible", values=None, objective=math.inf, bound=math.inf)
        return found if next(count) else lost

    monkeypatch.setattr(Model, "solve", wrong)
    text = """
    upper { var x in [0, 2]; minimize huber(y - 1) + exp(x); }
    lower f { var y in [0, 5]; minimize (y - x)^2; }
    """
    result = bl.solve(bl.parse(text), backend="exact", time_limit=1)
    # Points beside x may have been compared by then: a proof is not what they are.
    assert result.status in (bl.Status.STALLED, bl.Status.CONVERGED)
    assert result.certificate is not None
    assert result.certificate.kind != "global"
    assert math.isfinite(result.F)
