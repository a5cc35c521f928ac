"""Every registered backend keeps the promises of the protocol."""

from __future__ import annotations

import math

import pytest
import torch

from bilevelpy.backends import registry
from bilevelpy.backends.base import Accept
from bilevelpy.numerics.measure import Measure
from bilevelpy.testing import CASES, check_backend

# What the iterations of a method cost on the problems with curved or kinked responses.
LIMITS = {
    **{"bagdc": 60, "meha": 60, "bome": 60, "itd": 60, "pzobo": 15, "pbgd": 60, "bvfsm": 30},
    **{"lvhba": 50, "stocbio": 80, "pzobo_s": 80},
}
# Methods for lower levels with constraints solve others than the rest.
CONSTRAINED = ("blocc", "gaffa", "lvhba")
# Methods for one kind of problem.
FIRST = {"conic": "semidefinite with a row"}
# Seconds of a run where 3 are too many, or too few.
SECONDS = {"bome": 1.0, "bda": 1.0, "bvfsm": 5.0, "lvhba": 8.0}
# Methods that reach few digits: they solve something, not everything.
ROUGH = ("bome", "bda", "bvfsm")
# Stochastic methods whose variance does not vanish: errors fall like a root of the passes made.
NOISY = ("soba", "ma_soba", "fsla", "amigo_sgd", "stocbio", "nsbo", "f2sa", "fdehbo", "pzobo_s")
NOISE = 2e-2
# Their iterations are passes over the data: few of them, counted rather than timed.
SAMPLED = (*NOISY, "saba", "srba")


@pytest.mark.parametrize("name", registry.names())
def test_backend(name: str) -> None:
    backend = registry.get(name)
    report = check_backend(
        backend,
        max_iter=LIMITS.get(name, 40 if name in NOISY else 200),
        time_limit=SECONDS.get(name, 30.0 if name in SAMPLED else 3.0),
        noise=NOISE if name in (*NOISY, "lvhba") else 0.0,
    )
    if not hasattr(backend, "init") or name in ROUGH:
        return
    first = "coupled" if name in CONSTRAINED else FIRST.get(name, "quadratic")
    assert any(solved.startswith(first) for solved in report.solved)


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
    with pytest.raises(AssertionError, match="none was solved"):
        check_backend(Liar(), models=CASES[:2])


class Drifting(Liar):
    """Differs from run to run."""

    name = "drifting"

    def init(self, oracle, x, y, options, rng):
        return x + torch.rand(x.shape, dtype=torch.float64), y


def test_a_backend_that_ignores_the_seed_fails() -> None:
    with pytest.raises(AssertionError, match="same seed"):
        check_backend(Drifting(), models=CASES[:1])


def test_cases_have_finite_solutions() -> None:
    assert all(math.isfinite(c.F) for c in CASES)
