"""All quadratic followers at once: responses and derivatives against single solves, differences."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.numerics.followers.response import JointResponse, with_multipliers
from bilevelpy.numerics.programs.follower import follower_program
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.rows import System, system

TEXT = """
dim m; dim n; dim k; dim q = 3;
set I = 1..m;
param Q[I, n, n], c[I, n], A[I, k, n], b[I, k], B[I, n, q], t[I, n];
upper { var x[q] in [-5, 5]; minimize sum((f.y[i, j] - t[i, j])^2 for i in I, j in n) + sumsq(x); }
lower f[i in I] {
  var y[n] in [0, inf];
  minimize 0.5 * sum(Q[i, j, l] * y[j] * y[l] for j in n, l in n)
    + sum((c[i, j] + sum(B[i, j, p] * x[p] for p in q)) * y[j] for j in n);
  subject to
    cap[r in k]: sum(A[i, r, j] * y[j] for j in n) <= b[i, r] + x[1];
}
"""


def family(m: int = 6, n: int = 5, k: int = 2, seed: int = 0) -> bl.Model:
    rng = np.random.default_rng(seed)
    M = rng.standard_normal((m, n, n))
    return bl.parse(
        TEXT,
        m=m,
        n=n,
        k=k,
        Q=np.einsum("ijk,ilk->ijl", M, M) / n + 0.5 * np.eye(n),
        c=-3 * rng.random((m, n)),
        A=rng.random((m, k, n)),
        b=1 + rng.random((m, k)),
        B=rng.standard_normal((m, n, 3)),
        t=rng.random((m, n)),
    )


def rows(seed: int = 0) -> System:
    return system(family(seed=seed).bound)


def test_responses_are_those_of_single_followers() -> None:
    made = rows()
    v = made.columns.start.copy()
    v[:3] = [0.3, 0.7, -0.4]
    found = JointResponse(made).solve(v)
    assert found is not None
    below = made.lower_objectives.value(found.values)
    for j in range(len(made.followers)):
        assert below[j] == pytest.approx(follower_program(made, j, v).solve().objective, abs=1e-7)


def test_multipliers_bound_the_least_objectives() -> None:
    made = rows()
    joint = JointResponse(made)
    v = made.columns.start.copy()
    v[:3] = [0.3, 0.7, -0.4]
    found = joint.solve(v)
    assert found is not None
    below = made.lower_objectives.value(found.values)
    least = joint.least(found)
    assert (least <= below).all()
    assert below - least == pytest.approx(0, abs=1e-6)
    # A wrong point is found out.
    wrong = found.values.copy()
    wrong[3] += 0.1
    worse = type(found)(wrong, found.rows, found.bounds)
    assert made.lower_objectives.value(wrong)[0] - joint.least(worse)[0] > 1e-3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_kkt_adjoint_against_differences(seed: int) -> None:
    made = rows(seed)
    joint = JointResponse(made)
    v = made.columns.start.copy()
    v[:3] = np.random.default_rng(seed).uniform(-0.5, 0.5, 3)

    def value(at: np.ndarray) -> float:
        found = joint.solve(at)
        assert found is not None
        return float(made.objective.value(found.values)[0])

    found = joint.solve(v)
    assert found is not None
    slope = joint.gradient(made.objective, found)[0]
    for p in range(3):
        step = np.zeros(v.size)
        step[p] = 1e-5
        difference = (value(v + step) - value(v - step)) / 2e-5
        assert slope[p] == pytest.approx(difference, rel=1e-4, abs=1e-5)


def test_responses_meet_the_written_conditions() -> None:
    made = rows()
    v = made.columns.start.copy()
    v[:3] = [0.3, 0.7, -0.4]
    found = JointResponse(made).solve(v)
    assert found is not None
    program = kkt(made)
    full = with_multipliers(program, found)
    assert program.rows.violation(full).max() < 1e-6
    assert max(full[p.multiplier] * program.slack(p, full) for p in program.pairs) < 1e-6


def test_no_response_where_rows_contradict_each_other():
    """From a solution nearby, two rows at once left multipliers of 1e10 and a point of neither."""
    text = """
    upper { var x in [0, 10] start 1; minimize (x - 5)^2 + (2 * y + 1)^2; }
    lower fit {
      var y in [0, inf];
      minimize (y - 1)^2 - 1.5 * x * y;
      subject to
        a: -3 * x + y + 3 <= 0;
        b: x - 0.5 * y - 4 <= 0;
        c: x + y - 7 <= 0;
    }
    """
    joint = JointResponse(system(bl.parse(text).bound))
    for x, y in ((1.2, 0.6), (4.5, 2.5), (6.0, None), (7.0, None), (1.4, 1.2)):
        found = joint.solve(np.array([x, 0.0]))
        assert (found is None) == (y is None), x
        if found is not None:
            assert found.values[1] == pytest.approx(y)
