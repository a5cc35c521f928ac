"""BDA: the optimistic solution of the counter-example, and an honest bias elsewhere."""

from __future__ import annotations

import pytest
import torch

from bilevelpy.backends.bda import BDA
from bilevelpy.errors import UsageError
from bilevelpy.result import Status
from tests.oracles import Quadratic, toy, vec
from tests.unit.backends.helpers import relative_error, solve


def test_it_finds_the_optimistic_solution_of_a_merely_convex_lower_level() -> None:
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    o = Quadratic(
        torch.diag(vec(1.0, 0.0)),
        -torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        zero,
        torch.eye(2, dtype=torch.float64),
        one,
        -torch.tensor([[0.0, 1.0]], dtype=torch.float64),
        vec(-1.0, 0.0),
        vec(0.0),
        vec(0.01),
        vec(0.01, 0.01),
        offset=0.5,
    )
    found = solve(BDA(), o, max_iter=60)
    assert found.x == pytest.approx([1.0], abs=1e-5)
    assert found.y == pytest.approx([1.0, 1.0], abs=1e-5)


def test_its_bias_is_told_and_refused_by_the_certificate() -> None:
    o = toy(2, n=5)
    found = solve(BDA(), o)
    assert relative_error(found.x, o.solution()[0]) < 2e-2
    assert found.status is Status.STALLED
    assert any("perturbed" in w for w in found.warnings)


def test_more_steps_mean_less_bias() -> None:
    exact = toy(2, n=5).solution()[0]
    errors = [
        relative_error(solve(BDA(), toy(2, n=5), lower_steps=T).x, exact) for T in (25, 50, 100)
    ]
    assert errors[0] > 1.6 * errors[1] > 1.6**2 * errors[2]


@pytest.mark.parametrize("bad", [{"start": 0.0}, {"lower_steps": 0}, {"decay": -1.0}])
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="bda"):
        BDA().options.from_mapping(bad, "bda")
