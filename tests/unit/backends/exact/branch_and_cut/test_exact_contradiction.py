"""Bounds of relaxations that cannot all be true prove nothing."""

from __future__ import annotations

import math

import numpy as np

import bilevelpy as bl
from bilevelpy.backends.exact.responses.progress import Progress, contradicts

# Outrata (1993), example 3.2: F* = 3.2077 at x = 4.06. x has no bound above; SCIP has been seen to
# cut the optimum off with cuts that hold there.
OUTRATA = """
set T = 1..2;
upper { var x start 0; minimize 0.5 * (y[1] - 3)^2 + 0.5 * (y[2] - 4)^2; subject to up: x >= 0; }
lower follower {
  var y[T] start 0;
  minimize -x*y[2] + y[1]^2 * (0.1*x + 0.5) - y[1] * (1.333*x + 3) + y[2]^2 * (0.05*x + 0.5);
  subject to
    a: 0.1*x - 0.333*y[1] + y[2] <= 1;
    b: y[1]^2 + y[2]^2 - 0.1*x <= 9;
    c: y[1] >= 0;
    d: y[2] >= 0;
}
"""


def test_a_bound_that_falls_or_lies_above_a_point_is_a_contradiction() -> None:
    state = Progress()
    assert not contradicts(1.0, -math.inf, state)
    assert not contradicts(2.0, 1.0, state)
    assert contradicts(1.5, 2.0, state)
    assert state.why is not None
    assert "contradicts itself" in state.why
    state = Progress()
    state.keep(np.zeros(1), 3.0, {})
    assert not contradicts(3.0 + 1e-6, 1.0, state)
    assert contradicts(3.5, 1.0, state)


def test_outrata_is_never_proved_elsewhere() -> None:
    r = bl.solve(bl.parse(OUTRATA), time_limit=20, progress=False)
    assert r.certificate is not None
    assert r.certificate.kind != "global" or abs(r.F - 3.2077) < 1e-3
