"""Checkpoints of backends that take a program as a whole: the best point, and going on from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.engine.scip import Model
from bilevelpy.backends.exact.run import Run
from bilevelpy.backends.whole import parts_of, start_from
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")

# A knapsack of the leader beside a follower that fills what is left; optimum by enumeration.
WEIGHT, WORTH = np.array([5, 4, 6, 3, 7.0]), np.array([8, 6, 9, 4, 11.0])
TEXT = """
param w[5], p[5];
upper {{ var z[5] in binary; maximize sum(p[i] * z[i] for i in 5) - {pull} * sum(y);
         subject to room: sum(w[i] * z[i] for i in 5) <= 14; }}
lower l {{ var y[5] in {domain}; maximize sum(p[i] * y[i] for i in 5);
           subject to left: sum(w[i] * y[i] for i in 5) <= 12; free[i in 5]: y[i] + z[i] <= 1; }}
"""


def model(domain: str = "[0, 1]") -> bl.Model:
    return bl.parse(TEXT.format(pull=3, domain=domain), w=WEIGHT, p=WORTH)


@pytest.mark.parametrize("domain", ["[0, 1]", "binary"])
def test_a_resumed_run_begins_with_the_best_point(domain: str, tmp_path: Path) -> None:
    whole = bl.solve(model(domain), backend="exact")
    assert whole.success, whole.message
    place = tmp_path / "run.ckpt"
    first = bl.solve(model(domain), backend="exact", checkpoint=place, callback=lambda state: True)
    assert first.status in ("interrupted", "converged")
    assert place.exists()
    seen: list[float] = []
    rest = bl.solve(
        model(domain), backend="exact", checkpoint=place, resume=True,
        callback=lambda state: seen.append(state.F),
    )  # fmt: skip
    assert rest.success, rest.message
    assert pytest.approx(whole.F, abs=1e-6) == rest.F
    assert not seen or seen[0] >= first.F - 1e-6, "what was known is not lost"
    assert len(rest.history) >= len(first.history)


def test_a_point_is_taken_apart_and_put_together() -> None:
    made = system(model().bound)
    v = np.arange(made.columns.count, dtype=float)
    x, y = parts_of(made.columns.blocks, v)
    found = start_from(made.columns.blocks, x, y)
    assert found["upper.z"].tolist() == [0, 1, 2, 3, 4]
    assert found["l.y"].tolist() == [5, 6, 7, 8, 9]


def test_the_best_point_is_kept_where_the_user_stops_a_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C comes as an exception where Python computes; inside SCIP it is a status."""

    def pressed(self: Run) -> None:
        v = self.system.columns.start.copy()
        self.state.keep(v, 0.0, {})
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_found", pressed)
    result = bl.solve(model("binary"), backend="exact")
    assert result.status == "interrupted"
    assert np.isfinite(result.F)


def test_a_point_is_taken_where_presolving_has_replaced_variables() -> None:
    """A solution of the presolved space cannot set what has become a sum of others."""
    text = """
    upper { var x in [0, 10]; minimize (x - 3)^2 + y[1]; }
    lower l { var y[3] in [0, 10]; minimize y[1]; subject to a: y[1] == x + y[2] - y[3];
              b: y[2] + y[3] == 2 * x; }
    """
    made = system(bl.parse(text).bound)
    scip = Model(made.columns)
    scip.rows(made.lower_rows)
    scip.minimize(made.objective)
    scip.scip.setParam("limits/nodes", 0)
    scip.scip.presolve()
    assert scip.offer(np.array([3.0, 0.0, 1.5, 4.5]))
