"""MEHA: reference errors on the merely convex counter-example, and its penalised solutions."""

from __future__ import annotations

import pytest

import bilevelpy as bl
from bilevelpy.backends.value_function.meha import MEHA
from bilevelpy.errors import UsageError
from bilevelpy.numerics.driver.loop import run
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status
from tests.oracles import toy
from tests.unit.backends.helpers import counter_example, relative_error, solve


@pytest.mark.parametrize(("iterations", "error"), [(1000, 4.4e-2), (5000, 9.7e-7)])
def test_reference_errors_of_the_single_loop(iterations: int, error: float) -> None:
    steps = {"alpha": 0.1, "beta": 0.1, "eta": 0.1, "gamma": 10.0}
    options = {"loop": "single", "stride": 200, **steps}
    settings = SolveOptions(tol=1e-15, max_iter=iterations // 200, backend_options=options)
    found = run(counter_example(), MEHA(), None, settings)
    assert float((found.x - 1).norm()) == pytest.approx(error, rel=0.05)


def test_defaults_find_the_optimistic_solution() -> None:
    found = solve(MEHA(), counter_example())
    assert found.x == pytest.approx([1.0], abs=1e-5)
    assert found.y == pytest.approx([1.0, 1.0], abs=1e-5)


@pytest.mark.parametrize("kappa", [1, 4])
def test_defaults_solve_the_toy_without_products(kappa: float) -> None:
    o = toy(kappa, n=8)
    raw = run(o, MEHA(), None, SolveOptions())
    assert raw.counts["hvp"] == raw.counts["jvp"] == 0
    assert relative_error(raw.x, o.solution()[0]) < 1e-3
    assert solve(MEHA(), toy(kappa, n=8)).status is Status.CONVERGED


@pytest.mark.parametrize("bad", [{"power": 0.6}, {"c": 0.0}, {"loop": "triple"}])
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="meha"):
        MEHA().options.from_mapping(bad, "meha")


def test_squared_hinges_are_no_kinks() -> None:
    text = "model hinge; upper { var c in [0.1, 9] start 1; minimize (w - 0.5)^2; }"
    text += "lower fit { var w; minimize w^2 / 2 + c * relu(1 - w)^2 / 2; }"
    found = bl.solve(bl.parse(text), backend="meha")
    assert found.success
    assert found["c"] == pytest.approx(1.0, abs=1e-4)
