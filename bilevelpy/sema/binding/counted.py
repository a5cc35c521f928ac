"""Labels along axes that count from 1: tables that name their rows are put into one order.

An axis that counts has no labels of its own, but pandas objects (and CSV files that they write)
always bring some. Labels 1 to n are the elements. Others say which rows of two tables belong
together: the first table along the axis sets the order, and the others follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bilevelpy.ir.program import Param
from bilevelpy.ir.types import Axis, AxisKind
from bilevelpy.sema.binding.lookup import twice
from bilevelpy.sema.binding.raw import the
from bilevelpy.sema.binding.state import State, label_text, listed


@dataclass(frozen=True, slots=True)
class Named:
    """The labels that the first table along an axis brought, in the order of the axis."""

    labels: tuple[Any, ...]
    name: str
    plain: bool

    @classmethod
    def of(cls, labels: tuple[Any, ...] | None, size: int, name: str) -> Named:
        """``labels`` None is the index that pandas makes (0, 1, ...); it says nothing against
        other labels, so it is ``plain``.
        """
        counted = tuple(range(size))
        found = counted if labels is None else tuple(_number(k) for k in labels)
        return cls(found, name, found == counted)


def counted_order(
    state: State, param: Param, axis: Axis, labels: tuple[Any, ...] | None, size: int
) -> Any:
    """Where each element of the axis stands along a dimension with ``labels``: positions, or None
    after a report.

    Labels 1 to n, in any order, are the elements. Otherwise the order is that of the first table;
    a table with other labels than that one is an error where the axis is declared by a name.
    """
    here = Named.of(labels, size, param.name)
    natural = np.arange(size)
    elements = tuple(range(1, size + 1))
    unique = not twice(here.labels)
    if unique and set(here.labels) == set(elements):
        place = {label: k for k, label in enumerate(here.labels)}
        natural = np.array([place[k] for k in elements], dtype=np.int64)
        here = Named(elements, here.name, here.plain)
    if axis.kind is not AxisKind.DIM:
        # Sizes that are written as numbers are one axis by accident.
        return natural
    first = state.named.get(axis)
    if first is None or (first.plain and set(first.labels) != set(here.labels)):
        state.named[axis] = here
        return natural
    if first.labels == here.labels:
        return natural
    if unique and set(first.labels) == set(here.labels):
        place = {label: k for k, label in enumerate(here.labels)}
        return np.array([place[k] for k in first.labels], dtype=np.int64)
    if here.plain:
        return natural
    _differ(state, param, axis, first, here)
    return None


def _number(label: Any) -> Any:
    """Text of a number as the number: files hold text only."""
    if isinstance(label, str):
        try:
            value = float(label)
        except ValueError:
            return label
        return value if value == value else label
    return label


def _differ(state: State, param: Param, axis: Axis, first: Named, here: Named) -> None:
    other, own = set(first.labels), set(here.labels)
    alone = [k for k in here.labels if k not in other] or [k for k in first.labels if k not in own]
    again = twice(here.labels) or twice(first.labels)
    if alone:
        owner, lacking = (here.name, first.name) if alone[0] in own else (first.name, here.name)
        found = f"{listed(label_text(k) for k in alone)} of `{owner}`, which `{lacking}` lacks"
    else:
        found = f"{listed(label_text(k) for k in again)} twice, in another order"
    state.report(
        "BLV0428",
        param.span,
        f"from {the(state.given[param.name].origin)}",
        poison=param.name,
        name=param.name,
        first=first.name,
        axis=axis.name,
        notes=(f"labels differ: {found}",),
        hint=f"give both the same index (`reindex`), or pass `{param.name}.to_numpy()` to go by "
        "position",
    )
