"""BAGDC: the reference trajectory, the counts of its toy runs, and honest ends."""

from __future__ import annotations

import pytest
import torch

from bilevelpy.backends.implicit.bagdc import BAGDC
from bilevelpy.errors import UsageError
from bilevelpy.numerics.driver.loop import run
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status
from tests.oracles import toy
from tests.unit.backends.helpers import relative_error, solve, to_goal, truth

PAPER = {"warm": False, "stride": 1}

# A = B = D = I, z0 = 1, start 2, v_0 = 0, beta = 0.2, alpha = 0.01, sequential: k -> (x, y).
LINE_SEARCH = {
    1: (1.97, 2.0),
    2: (1.94036, 1.994),
    10: (1.719646524840, 1.841198729625),
    100: (0.681807062647, 0.703063006349),
    1000: (0.500000000977, 0.500000001091),
}
CONSTANT = {
    1: (1.98, 2.0),
    2: (1.95522, 1.996),
    10: (1.736031604597, 1.856036359493),
    100: (0.680082072060, 0.701423181887),
    1000: (0.500000000765, 0.500000000856),
}


@pytest.mark.parametrize(
    ("dual", "trajectory"), [("line-search", LINE_SEARCH), ("constant", CONSTANT)]
)
def test_reference_trajectory(dual: str, trajectory: dict[int, tuple[float, float]]) -> None:
    seen = {}

    def note(state) -> None:
        seen[state.iteration] = (float(state.x[0]), float(state.y[0]))

    options = {**PAPER, "dual": dual, "dual_step": 0.5, "lower_step": 0.2, "upper_step": 0.01}
    settings = SolveOptions(tol=1e-15, max_iter=1000, backend_options=options)
    run(toy(1, n=3), BAGDC(), None, settings, callback=note)
    for k, (x, y) in trajectory.items():
        assert seen[k] == (pytest.approx(x, abs=1e-11), pytest.approx(y, abs=1e-11))


TABLE = [
    (2, {}, 1.0, 35, 2),
    (2, {"dual": "constant"}, 1.0, 66, 1),
    (2, {"dual": "constant", "order": "parallel"}, 1.0, 157, 1),
    (100, {}, 1.0, 1334, 2),
]


@pytest.mark.parametrize(("kappa", "options", "factor", "iterations", "products"), TABLE)
def test_counts_of_the_reference_table(kappa, options, factor, iterations, products) -> None:
    t = truth(toy(kappa))
    steps = {"upper_step": factor / t.L_phi, "lower_step": 2 / (t.L + t.mu)}
    found = to_goal(BAGDC(), kappa, **PAPER, **steps, **options)
    assert found.iterations == pytest.approx(iterations, rel=0.05)
    assert found.counts["grad_f"] == found.iterations
    assert found.counts["hvp"] == products * found.iterations


def test_a_constant_dual_step_diverges_at_the_step_that_the_line_search_bears() -> None:
    t = truth(toy(100))
    steps = {"upper_step": 1 / t.L_phi, "lower_step": 2 / (t.L + t.mu)}
    found = solve(BAGDC(), toy(100), dual="constant", **PAPER, **steps)
    assert found.status is Status.DIVERGED


@pytest.mark.parametrize("kappa", [1, 10, 100])
def test_defaults_solve_the_toy_without_any_step_size(kappa: float) -> None:
    o = toy(kappa, n=40)
    found = solve(BAGDC(), o)
    assert found.status is Status.CONVERGED
    assert relative_error(found.x, o.solution()[0]) < 1e-5


def test_the_fixed_point_satisfies_the_optimality_system() -> None:
    o = toy(10, n=20)
    backend = BAGDC()
    options = backend.options.from_mapping({}, "bagdc")
    state = backend.init(o, o.x0, o.y0, options, torch.Generator().manual_seed(0))
    for _ in range(40):
        state = backend.step(o, state, options)
    gF_x, gF_y = o.grad_F(state.x, state.y)
    assert o.grad_f(state.x, state.y).norm() < 1e-8
    assert (o.A @ state.u - gF_y).norm() < 1e-8
    assert (gF_x - o.C @ state.u).norm() < 1e-8


@pytest.mark.parametrize("bad", [{"order": "random"}, {"decay": 2.0}, {"stride": 0}])
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="bagdc"):
        BAGDC().options.from_mapping(bad, "bagdc")
