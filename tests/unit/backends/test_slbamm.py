"""sl-BAMM: the reference trajectory on the merely convex counter-example, and its solution."""

from __future__ import annotations

import pytest

from bilevelpy.backends.implicit.slbamm import SLBAMM
from bilevelpy.errors import UsageError
from bilevelpy.numerics.driver.loop import run
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status
from tests.oracles import AutoOracle, merely_convex, toy, vec
from tests.unit.backends.helpers import counter_example, relative_error, solve


def test_reference_trajectory_of_the_single_loop() -> None:
    seen = {}

    def note(state) -> None:
        seen[state.iteration] = (float(state.x[0]), float(state.y[0]), float(state.y[1]))

    options = {"loop": "single", "lower_step": 0.1, "stride": 50}
    settings = SolveOptions(tol=1e-15, max_iter=60, backend_options=options)
    run(counter_example(), SLBAMM(), None, settings, callback=note)
    assert seen[2] == pytest.approx((0.302198, 0.693632, 0.264756), abs=2e-6)
    assert seen[20] == pytest.approx((0.923900, 0.957324, 0.920017), abs=2e-6)
    assert seen[60] == pytest.approx((0.998432, 0.999049, 0.998360), abs=2e-6)


def test_defaults_find_the_optimistic_solution_of_the_counter_example() -> None:
    found = solve(SLBAMM(), merely_convex(3))
    assert found.x == pytest.approx([1.0] * 3, abs=1e-6)
    assert found.y == pytest.approx([1.0] * 6, abs=1e-6)
    assert pytest.approx(0.0, abs=1e-10) == found.F


def test_a_solution_where_the_upper_gradient_does_not_vanish() -> None:
    """y2 is free: F picks y2 = (x + 4)/3; then Phi = (x-4)^2/3 + (x-1)^2/2 + x^2/10."""
    o = AutoOracle(
        lambda x, y: (
            0.5 * (x[0] - y[1]) ** 2 + 0.5 * (y[0] - 1) ** 2 + (y[1] - 2) ** 2 + 0.1 * x[0] ** 2
        ),
        lambda x, y: 0.5 * (y[0] - x[0]) ** 2,
        vec(0.0),
        vec(3.0, 5.0),
    )
    found = run(o, SLBAMM(), None, SolveOptions())
    # min_y2 gives (x-2)^2/3, so (2/3)(x-2) + (x-1) + x/5 = 0.
    assert found.x == pytest.approx([(4 / 3 + 1) / (2 / 3 + 1.2)], abs=1e-5)


@pytest.mark.parametrize("kappa", [1, 10])
def test_defaults_solve_the_strongly_convex_toy(kappa: float) -> None:
    o = toy(kappa, n=10)
    found = solve(SLBAMM(), o)
    assert found.status is Status.CONVERGED
    assert relative_error(found.x, o.solution()[0]) < 1e-5


@pytest.mark.parametrize("bad", [{"strategy": "s4"}, {"start": 1.5}, {"power": 0.5}])
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="slbamm"):
        SLBAMM().options.from_mapping(bad, "slbamm")
