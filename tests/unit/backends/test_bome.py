"""BOME: a bounded direction, slow but right progress, and options."""

from __future__ import annotations

import pytest

from bilevelpy.backends.value_function.bome import BOME
from bilevelpy.errors import UsageError
from bilevelpy.numerics.driver.loop import run
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status
from tests.oracles import toy
from tests.unit.backends.helpers import relative_error


@pytest.mark.parametrize("barrier", ["gradient", "value"])
def test_it_approaches_the_solution_of_a_well_conditioned_toy(barrier: str) -> None:
    o = toy(2, n=5)
    options = {"barrier": barrier, "loop": "single", "stride": 50}
    settings = SolveOptions(max_iter=40, backend_options=options)
    found = run(o, BOME(), None, settings)
    assert relative_error(found.x, o.solution()[0]) < 5e-2
    assert found.status is Status.ITERATION_LIMIT
    assert found.counts["hvp"] == found.counts["jvp"] == 0


def test_a_start_at_a_lower_solution_is_no_end() -> None:
    o = toy(1, n=5)
    found = run(o, BOME(), None, SolveOptions(max_iter=100))
    assert relative_error(found.x, o.solution()[0]) < 1e-2


@pytest.mark.parametrize("kappa", [2, 100])
def test_the_penalty_brings_the_digits_that_the_loop_lacks(kappa: int) -> None:
    """Its weight begins with the last lambda of the loop."""
    o = toy(kappa, n=5)
    found = run(o, BOME(), None, SolveOptions(max_iter=1000))
    assert found.status is Status.CONVERGED
    assert relative_error(found.x, o.solution()[0]) < 1e-5


@pytest.mark.parametrize(
    "bad", [{"barrier": "log"}, {"loop": "twice"}, {"rate": 1.0}, {"decay": 2.0}]
)
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="bome"):
        BOME().options.from_mapping(bad, "bome")
