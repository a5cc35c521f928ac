"""Runs that meet negative curvature of the lower level: they go on from a better response.

All lower levels look strongly convex where the analysis probes them, around the start; the leader
draws them to where they are not.
"""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends import registry

# y = 0 is the minimiser for x >= 3 and a saddle (a maximum) below, where |y| = sqrt(3 - x): a start
# at y = 0 stays there. min (x - 2.5)^2 + (3 - x)/10 at x = 2.55: F = 0.0475.
PITCHFORK = """
model pitchfork;
upper { var x start 9; minimize (x - 2.5)^2 + y^2/10; }
lower L { var y start 0; minimize (x - 3)*y^2/2 + y^4/4; }
"""
# The same in two variables that are coupled: f_yy at 0 is [[x, 2], [2, x]], indefinite for x < 2;
# there y1 = -y2 = +-sqrt(2 - x). min (x - 1.5)^2 + 2(2 - x)/10 at x = 1.6: F = 0.09.
SADDLE = """
model saddle;
dim n = 2;
upper { var x start 9; minimize (x - 1.5)^2 + sumsq(y)/10; }
lower L { var y[n] start 0; minimize x*sumsq(y)/2 + 2*y[1]*y[2] + sum(y^4)/4; }
"""
# The response jumps over the hill at 8, where the leader wants it: at x = 8 it has the choice
# between 8 - d and 8 + d, with d = (2d) exp(-d^2/2), d = sqrt(2 ln 2).
HILL = """
model hill;
upper { var x start 0; minimize (y - 8)^2 + 0.001*x^2; }
lower L { var y; minimize (y - x)^2/2 + 2*exp(-(y - 8)^2/2); }
"""


@pytest.fixture(autouse=True)
def without_the_global_solver(monkeypatch) -> None:
    """It is an extra, and takes seconds for each of these models."""
    known = [b for b in registry.all_backends() if b.name != "exact"]
    monkeypatch.setattr(registry, "all_backends", lambda: known)


@pytest.mark.parametrize(
    ("text", "F", "x"),
    [
        (PITCHFORK, 0.0475, 2.55),
        (SADDLE, 0.09, 1.6),
        (HILL, 2 * np.log(2) + 0.064, 8.0),
    ],
)
def test_a_run_that_meets_it_goes_on_from_a_better_response(text: str, F: float, x: float) -> None:
    model = bl.parse(text)
    facts = bl.analyze(model)
    assert facts.convexity.value == "strongly convex"  # as far as could be seen
    result = bl.solve(model, time_limit=120)
    assert (result.decision.chosen, result.status) == ("direct", "converged")
    assert float(result.F) == pytest.approx(F, rel=1e-3)
    assert float(result["x"]) == pytest.approx(x, rel=1e-3)
    # What was seen is not forgotten: another method follows where this one cannot.
    for note in result.decision.notes:
        assert note in result.warnings
        assert "`direct` met negative curvature of the lower level" in note
        assert "went on with `nlp`" in note


@pytest.mark.parametrize("text", [PITCHFORK, SADDLE])
def test_a_saddle_of_the_lower_level_is_left_by_the_backend_itself(text: str) -> None:
    result = bl.solve(bl.parse(text), backend="direct")
    assert result.success
    assert result.certificate is not None
    assert result.certificate.kind == "local"


def test_a_backend_that_was_asked_for_says_what_it_met() -> None:
    result = bl.solve(bl.parse(HILL), backend="direct")
    assert not result.success
    assert result.certificate is not None
    assert result.certificate.kind == "none"
