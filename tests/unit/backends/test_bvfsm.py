"""BVFSM: a lower level with many minimisers, and options."""

from __future__ import annotations

import math

import pytest
import torch

import bilevelpy as bl
from bilevelpy import analyze
from bilevelpy import parse as parse_model
from bilevelpy.backends.value_function.bvfsm import BVFSM
from bilevelpy.errors import UsageError
from bilevelpy.numerics.driver.loop import run
from bilevelpy.options import SolveOptions
from tests.oracles import AutoOracle, vec


def sine(n: int, a: float = 2.0) -> AutoOracle:
    """f = sum sin(x + y_i - c_i), F = (x - a)^2 + |y - a - c|^2: every y_i = c_i + C - x with
    ``C = -pi/2 + 2 pi k`` is a lower solution; the best k has C nearest to 2a.
    """
    c = 0.3 * torch.arange(n, dtype=torch.float64)
    return AutoOracle(
        lambda x, y: ((x - a) ** 2).sum() + ((y - a - c) ** 2).sum(),
        lambda x, y: torch.sin(x + y - c).sum(),
        vec(0.0),
        torch.zeros(n, dtype=torch.float64),
    )


def test_the_best_of_many_lower_solutions() -> None:
    """Two lower variables: x = (C - a + C) / 3 = 2.474926, F = 2 (C - 2a)^2 / 3 = 0.338332."""
    found = run(sine(2), BVFSM(), None, SolveOptions(max_iter=40))
    assert float(found.x[0]) == pytest.approx(2.474926, abs=2e-3)
    assert pytest.approx(0.338332, abs=1e-5) == found.F
    C = -math.pi / 2 + 2 * math.pi
    assert float(found.x[0] + found.y[0]) == pytest.approx(C, abs=1e-6)
    assert found.counts["hvp"] == found.counts["jvp"] == 0


def test_larger_lower_levels_are_refused() -> None:
    text = "model m; upper { var x; minimize x^2; } lower f { var y[11]; minimize sum((y - x)^2); }"
    verdict = BVFSM().accepts(analyze(parse_model(text)))
    assert not verdict
    assert "at most 10" in verdict.reason


@pytest.mark.parametrize("bad", [{"fall": 1.0}, {"barrier": 0.0}, {"starts": -1}])
def test_options_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="bvfsm"):
        BVFSM().options.from_mapping(bad, "bvfsm")


def test_leaders_that_are_linear_in_the_response() -> None:
    # F without curvature in y: the slack alone ended its descent, which had no scale.
    below = "lower l { var y; minimize (y - x)^2; }"
    model = bl.parse("upper { var x in [-1, 1]; minimize -x - 5 * y; } " + below)
    result = bl.solve(model, backend="bvfsm", progress=False)
    assert result.success
    assert pytest.approx(-6.0, rel=1e-6) == result.F
    free = bl.parse("upper { var x; maximize x + y; } " + below)
    assert bl.solve(free, backend="bvfsm", progress=False).status == "unbounded"
