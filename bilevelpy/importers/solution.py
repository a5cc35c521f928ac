"""Solutions as solvers print them for the files that were exported: names and values.

SCIP (``write solution``), HiGHS, Gurobi, CBC and GLPK have this in common: a line with the name of
a column has its value as the next number. Columns that are not named have the value 0; what names
no column (rows, multipliers, sets) is left out, and so are later lines about one that is known,
which hold reduced costs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.errors import UsageError
from bilevelpy.importers.faults import Text
from bilevelpy.reductions.columns import make_columns
from bilevelpy.storage import written_number

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

Array = np.ndarray[Any, np.dtype[Any]]


def read_solution(path: str | Path, bound: BoundProgram) -> dict[str, Array]:
    """Values by ``level.variable``.

    Names are those of the model (``flow[1,2]``), or what a format makes of them: all but letters
    and digits may differ, where that leaves one meaning.

    Raises
    ------
    UsageError
        Where no line names a variable of the model, or the file cannot be read.
    """
    columns = make_columns(bound)
    own = [j for j in range(columns.count) if columns.owner[j] >= 0]
    exact = {columns.names[j]: j for j in own}
    loose: dict[str, int | None] = {}
    for j in own:
        key = _key(columns.names[j])
        loose[key] = None if key in loose else j
    values, known = np.zeros(columns.count), set[int]()
    for line in Text(path).lines:
        found = _entry(line.split(), exact, loose)
        if found is not None and found[0] not in known:
            known.add(found[0])
            values[found[0]] = found[1]
    if not known:
        shown = ", ".join(f"`{name}`" for name in [*exact][:3])
        raise UsageError(
            f"{path} names no variable of the model: a line has a name and a value, and names are "
            f"such as {shown}"
        )
    return {
        f"{b.level}.{b.name}": values[b.offset : b.offset + b.size].reshape(b.shape)
        for b in columns.blocks
        if not b.is_dual
    }


def _key(name: str) -> str:
    """A name without what formats write in their own ways."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _entry(
    words: list[str], exact: dict[str, int], loose: dict[str, int | None]
) -> tuple[int, float] | None:
    """Column and value of a line; None where it names no column, or gives it no number."""
    if words[:1] in (["#"], ["*"]):
        return None
    for k, word in enumerate(words):
        column = exact.get(word)
        if column is None:
            column = loose.get(_key(word)) if not word[:1].isdigit() else None
        if column is None:
            continue
        numbers = (written_number(w) for w in words[k + 1 :])
        value = next((float(n) for n in numbers if n is not None), None)
        return None if value is None else (column, value)
    return None
