"""Polynomials whose parts are shared are written out once."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy
from bilevelpy.lowering.hessians import structured
from bilevelpy.reductions.columns import make_columns
from bilevelpy.reductions.rows import system
from tests.steps import steps

HEAD = "upper { var x in [-1, 1]; minimize x + y; } lower f { var y in [-9, 9]; "


def doubled(n: int) -> bilevelpy.Model:
    lets = " ".join(f"let a{k} = 0.5 * a{k - 1} + 0.5 * a{k - 1} + 1;" for k in range(1, n))
    return bilevelpy.parse(f"{HEAD} let a0 = y^2 + x * y; {lets} minimize a{n - 1} + y; }}")


def entries(n: int) -> bilevelpy.Model:
    listed = ", ".join(f"{k} * x * y" for k in range(n))
    return bilevelpy.parse(f"{HEAD} minimize sum(exp([{listed}])); }}")


def test_a_chain_of_sums_does_not_double():
    found = system(doubled(60).bound).lower_objectives
    # y^2 + x y + y + 59
    v = np.array([2.0, 3.0])
    assert found.value(v) == pytest.approx([9.0 + 6.0 + 3.0 + 59.0])


@pytest.mark.parametrize(("model", "few"), [(doubled, 15), (entries, 45)])
def test_writing_out_takes_work_in_proportion_to_the_text(model, few):
    def work(n: int) -> int:
        bound = model(n).bound
        return steps(lambda: system(bound))

    work(few)
    assert work(2 * few) < 2.4 * work(few)


def test_columns_know_their_variable():
    text = "dim m = 3; upper { var a[m], c; minimize sum(a) + c; }"
    text += "lower f { var d[m]; minimize sumsq(d) + c * sum(d); }"
    columns = make_columns(bilevelpy.parse(text).bound)
    blocks = [columns.block_of(j) for j in range(columns.count)]
    assert [b.name for b in blocks if b is not None] == [*"aaa", "c", *"ddd"]
    assert columns.block_of(columns.count) is None


def test_large_matrices_are_not_made_where_products_do(monkeypatch):
    text = "dim n = 6; upper { var x in [-5, 5] start 1; minimize sum((y - 2)^2) + 0.1 * x^2; }"
    text += "lower f { var y[n]; minimize sum((y - x)^2) + sum(y^4); }"
    whole = bilevelpy.solve(bilevelpy.parse(text), backend="direct")
    monkeypatch.setattr(structured, "LARGEST", 5)
    monkeypatch.delattr(structured.StructuredCurvature, "dense")
    products = bilevelpy.solve(bilevelpy.parse(text), backend="direct")
    assert whole.success
    assert products.success
    assert pytest.approx(whole.F, rel=1e-6) == products.F
