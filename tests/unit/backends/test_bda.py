"""BDA: the optimistic solution of the counter-example, and an honest bias elsewhere."""

from __future__ import annotations

import pytest

import bilevelpy as bl
from bilevelpy.backends.unrolled.bda import BDA
from bilevelpy.errors import UsageError
from bilevelpy.result import Status
from tests.oracles import toy
from tests.unit.backends.helpers import counter_example, relative_error, solve


def test_it_finds_the_optimistic_solution_of_a_merely_convex_lower_level() -> None:
    found = solve(BDA(), counter_example(), max_iter=60)
    assert found.x == pytest.approx([1.0], abs=1e-5)
    assert found.y == pytest.approx([1.0, 1.0], abs=1e-5)


def test_its_bias_is_told_and_refused_by_the_certificate() -> None:
    o = toy(2, n=5)
    found = solve(BDA(), o, lower_steps=50)
    assert relative_error(found.x, o.solution()[0]) < 2e-2
    assert found.status is Status.STALLED
    assert any("perturbed" in w for w in found.warnings)


@pytest.mark.parametrize("kappa", [2, 30])
def test_steps_grow_until_no_bias_is_left(kappa: int) -> None:
    o = toy(kappa, n=5)
    found = solve(BDA(), o)
    assert relative_error(found.x, o.solution()[0]) < 1e-5
    assert found.status is Status.CONVERGED
    assert not found.warnings


def test_badly_conditioned_lower_levels_are_refused() -> None:
    text = """
    model m; dim n = 2; param d[n];
    upper { var x[n]; minimize sum((y - 1)^2); }
    lower f { var y[n]; minimize sum(d*y^2)/2 - dot(x, y); }
    """
    for kappa, taken in ((100.0, True), (1000.0, False)):
        verdict = BDA().accepts(bl.analyze(bl.parse(text, data={"d": [1.0, kappa]})))
        assert bool(verdict) is taken
    assert "condition number of 100 (here 1e+03)" in verdict.reason


def test_more_steps_mean_less_bias() -> None:
    exact = toy(2, n=5).solution()[0]
    errors = [
        relative_error(solve(BDA(), toy(2, n=5), lower_steps=T).x, exact) for T in (25, 50, 100)
    ]
    assert errors[0] > 1.6 * errors[1] > 1.6**2 * errors[2]


@pytest.mark.parametrize("bad", [{"start": 0.0}, {"lower_steps": -1}, {"decay": -1.0}])
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="bda"):
        BDA().options.from_mapping(bad, "bda")
