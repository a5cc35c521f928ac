"""A fast part of the reproduced tables."""

from __future__ import annotations

import pytest

import bilevelpy as bl
from benchmarks.reproduce import methods, representation
from benchmarks.reproduce.runs import Measured, measure, verdict
from bilevelpy import solving
from tests.oracles import toy
from tests.unit.backends.helpers import truth


def test_losses_of_shallow_hyper_representation() -> None:
    """The published notebook starts at 508.6379; the exact unrolled hypergradient and the direct
    gradient alone have the losses of a re-run of its code after 10 steps.
    """
    o = solving.oracle(bl.parse(representation.MODEL, data=representation.data()))
    unrolled = representation.losses(o, "exact unrolled hypergradient", 10)
    direct = representation.losses(o, "direct gradient alone", 10)
    assert unrolled[0] == pytest.approx(508.6379, abs=1e-3)
    assert unrolled[10] == pytest.approx(9.326, abs=2e-3)
    assert direct[10] == pytest.approx(5.298, abs=2e-3)


def test_nbo_needs_fewer_lower_gradients_than_implicit_differentiation() -> None:
    t = truth(toy(10))
    aid = measure("aid", methods.aid("cg", 10, 10, True)(t), 10, 100)
    nbo = measure("nbo", methods.nbo(10, fresh=True)(t), 10, 100)
    assert aid.reached
    assert nbo.reached
    assert 8 * nbo.gradients < aid.gradients


QUICK = ("AID-BiO, T = Q = 10", "qNBO (SR1), T = 5, Q = 5, warm u", "BAGDC, constant eta")


@pytest.mark.parametrize("row", [r for r in methods.TABLE if r.title in QUICK], ids=QUICK)
def test_rows_of_the_table_agree_with_their_references(row: methods.Row) -> None:
    m = measure(row.backend, row.options(truth(toy(2))), 2, row.iterations)
    assert verdict(m, row.reference[2]) == "yes"


def test_a_run_that_misses_its_reference_is_marked() -> None:
    m = Measured(10, 100, 100, 0.0, [1e-9], [1e-9], [200])
    assert verdict(m, (20, 100, 100)) == "**no**"
    assert verdict(m, 0.3) == "**no**"
