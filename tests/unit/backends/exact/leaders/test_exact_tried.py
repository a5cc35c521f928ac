"""Leaders with few choices above whole followers: every x is tried where cuts do not end."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.engine.outcome import Limits
from bilevelpy.backends.exact.leaders.tried import best_of_tried, choices_to_try
from bilevelpy.backends.exact.responses.followers import Followers
from bilevelpy.backends.exact.responses.leader import leaders_best
from bilevelpy.backends.exact.responses.progress import Progress
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")

# An equation that moves with x: every cut has a way out at every other x.
EQUATION = """
dim n = 3;
param a[n], c[n], F[n], d[n];
upper {
  var x in integers(0, 12), u in integers(0, 4);
  minimize sum(F[i] * y[i] for i in n) + 0.5 * x - u;
  subject to suits: sum(d[i] * y[i] for i in n) >= -6;
}
lower f {
  var y[n] in integers(0, 5);
  minimize sum(c[i] * y[i] for i in n) + u * y[1];
  subject to
    all: sum(a[i] * y[i] for i in n) == x + 3;
    limit: y[1] + y[2] <= u + 2;
}
"""


def data(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "a": rng.integers(1, 5, 3).astype(float),
        "c": rng.integers(-5, 6, 3).astype(float),
        "F": rng.integers(-5, 6, 3).astype(float),
        "d": rng.integers(-3, 4, 3).astype(float),
    }


def least(a: np.ndarray, c: np.ndarray, F: np.ndarray, d: np.ndarray) -> float:
    """By enumeration of both levels."""
    Y = np.array(list(itertools.product(range(6), repeat=3)))
    best = np.inf
    for x, u in itertools.product(range(13), range(5)):
        able = Y[(Y @ a == x + 3) & (Y[:, 0] + Y[:, 1] <= u + 2)]
        if len(able):
            f = able @ c + u * able[:, 0]
            ties = able[f <= f.min() + 1e-9]
            ties = ties[ties @ d >= -6]
            best = min(best, float((ties @ F).min(initial=np.inf)) + 0.5 * x - u)
    return best


@pytest.mark.parametrize("seed", [1, 3])
def test_every_choice_of_the_leader_is_tried(seed: int) -> None:
    given = data(seed)
    result = bl.solve(bl.parse(EQUATION, data=given), time_limit=30, progress=False)
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    assert pytest.approx(least(**given), abs=1e-6) == result.F


def test_without_time_there_is_no_bound() -> None:
    program = system(bl.parse(EQUATION, data=data(3)).bound)
    points = choices_to_try(program)
    assert points is not None
    assert len(points) == 65
    state = Progress()
    found = best_of_tried(program, points, lambda: Limits(seconds=0.01), state)
    assert found.status == "time_limit"
    assert found.bound == -np.inf
    found = best_of_tried(program, points, Limits, state)
    assert found.status == "optimal"
    assert pytest.approx(least(**data(3)), abs=1e-6) == found.objective


def test_what_is_left_has_a_bound_where_a_run_stops() -> None:
    """Whoever watches is content with the first point."""
    program = system(bl.parse(EQUATION, data=data(1)).bound)
    points = choices_to_try(program)
    assert points is not None
    state = Progress(watch=lambda values, objective, bound: True)
    found = best_of_tried(program, points, Limits, state)
    assert found.status == "time_limit"
    assert -np.inf < found.bound <= least(**data(1)) + 1e-6
    assert least(**data(1)) - 1e-6 <= found.objective


def test_flat_followers_are_not_told_by_value() -> None:
    text = """
    upper { var x in binary; minimize y + x; }
    lower f { var y in [0, 3], z in binary; minimize (y - x)^2 * (1 + z); }
    """
    assert choices_to_try(system(bl.parse(text).bound)) is None


def test_the_leaders_best_is_looked_for_below_a_value_only() -> None:
    """Both responses are best ones, worth -2 to the leader at best."""
    text = """
    upper { var x in binary; minimize x - 2 * y; }
    lower f { var y in binary; minimize 0 * y; }
    """
    made = system(bl.parse(text).bound)
    run = Followers(made, lambda: Limits(10.0, feasible=1e-8))
    v = np.zeros(2)
    for below, status in ((-1.5, "optimal"), (-2.5, "infeasible"), (np.inf, "optimal")):
        found = leaders_best(run, v, {0: 0.0}, below=below)
        assert found.status == status
        assert found.values is None or found.objective == pytest.approx(-2.0)
