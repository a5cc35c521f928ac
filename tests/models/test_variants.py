"""The application models with other data: budgets, numbers of sites, knock-outs, prices."""

from __future__ import annotations

from typing import Any

import pytest

import bilevelpy as bl
from tests.models.catalogue import PATHS
from tests.reference import applications

pytest.importorskip("pyscipopt")


@pytest.mark.parametrize(
    ("name", "data", "reference", "known"),
    [
        ("shortest_path_interdiction", {"budget": 0}, "shortest_path_interdiction", 7),
        ("shortest_path_interdiction", {"budget": 1}, "shortest_path_interdiction", 7),
        ("max_flow_interdiction", {"budget": 0}, "max_flow_interdiction", 12),
        ("max_flow_interdiction", {"budget": 2}, "max_flow_interdiction", 0),
        ("knapsack_interdiction", {"strength": 0}, "knapsack_interdiction", 17),
        ("competitive_location", {"shops": 1}, "competitive_location", 14),
        ("optknock", {"knockouts": 0}, "optknock", 0),
        ("optknock", {"knockouts": 1}, "optknock", 5),
    ],
)
def test_with_other_data(name: str, data: dict[str, Any], reference: str, known: float) -> None:
    assert getattr(applications, reference)(*data.values()) == known
    result = bl.solve(bl.load(PATHS[name], data=data))
    assert result.success, result.message
    assert pytest.approx(known, abs=1e-6) == result.F


def test_the_weights_of_another_collection() -> None:
    """MibS's example with the objective -3x - 7y of BilevelJuMP's tests."""
    text = PATHS["mibs_example"].read_text("utf-8").replace("minimize -x", "minimize -3 * x")
    assert applications.mibs_example(3) == -53
    assert pytest.approx(-53, abs=1e-6) == bl.solve(bl.parse(text)).F


def test_real_numbers_are_not_rounded_whole_ones() -> None:
    """Moore and Bard: -18 at (8, 1) with real numbers, -22 at (2, 2) with whole ones."""
    text = PATHS["moore_bard"].read_text("utf-8").replace("integers(0, 10)", "[0, 10]")
    result = bl.solve(bl.parse(text))
    assert result.success, result.message
    assert pytest.approx(-18, abs=1e-6) == result.F
    assert (result["x"], result["y"]) == pytest.approx((8, 1), abs=1e-5)
