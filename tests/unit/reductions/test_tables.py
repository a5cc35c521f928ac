"""Rows at points where their functions have no value."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.tables import Functions, Rows


def test_a_row_without_a_value_is_violated_without_end() -> None:
    inverse = sc.call("div", sc.Num(1.0), sc.Col(0))
    functions = Functions(
        np.zeros(2), sp.csr_array(np.array([[0.0, 0.0], [0.0, 1.0]])), trees={0: inverse}
    )
    rows = Rows(
        ("a", "b"), functions, np.zeros(2), np.full(2, 2.0), np.zeros(2), (None,) * 2, (None,) * 2
    )
    assert rows.violation(np.array([1.0, 5.0])).tolist() == [0.0, 3.0]
    assert rows.violation(np.array([0.0, 5.0])).tolist() == [np.inf, 3.0]
