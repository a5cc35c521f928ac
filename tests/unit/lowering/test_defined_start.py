"""Variables without a `start` begin where the objectives have values and slopes."""

from __future__ import annotations

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.lowering.defined_start import begin_where_defined
from bilevelpy.lowering.oracle import TorchOracle


def begun(above: str, below: str) -> TorchOracle:
    text = f"model m; upper {{ {above} }} lower f {{ {below} }}"
    oracle = TorchOracle(bl.parse(text).bound)
    begin_where_defined(oracle)
    return oracle


@pytest.mark.parametrize(
    ("below", "y"),
    [
        ("var y in [0, inf]; minimize x * y - log(y);", [1.0]),
        ("var y in [0, 0.5]; maximize sqrt(y) - x * y;", [0.25]),
        ("var y in [-inf, 0]; minimize x * y - log(-y);", [-1.0]),
        ("var y; minimize x * y + 1/y;", [1.0]),
        ("var y start 0.2, z; minimize x * y - log(y) - log(z);", [0.2, 1.0]),
        ("var y[20] in [0, inf]; minimize x * sum(y) - sum(log(y)) - log(9 - sum(y));", [0.1] * 20),
        ("var Y[2, 2] in psd; minimize x * trace(Y) - logdet(Y);", [1.0, 0.0, 0.0, 1.0]),
    ],
)
def test_lower_variables_move_inside(below: str, y: list[float]) -> None:
    oracle = begun("var x in [0, 9] start 2; minimize x^2;", below)
    assert oracle.y0.tolist() == y
    assert oracle.x0.tolist() == [2.0]


@pytest.mark.parametrize(
    ("below", "y"),
    [
        ("var y in [0, inf]; minimize (y - x)^2 + exp(y);", [0.0]),  # has values everywhere
        ("var y in [0, inf]; minimize (y - x)^2 - log(1 + y);", [0.0]),  # has some at 0
        ("var y in [0, inf] start 0; minimize x * y - log(y);", [0.0]),  # as it was asked for
        ("var y in [0, inf]; minimize x * y - log(-1 - y);", [0.0]),  # has none anywhere
        ("var w[2] in simplex; minimize x * w[1] - sum(log(w));", [0.5, 0.5]),
    ],
)
def test_starts_stay_where_nothing_is_gained(below: str, y: list[float]) -> None:
    assert begun("var x start 2; minimize x^2;", below).y0.tolist() == y


def test_upper_variables_move_where_lower_ones_do_not_help() -> None:
    oracle = begun("var x in [0, 5]; maximize log(x) - y;", "var y; minimize (y - x)^2;")
    assert (oracle.x0.tolist(), oracle.y0.tolist()) == ([1.0], [0.0])
    oracle = begun("var x in [0, 5]; minimize y;", "var y in [0, 1]; minimize y/x - sqrt(y);")
    assert (oracle.x0.tolist(), oracle.y0.tolist()) == ([1.0], [0.5])


def test_entropic_transport_as_papers_write_it() -> None:
    """The plan of least x <C, P> + <P, log P> with even margins: 2 by 2, in closed form."""
    model = bl.parse(
        "model m; set I = 1..2; param C[I, I] = [[0, 1], [1, 0]];"
        "upper { var x in [0.1, 9] start 1; minimize (sum(C * P) - 0.2)^2; }"
        "lower plan { var P[I, I] in [0, 1]; minimize x * sum(C * P) + sum(P * log(P));"
        " subject to rows[i in I]: sum(P[i, j] for j in I) == 0.5;"
        " columns[j in I]: sum(P[i, j] for i in I) == 0.5; }"
    )
    result = bl.solve(model, backend="kkt")
    assert result.success
    assert result["x"] == pytest.approx(np.log(4.0), abs=1e-4)


def test_logarithms_of_amounts_need_no_start() -> None:
    """max log y - p y - y^2 has y(p) = (sqrt(p^2 + 8) - p)/4."""
    model = bl.parse(
        "model m; upper { var p in [0.1, 5]; maximize p * y - 0.1 * p^2; }"
        "lower buyer { var y in [0, 10]; maximize log(y) - p * y - y^2; }"
    )
    result = bl.solve(model, backend="direct")
    p = np.linspace(0.1, 5.0, 100_001)
    assert result.success
    assert pytest.approx((p * (np.sqrt(p**2 + 8) - p) / 4 - 0.1 * p**2).max(), abs=1e-8) == result.F
