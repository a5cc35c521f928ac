"""What the entries of variables are called, where a set names its elements."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bilevelpy.reductions.columns import entry_names

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

# Entries of one variable up to which their names are looked up.
MAX_ENTRIES = 2000


def labels_of(bound: BoundProgram) -> dict[str, list[str]]:
    """``level.variable`` (``variable`` above) -> the names of its entries, row by row.

    Variables over dims and ranges are left out: their entries are counted from 1, which everybody
    can do.
    """
    found: dict[str, list[str]] = {}
    for level in bound.program.levels:
        prefix = "" if level is bound.program.upper else f"{level.name}."
        for v in level.variables:
            size = math.prod(bound.data.sizes[a] for a in v.axes)
            if not v.axes or size > MAX_ENTRIES:
                continue
            names = [n.strip("[]") for n in entry_names(bound, "", v.axes)]
            if any(not c.isdigit() for name in names for c in name.replace(",", "")):
                found[prefix + v.name] = names
    return found
