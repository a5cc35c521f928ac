"""Which element of a sum makes an objective nan or infinite."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bilevelpy.ir.elements import label_at
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.lowering.sums.sampled import Sum, candidates
from bilevelpy.lowering.sums.sampling import sample_terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from bilevelpy.ir.expr import Expr
    from bilevelpy.ir.types import Axis
    from bilevelpy.lowering.oracle import TorchOracle

# Elements that are evaluated at once: those of a block fit into memory where the data does not.
BLOCK = 65_536


def sums_of(oracle: TorchOracle, objective: Expr) -> tuple[list[Expr], list[Sum]]:
    """The terms of an objective that are no sums over the data, and the sums, larger axes first."""
    axes = candidates(oracle, objective, frozenset())
    free, sums = sample_terms(oracle.bound.program.builder, objective, axes)
    return free, [Sum(oracle, axis, terms) for axis, terms in sums.items()]


def first_bad(
    part: Sum, first: int, last: int, variables: Sequence[Tensor]
) -> tuple[int, int] | None:
    """The first element from ``first`` to before ``last`` that is not finite, as a range of one; a
    longer range where only sums of several are. By blocks, then by halving the first bad one.
    """

    def is_bad(low: int, high: int) -> bool:
        return not math.isfinite(float(part.at(slice(low, high))(*variables)))

    for low in range(first, last, BLOCK):
        high = min(low + BLOCK, last)
        if is_bad(low, high):
            first, last = low, high
            break
    else:
        return None
    while last - first > 1:
        middle = (first + last) // 2
        if is_bad(first, middle):
            last = middle
        elif is_bad(middle, last):
            first = middle
        else:
            break
    return first, last


def place(oracle: TorchOracle, axis: Axis, found: tuple[int, int]) -> str:
    """An element or a range of them as a model writes it."""
    data = oracle.bound.data
    value = Interpreter(data).value
    first, last = (label_at(axis, k, data, value) for k in (found[0], found[1] - 1))
    if found[1] - found[0] == 1:
        return f"element {first!r} of `{axis.name}`"
    return f"the sum of elements {first!r} to {last!r} of `{axis.name}`"


def culprit(oracle: TorchOracle, objective: Expr, variables: Sequence[Tensor]) -> str | None:
    """Where an objective stops to be finite; None where no single sum of its data shows it."""
    for part in sums_of(oracle, objective)[1]:
        found = first_bad(part, 0, part.size, variables)
        if found is not None:
            return place(oracle, part.axis, found)
    return None
