"""The leader's objective made convex by the followers' conditions."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.reductions.linearization.convex_objective import convex_objective
from bilevelpy.reductions.optimality.conditions import KKT
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.rows import system

COURNOT = """
set F = 1..{n};
upper {{ var Q in [0, 20]; maximize (20 - Q - sum(firm.q[i] for i in F)) * Q - Q; }}
lower firm[i in F] nash {{
  var q in [0, 20]; maximize (20 - Q - sum(firm.q[j] for j in F)) * q - q;
}}
"""
STACKELBERG = """
upper { var x in [0, 10]; maximize x * (12 - 3 * x - 2 * y[1] - y[2]); }
lower r { var y[2] in [0, 5]; minimize y[1]^2 + 2 * y[2]^2 + x * (2 * y[1] + y[2]) - 9 * sum(y);
          subject to roof: y[1] + y[2] <= 6; }
"""


def conditions(text: str) -> KKT:
    return kkt(system(bl.parse(text).bound), optimistic=True)


def least(program: KKT) -> float:
    q = program.objective.quadratic[0].toarray()
    return float(np.linalg.eigvalsh(q)[0]) / float(np.abs(q).max())


@pytest.mark.parametrize("text", [COURNOT.format(n=2), COURNOT.format(n=3), STACKELBERG])
def test_it_is_convex_and_keeps_its_values(text: str) -> None:
    pytest.importorskip("pyscipopt")
    from bilevelpy.backends.exact.engine.outcome import Limits
    from bilevelpy.backends.exact.relaxations.relax import Relaxed

    program = conditions(text)
    found = convex_objective(program)
    assert least(program) < -0.1
    assert least(found) >= -1e-9
    columns, rng = program.columns, np.random.default_rng(0)
    for _ in range(8):
        upper = program.system.upper_columns
        fixed = {int(j): rng.uniform(columns.lower[j], columns.upper[j]) for j in upper}
        at = Relaxed(program, fixed).model(None).solve(Limits()).values
        assert at is not None
        assert found.objective.value(at)[0] == pytest.approx(
            program.objective.value(at)[0], abs=1e-4
        )


def test_a_convex_objective_stays() -> None:
    text = STACKELBERG.replace(
        "maximize x * (12 - 3 * x - 2 * y[1] - y[2])", "minimize (x - y[1])^2"
    )
    program = conditions(text)
    assert convex_objective(program) is program


@pytest.mark.parametrize("n", [1, 3, 6])
def test_games_are_solved_at_the_root(n: int) -> None:
    """A leader and n followers in Cournot competition: F = (a - c)^2 / (4 (n + 1)), here 361."""
    pytest.importorskip("pyscipopt")
    result = bl.solve(bl.parse(COURNOT.format(n=n)), backend="exact")
    assert result.success, result.message
    assert pytest.approx(361 / (4 * (n + 1)), rel=1e-6) == result.F
    assert result.iterations <= 20
