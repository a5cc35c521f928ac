"""Ends of multipliers that nobody reads: some valid multipliers lie within them at every x."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import linprog

import bilevelpy as bl
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.optimality.multiplier_bounds import with_multiplier_bounds
from bilevelpy.reductions.rows import system

# One row for every hour ties the units together.
DISPATCH = """
dim g = 3, t = 2;
param c[g], D[t];
upper { var x[g] in binary; minimize sum(x) - q[1, 1]; }
lower disp {
  var q[g, t] in [0, inf], s[t] in [0, inf];
  minimize sum(c[i] * q[i, k] for i in g, k in t) + 20 * sum(s);
  subject to
    cap[i in g, k in t]: q[i, k] <= 1 + 4 * x[i];
    dem[k in t]: sum(q[i, k] for i in g) + s[k] == D[k];
}
"""
# Two rows, with entries of any size.
RESOURCES = """
dim n = 4;
param c[n], A[n], B[n];
upper { var x[2] in [0, 3]; minimize sum(x) - y[1]; }
lower f {
  var y[n] in [0, 2];
  maximize sum((c[j] - x[1]) * y[j] for j in n);
  subject to
    first: sum(A[j] * y[j] for j in n) <= 1 + x[1];
    second: sum(B[j] * y[j] for j in n) >= -1 - x[2];
}
"""
# A network: unimodular.
TRANSPORT = """
dim i = 2, j = 3;
param c[i, j], need[j];
upper { var x[i] in [2, 9]; minimize sum(x) - y[1, 1]; }
lower ship {
  var y[i, j] in [0, inf], z[j] in [0, inf];
  minimize sum((c[a, b] + x[1]) * y[a, b] for a in i, b in j) + 30 * sum(z);
  subject to
    stock[a in i]: sum(y[a, b] for b in j) <= x[a];
    meet[b in j]: sum(y[a, b] for a in i) + z[b] == need[b];
}
"""


def models(seed: int) -> list[bl.Model]:
    rng = np.random.default_rng(seed)
    return [
        bl.parse(DISPATCH, c=rng.uniform(1, 15, 3), D=rng.uniform(2, 12, 2)),
        bl.parse(RESOURCES, c=rng.normal(size=4), A=rng.uniform(0.2, 2, 4), B=rng.normal(size=4)),
        bl.parse(TRANSPORT, c=rng.uniform(1, 9, (2, 3)), need=rng.uniform(1, 4, 3)),
    ]


@pytest.mark.parametrize("seed", range(6))
def test_some_valid_multipliers_lie_within(seed: int) -> None:
    """At random x: an optimal y by linprog, and multipliers for it by another linear program."""
    rng = np.random.default_rng(seed)
    for model in models(seed):
        program = with_multiplier_bounds(kkt(system(model.bound)))
        s, columns, rows = program.system, program.columns, program.rows
        for p in (*program.pairs, *program.equations):
            assert math.isfinite(columns.upper[p.multiplier]), p.name
        for _ in range(4):
            x = s.upper_columns
            v = np.zeros(columns.count)
            v[x] = rng.uniform(columns.lower[x], columns.upper[x])
            if bool(columns.integer[x].any()):
                v[x] = np.round(v[x])
            y = s.lower_columns
            q = s.lower_objectives.quadratic.get(0)
            cost = s.lower_objectives.linear.toarray()[0, : s.columns.count]
            cost = (cost + (0.0 if q is None else q @ v[: s.columns.count]))[y]
            A = s.lower_rows.functions.linear.toarray()
            at = A @ v[: s.columns.count]
            A = A[:, y]
            stacked, ends = [A, -A], [s.lower_rows.upper - at, at - s.lower_rows.lower]
            keep = np.isfinite(np.concatenate(ends))
            found = linprog(
                cost,
                A_ub=np.vstack(stacked)[keep],
                b_ub=np.concatenate(ends)[keep],
                bounds=list(zip(columns.lower[y], columns.upper[y], strict=True)),
            )
            assert found.status == 0
            v[y] = found.x
            # Multipliers within their ends, 0 beside positive slacks.
            high = columns.upper.copy()
            for p in program.pairs:
                if program.slack(p, v) > 1e-7:
                    high[p.multiplier] = 0.0
            m = np.arange(s.columns.count, columns.count)
            chosen = [r for r, kind in enumerate(program.kinds) if kind == "stationarity"]
            # Products of x and y are none here: stationarity rows are linear in all columns.
            M = rows.functions.linear.toarray()[chosen]
            rest = rows.lower[chosen] - M @ v
            valid = linprog(
                np.zeros(m.size),
                A_eq=M[:, m],
                b_eq=rest,
                bounds=list(zip(columns.lower[m], high[m], strict=True)),
            )
            assert valid.status == 0, (model.name, v)


@pytest.mark.parametrize("seed", range(3))
def test_binary_capacities_are_solved_by_strong_duality(seed: int) -> None:
    """Compared with all choices, each answered by linprog."""
    pytest.importorskip("pyscipopt")
    rng = np.random.default_rng(seed)
    c, D = rng.uniform(1, 15, 3).round(2), rng.uniform(2, 12, 2).round(2)
    result = bl.solve(bl.parse(DISPATCH, c=c, D=D), backend="exact")
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    least = math.inf
    for x in itertools.product((0, 1), repeat=3):
        q = 0.0
        caps = 1 + 4 * np.array(x)
        cost = np.append(c, 20.0)
        bounds = [*((0, cap) for cap in caps), (0, None)]
        q = linprog(cost, A_eq=[[1, 1, 1, 1]], b_eq=[D[0]], bounds=bounds).x[0]
        least = min(least, sum(x) - q)
    assert pytest.approx(least, abs=1e-6) == result.F


def test_prices_that_a_leader_reads_keep_their_freedom() -> None:
    text = """
    upper { var x in binary; maximize dual(f.r) - x; }
    lower f { var y[2] in [0, inf]; minimize y[1] + 3 * y[2];
              subject to r: y[1] + y[2] >= 2; cap: y[1] <= 2 + x;
              assume dual(r) in [0, 50]; }
    """
    pytest.importorskip("pyscipopt")
    result = bl.solve(bl.parse(text), backend="exact")
    # At x = 0 the price may be anything from 1 to 3.
    assert pytest.approx(3.0, abs=1e-6) == result.F
