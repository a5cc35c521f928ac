"""Coefficients that do not fit into memory are told with their number, at their place."""

from __future__ import annotations

import pytest

import bilevelpy
from bilevelpy.reductions import polynomial
from bilevelpy.reductions.expand import expander as expand
from bilevelpy.reductions.refusal import Refused
from bilevelpy.reductions.rows import system

SQUARE = "sum(x[i] * x[j] for i in n, j in n)"


@pytest.mark.parametrize(
    ("upper", "written"),
    [
        (f"minimize {SQUARE};", SQUARE),
        (f"minimize sum(x); subject to c: {SQUARE} >= 4;", f"c: {SQUARE} >= 4;"),
        (f"minimize sum(x); subject to c: 1 <= {SQUARE} <= 4;", f"c: 1 <= {SQUARE} <= 4;"),
    ],
)
def test_pairs_of_all_variables_are_told_with_their_number(upper, written, monkeypatch):
    for module in (expand, polynomial):
        monkeypatch.setattr(module, "machine_memory", lambda: 1_000_000)
    text = f"dim n = 1000; upper {{ var x[n] in [0, 1]; {upper} }}"
    text += "lower f { var y in [0, 1]; minimize y * x[1]; }"
    with pytest.raises(Refused) as caught:
        system(bilevelpy.parse(text).bound)
    found = caught.value.diagnostic
    assert found.code == "BLV0603"
    assert "16 MB" in found.message
    assert found.primary.text == "1,000,000 products of two variables"
    assert text[found.primary.span.start : found.primary.span.end] == written


def test_sums_of_squares_take_no_pairs(monkeypatch):
    for module in (expand, polynomial):
        monkeypatch.setattr(module, "machine_memory", lambda: 1_000_000)
    text = "dim n = 1000; upper { var x[n] in [0, 1]; minimize sumsq(x); }"
    text += "lower f { var y in [0, 1]; minimize y * x[1]; }"
    assert system(bilevelpy.parse(text).bound).objective.quadratic[0].nnz == 1000


def test_matrices_of_many_rows_are_told_with_their_number(monkeypatch):
    """Each of them takes a word for every variable, be it empty."""
    for module in (expand, polynomial):
        monkeypatch.setattr(module, "machine_memory", lambda: 10_000_000)
    text = "set I = 1..2000; upper { var x; minimize x + sum(f.y); }"
    text += "lower f[i in I] { var y in [0, 1]; minimize (y - x)^2; }"
    with pytest.raises(Refused) as caught:
        system(bilevelpy.parse(text).bound)
    assert caught.value.diagnostic.code == "BLV0603"
    label = caught.value.diagnostic.primary.text
    assert label == "2,000 matrices, one a row, over 2,001 variables"
