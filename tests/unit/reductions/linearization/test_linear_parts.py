"""Products inside of the leader's functions made linear, and multipliers that followers share."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.reductions.linearization.linear_parts import linear_parts
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.optimality.shared_multipliers import with_shared_multipliers
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rewriting.separate import separate
from bilevelpy.reductions.rows import system

N, P, EPS = 8, 2, 0.3
# A classifier whose samples are moved by attackers in a box.
ATTACK = """
dim p = 2;
set N = 1..8;
param X[N, p], y[N];
upper {{
  var w[p] in [-2, 2], b in [-2, 2];
  minimize sum({loss} for i in N) / 8 + 0.01 * sum(w^2);
}}
lower att[i in N] {{
  var d[p] in [-0.3, 0.3];
  minimize y[i] * sum(w[j] * d[j] for j in p);
}}
"""
MARGIN = "1 - y[i] * (sum(w[j] * (X[i, j] + att.d[i, j]) for j in p) + b)"
SQUARED, HINGE = f"({MARGIN})^2", f"max(0, {MARGIN})"


def samples(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, P))
    return {"X": X, "y": np.sign(X @ rng.normal(size=P) + 0.3 * rng.normal(size=N))}


@pytest.mark.parametrize("loss", [SQUARED, HINGE])
def test_functions_agree_where_the_conditions_hold(loss: str) -> None:
    data = samples(0)
    given = separate(lift(system(bl.parse(ATTACK.format(loss=loss), data=data).bound)))
    program = kkt(given)
    made = linear_parts(program)
    shared = with_shared_multipliers(program)
    assert made.degree <= 2 < program.degree or loss == HINGE
    if loss == HINGE:
        assert made.rows.functions.degree == 1
    rng = np.random.default_rng(1)
    place = {name: j for j, name in enumerate(program.columns.names)}
    for _ in range(5):
        v = np.zeros(program.columns.count)
        w = rng.normal(size=P)
        v[place["w[1]"]], v[place["w[2]"]], v[place["b"]] = *w, rng.normal()
        for i in range(N):
            for j in range(P):
                slope = data["y"][i] * w[j]
                name = f"d[{i + 1},{j + 1}]"
                name = name if name in place else f"att.{name}"
                v[place[name]] = -EPS * np.sign(slope)
                v[place[f"mu.{name}.lower"]] = max(slope, 0.0)
                v[place[f"mu.{name}.upper"]] = max(-slope, 0.0)
        rows = [r for r, kind in enumerate(program.kinds) if kind == "stationarity"]
        assert float(program.rows.take(rows).violation(v).max()) < 1e-12
        assert np.allclose(made.objective.value(v), program.objective.value(v), atol=1e-10)
        assert np.allclose(
            made.rows.functions.value(v), program.rows.functions.value(v), atol=1e-10
        )
        extra = [r for r, kind in enumerate(shared.kinds) if kind == "shared"]
        assert len(extra) == 2 * P * (N - 1)
        assert float(shared.rows.take(extra).violation(v).max()) < 1e-12


@pytest.mark.parametrize("loss", [SQUARED, HINGE])
def test_attacked_classifiers_are_proved(loss: str) -> None:
    """Compared with a grid over w; over b the objective is searched by itself."""
    pytest.importorskip("pyscipopt")
    data = samples(2)
    result = bl.solve(bl.parse(ATTACK.format(loss=loss), data=data), backend="exact", time_limit=30)
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    w = np.stack(np.meshgrid(*[np.linspace(-2, 2, 81)] * P, indexing="ij"), -1).reshape(-1, P)
    base = 1 + EPS * np.abs(w).sum(1) - (data["X"] @ w.T * data["y"][:, None])
    best = np.inf
    for b in np.linspace(-2, 2, 401):
        rest = base - (data["y"] * b)[:, None]
        value = (rest**2 if loss == SQUARED else np.maximum(rest, 0)).mean(0)
        best = min(best, float((value + 0.01 * (w**2).sum(1)).min()))
    assert best - 0.02 < result.F < best + 1e-6


def test_a_least_revenue_from_tolls_is_a_linear_row() -> None:
    text = """
    upper { var t in [0, 10]; minimize y[1] + 0.1 * t; subject to rev: t * y[1] >= 6; }
    lower f { var y[2] in [0, inf]; minimize (1 + t) * y[1] + 5 * y[2];
              subject to need: y[1] + y[2] == 4; }
    """
    program = kkt(system(bl.parse(text).bound))
    made = linear_parts(program)
    assert program.rows.functions.degree == 2
    assert made.rows.functions.degree == 1
    pytest.importorskip("pyscipopt")
    result = bl.solve(bl.parse(text), backend="exact")
    # At t = 4 both are as cheap, and y[1] = 1.5 brings enough.
    assert result.success
    assert pytest.approx(1.9, abs=1e-6) == result.F
