"""Functions that expressions of SCIP would blow up are refused before they are made."""

from __future__ import annotations

import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.engine.size import check_size
from bilevelpy.reductions import scalar as sc

pytest.importorskip("pyscipopt")

X, Y = sc.Col(0), sc.Col(1)


def chain(step, levels: int) -> sc.Scalar:
    """A tree of which every level reads the one before twice: 2^levels nodes if written out."""
    node: sc.Scalar = sc.call("sin", X)
    for _ in range(levels):
        node = step(node)
    return node


@pytest.mark.parametrize(
    "tree",
    [
        sc.power(X, sc.Num(1e9)),
        sc.power(sc.add(X, Y, sc.Num(1.0)), sc.Num(2500.0)),
        chain(lambda a: sc.mul(a, sc.call("exp", a)), 60),
        chain(lambda a: sc.add(a, sc.power(a, sc.Num(2.0))), 60),
        chain(lambda a: sc.call("max", a, X), 60),
    ],
)
def test_what_blows_up_is_refused(tree) -> None:
    with pytest.raises(bl.BackendError, match="name its parts as variables"):
        check_size(tree)


@pytest.mark.parametrize(
    "tree",
    [
        sc.power(X, sc.Num(100.0)),
        sc.power(sc.add(X, Y, sc.Num(1.0)), sc.Num(20.0)),
        sc.power(X, sc.Num(1e9 + 0.5)),
        chain(lambda a: sc.mul(a, sc.call("exp", a)), 10),
    ],
)
def test_what_does_not_is_taken(tree) -> None:
    check_size(tree)


@pytest.mark.parametrize("step", ["{0} * {0}", "{0} * {0} - 0.5 * {0}"])
def test_sixty_squares_of_squares_end_in_an_error(step: str) -> None:
    lets = "\n".join(f"let a{k + 1} = {step.format(f'a{k}')};" for k in range(60))
    model = bl.parse(f"upper {{ var x in [0, 1]; let a0 = x + 0.5; {lets} minimize a60; }}")
    with pytest.raises(bl.BackendError, match="`exact` multiplies out"):
        bl.solve(model, time_limit=60)


def test_a_product_of_a_thousand_factors_is_solved() -> None:
    model = bl.parse(f"upper {{ var x in [0.5, 1]; minimize {' * '.join(['x'] * 1000)}; }}")
    found = bl.solve(model)
    assert found.success
    assert found.upper["x"] == pytest.approx(0.5)
