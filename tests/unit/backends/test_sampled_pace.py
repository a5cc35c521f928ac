"""Steps that are measured along a run: no solve, no units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy import solving
from bilevelpy.backends import registry
from bilevelpy.backends.stochastic.f2sa import PLAIN
from bilevelpy.backends.stochastic.pace import GROW, LowerPace, UpperPace
from bilevelpy.numerics.driver.loop import RunResult
from bilevelpy.numerics.driver.loop import run as drive
from bilevelpy.options import SolveOptions

# A factorisation of a matrix of which some entries are seen, those of half of the rows with noise;
# x weighs the rows. `a`, `b` and `c` are units of F, f and the factors.
FACTORS = """
model factors; dim n, m, s, t, k;
param i[s], j[s], r[s], iv[t], jv[t], rv[t], U0[n, k], V0[m, k], a, b, c;
upper {
  var x[n] in [-4, 4] start 0;
  minimize a * mean((sum(U[iv[e], q]/c * V[jv[e], q]/c for q in k) - rv[e])^2 for e in t);
}
lower fit {
  var U[n, k] start U0; var V[m, k] start V0;
  minimize b * mean(sigmoid(x[i[e]]) * (sum(U[i[e], q]/c * V[j[e], q]/c for q in k) - r[e])^2
                    for e in s) + b * 1e-3 * (sumsq(U/c) + sumsq(V/c));
}
"""
ROWS, COLUMNS, RANK = 20, 16, 2


def factors(a: float = 1.0, b: float = 1.0, c: float = 1.0) -> bl.Model:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((ROWS, RANK)) @ rng.standard_normal((RANK, COLUMNS))
    noisy = truth.copy()
    noisy[: ROWS // 2] += 3.0 * rng.standard_normal((ROWS // 2, COLUMNS))
    place = rng.permutation(ROWS * COLUMNS)
    rows, columns = place // COLUMNS + 1, place % COLUMNS + 1
    seen, held = slice(0, 256), slice(192, 320)
    return bl.parse(
        FACTORS,
        data={
            "i": rows[seen], "j": columns[seen], "r": noisy[rows[seen] - 1, columns[seen] - 1],
            "iv": rows[held], "jv": columns[held], "rv": truth[rows[held] - 1, columns[held] - 1],
            "U0": c * 0.5 * rng.standard_normal((ROWS, RANK)),
            "V0": c * 0.5 * rng.standard_normal((COLUMNS, RANK)),
            "a": a, "b": b, "c": c,
        },
    )  # fmt: skip


def run(model: bl.Model, name: str, steps: int, **options: object) -> RunResult:
    settings = SolveOptions(max_iter=steps, backend_options=options)
    return drive(solving.oracle(model), registry.get(name), None, settings)


def test_a_level_that_is_not_convex_is_followed_without_given_steps() -> None:
    """Rows with noise are told from the others, and F falls to a part of what it was."""
    found = run(factors(), "f2sa", 15, **PLAIN)
    first, last = found.history[0].F, found.history[-1].F
    assert last < 0.2 * first
    x = found.x.numpy()
    assert x[: ROWS // 2].mean() < x[ROWS // 2 :].mean() - 2.0
    assert found.counts["lower_solves"] == 0


@pytest.mark.parametrize("units", [(2.0**10, 1.0, 1.0), (1.0, 2.0**-8, 1.0), (1.0, 1.0, 2.0**6)])
def test_nothing_depends_on_units(units: tuple[float, float, float]) -> None:
    """Powers of two change no digit: the same x comes out."""
    plain, scaled = (run(model, "f2sa", 2, **PLAIN) for model in (factors(), factors(*units)))
    np.testing.assert_allclose(plain.x.numpy(), scaled.x.numpy(), rtol=1e-9, atol=1e-9)


def test_a_search_finds_the_step_of_a_quadratic() -> None:
    """``f = L y^2 / 2`` and c = 0.1: every step below 1.8 / L is accepted, none above."""
    pace, y = LowerPace(1e3), torch.tensor([1.0], dtype=torch.float64)
    pace.search([(lambda z: 5.0 * float(z @ z), y, 10.0 * y)])
    assert 0.7 * 0.18 <= pace.step <= 0.18
    before = pace.step
    pace.search([(lambda z: 5e-9 * float(z @ z), y, 1e-8 * y)])
    assert pace.step == pytest.approx(GROW * before)


def test_upper_steps_fall_with_the_hypergradient_and_not_with_its_smallness() -> None:
    """The largest mean square counts: moves go to 0 with h."""
    oracle = solving.oracle(factors())
    pace, x = UpperPace(10.0, 1), oracle.x0
    h = torch.ones_like(x)
    assert pace.length(oracle, x, torch.zeros_like(x)) == 0.0
    for _ in range(200):
        far = pace.length(oracle, x, h)
    for _ in range(200):
        near = pace.length(oracle, x, 1e-3 * h)
    assert near == pytest.approx(far, rel=0.1)
    assert far * float(torch.linalg.vector_norm(h)) == pytest.approx(0.2, rel=0.1)
