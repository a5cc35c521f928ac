"""Intervals and ranges whose ends do not cross, and that hold no number all the same."""

from __future__ import annotations

from typing import Any

from bilevelpy.ir.types import DomainKind

NAMES = {DomainKind.INTERVAL: "an interval", DomainKind.INTEGERS: "a range"}
REASONS = {
    DomainKind.INTERVAL: "holds no finite number",
    DomainKind.INTEGERS: "holds no whole number",
}


def is_empty(low: Any, high: Any) -> Any:
    """Whether no number that a variable may have lies between two ends, for each entry of arrays.
    Those of whole numbers come rounded inwards.
    """
    infinity = float("inf")
    return (low > high) | (low == infinity) | (high == -infinity)
