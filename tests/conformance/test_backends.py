"""Every registered backend keeps the promises of the protocol, on every validation case that it
accepts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from bilevelpy import api, solving
from bilevelpy.backends import registry
from bilevelpy.backends.base import Accept
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.testing import CASES, check_backend


@pytest.mark.parametrize("name", registry.names())
def test_backend(name: str) -> None:
    report = check_backend(registry.get(name))
    assert report.solved
    assert len(report.solved) + len(report.rejected) == len(CASES)


def test_every_case_is_accepted_by_several_backends() -> None:
    def takers(text: str, data: object) -> Iterator[str]:
        facts = solving.structure(api.parse(text, data=data), 0)
        yield from (b.name for b in registry.all_backends() if b.accepts(facts))

    alone = [case.name for case in CASES if len(list(takers(case.text, dict(case.data)))) < 2]
    assert alone == ["semidefinite with a row"]


class Liar:
    """Calls its start a solution."""

    name = "liar"
    title = "Says converged at once"
    reference = ""
    options = registry.get("direct").options

    def accepts(self, structure):
        return Accept("everything")

    def cost(self, structure):
        return registry.get("direct").cost(structure)

    def init(self, oracle, x, y, options, rng):
        return x, y

    def step(self, oracle, state, options):
        return state

    def measure(self, oracle, state):
        x, y = state
        return Measure(x, y, oracle.F(x, y), oracle.f(x, y), 0.0, 0.0, 0.0, 0.0)


def test_a_backend_that_solves_nothing_fails() -> None:
    with pytest.raises(AssertionError, match="solves the model that it accepts"):
        check_backend(Liar(), models=CASES[:2])


class Rough(Liar):
    """The same, and content with errors of this size."""

    name = "rough"
    accuracy = 10.0


def test_a_method_may_say_how_accurate_it_is() -> None:
    assert check_backend(Rough(), models=CASES[:1]).solved == (CASES[0].name,)


class Drifting(Liar):
    """Differs from run to run."""

    name = "drifting"

    def init(self, oracle, x, y, options, rng):
        return x + torch.rand(x.shape, dtype=torch.float64), y


def test_a_backend_that_ignores_the_seed_fails() -> None:
    with pytest.raises(AssertionError, match="same seed"):
        check_backend(Drifting(), models=CASES[:1])


class Lost(Liar):
    """Ends without numbers where it is cut short."""

    name = "lost"

    def measure(self, oracle, state):
        x, y = state
        return Measure(x, y * math.nan, math.nan, math.nan, math.nan, math.nan)


def test_a_backend_that_keeps_no_point_fails() -> None:
    with pytest.raises(AssertionError, match="a point and an honest status at max_iter = 1"):
        check_backend(Lost(), models=CASES[:1])


def test_cases_have_finite_solutions() -> None:
    assert all(math.isfinite(c.F) for c in CASES)
