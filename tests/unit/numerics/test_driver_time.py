"""Time where models have many variables or rows with names of their own."""

from __future__ import annotations

import time

import bilevelpy as bl


def fits(count: int) -> str:
    """A model of many variables with names of their own."""
    ups = "".join(f"var x{i} in [0, 1] start 1;\n" for i in range(count))
    downs = "".join(f"var y{i};\n" for i in range(count))
    upper = " + ".join(f"(x{i} + y{i})^2" for i in range(count))
    lower = " + ".join(f"(y{i} - x{i})^2" for i in range(count))
    return f"upper {{ {ups} minimize {upper}; }}\nlower fit {{ {downs} minimize {lower}; }}"


def test_derivatives_end_with_the_time() -> None:
    model = bl.parse(fits(1500))
    bl.dispatch(bl.analyze(model))
    began = time.process_time()
    bl.solve(model, backend="direct", time_limit=1.0, verify=False, progress=False)
    assert time.process_time() - began < 2.5


def test_rows_by_name_are_certified_in_time() -> None:
    count = 400
    rows = "".join(f"c{i}: y + {i} * x <= {i + 20};\n" for i in range(count))
    model = bl.parse(
        f"""upper {{ var x in [0, 1]; minimize x + y; }}
        lower fit {{ var y in [0, 10]; minimize (y - x)^2; subject to {rows} }}"""
    )
    bl.dispatch(bl.analyze(model))
    began = time.process_time()
    result = bl.solve(model, backend="kkt", progress=False)
    assert result.success
    assert time.process_time() - began < 2.5
