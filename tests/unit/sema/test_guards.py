"""Subscripts in the branches of an `if` need to exist only where the branch is taken."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl

HEAD = """\
dim n = 4;
set T = 3..6;
param a[n] = [1, 2, 3, 4], s[T] = [10, 20, 30, 40];
upper { var x in [0, 1]; minimize (w - x)^2; }
lower g { var w; minimize (w - x)^2; }
"""


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("sum(if i > 1 then a[i - 1] else 100 for i in n)", 100 + 1 + 2 + 3),
        ("sum(if i == 4 then 0 else a[i + 1] for i in n)", 2 + 3 + 4),
        ("sum(if t > 3 then s[t - 1] else 0 for t in T)", 10 + 20 + 30),
        # 10 a[3] + 10 a[4] + a[1] + a[2]
        ("sum(if i > 2 then a[i - 2] else 10 * a[i + 2] for i in n)", 30 + 40 + 1 + 2),
        ("sum(if i > 1 then (if i < 4 then a[i + 1] else a[i - 3]) else 0 for i in n)", 3 + 4 + 1),
        ("sum(if i > 1 and j < 4 then a[i - 1] * a[j + 1] else 0 for i in n, j in n)", 6 * 9),
    ],
)
def test_value(expression: str, value: float) -> None:
    model = bl.parse(f"{HEAD}report r = {expression};")
    found = bl.compile(model).reports([0.0], [0.0])["r"]
    assert found == pytest.approx(value)


def test_a_subscript_that_is_out_of_range_where_it_is_taken_is_an_error() -> None:
    with pytest.raises(bl.DataError, match="reaches outside of `n`"):
        bl.parse(f"{HEAD}report r = sum(if i > 2 then a[i + 1] else 0 for i in n);")


def test_an_inventory_is_written_as_in_a_book() -> None:
    """stock[t] = stock[t - 1] + buy - demand with a start value, the least of |stock|^2."""
    model = bl.parse(
        """
        dim n = 3;
        param demand[n] = [1, 2, 3];
        upper { var first in [-9, 9] start 1; minimize (first - 4)^2; }
        lower shop {
          var stock[n];
          minimize sum((stock[t] - (if t > 1 then stock[t - 1] else first) + demand[t])^2
                       for t in n);
        }
        """
    )
    result = bl.solve(model)
    assert result.success
    assert np.allclose(result["stock"], [3, 1, -2], atol=1e-6)
