"""Solutions as solvers print them for the files that were exported: names and values.

SCIP (``write solution``), HiGHS, Gurobi, CBC and GLPK have this in common: a line with the name of
a column has its value as the next number. Columns that are not named have the value 0; what names
no column (rows, multipliers, sets) is left out, and so are later lines about one that is known,
which hold reduced costs.
"""

from __future__ import annotations

import math
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

# Headings of columns in the files of HiGHS and GLPK, and what SCIP and CBC write above theirs.
_HIGHS = re.compile(r"# Columns\b")
_GLPK = re.compile(r"\s*No\.\s+Column name\b")
_SUMMARY = re.compile(r"solution status:|objective value:|[A-Z].* objective value ")

Array = np.ndarray[Any, np.dtype[Any]]


def read_solution(path: str | Path, bound: BoundProgram) -> dict[str, Array]:
    """Values by ``level.variable``.

    Names are those of the model (``flow[1,2]``, with their level or without), or what a format
    makes of them: all but letters and digits may differ, where that leaves one meaning.

    Raises
    ------
    UsageError
        Where no line names a variable of the model, one has no finite value, or the file cannot be
        read.
    """
    columns = make_columns(bound)
    own = [j for j in range(columns.count) if columns.owner[j] >= 0]
    exact = {columns.names[j]: j for j in own}
    for block in columns.blocks:
        if not block.is_dual:
            for j in range(block.offset, block.offset + block.size):
                short = columns.names[j].removeprefix(f"{block.level}.")
                exact.setdefault(f"{block.level}.{short}", j)
    loose: dict[str, int | None] = {}
    for name, j in exact.items():
        key = _key(name)
        loose[key] = j if loose.get(key, j) == j else None
    values, known = np.zeros(columns.count), set[int]()
    waiting: int | None = None
    for line in _entries(Text(path).lines):
        words = line.split()
        column, rest = _entry(words, exact, loose)
        if column is None and waiting is not None:
            column, rest = waiting, words
        waiting = column if not rest else None
        if column is None or column in known or not rest:
            continue
        value = next((n for n in map(written_number, rest) if n is not None), None)
        if value is None or not math.isfinite(value):
            raise UsageError(f"{path}: `{columns.names[column]}` has no finite value: `{line}`")
        known.add(column)
        values[column] = value
    if not known:
        shown = ", ".join(f"`{columns.names[j]}`" for j in own[:3])
        raise UsageError(
            f"{path} names no variable of the model: a line has a name and a value, and names are "
            f"such as {shown}"
        )
    return {
        f"{b.level}.{b.name}": values[b.offset : b.offset + b.size].reshape(b.shape)
        for b in columns.blocks
        if not b.is_dual
    }


def _entries(lines: list[str]) -> list[str]:
    """The lines about columns: those around them have words that are names in some models
    (``objective``, ``status``), and lines about rows whose names are those of columns but for
    signs.
    """
    for heading, end in ((_HIGHS, "#"), (_GLPK, "Karush")):
        begin = next((k for k, line in enumerate(lines, 1) if heading.match(line)), None)
        if begin is not None:
            after = (k for k, line in enumerate(lines) if k >= begin and line.startswith(end))
            return lines[begin : next(after, None)]
    return [line for line in lines if not _SUMMARY.match(line)]


def _key(name: str) -> str:
    """A name without what formats write in their own ways."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _entry(
    words: list[str], exact: dict[str, int], loose: dict[str, int | None]
) -> tuple[int | None, list[str]]:
    """The column that a line names, and the words after it: none where GLPK has broken the line
    after a long name.
    """
    if words[:1] not in (["#"], ["*"]):
        for k, word in enumerate(words):
            column = exact.get(word)
            if column is None and not word[:1].isdigit():
                column = loose.get(_key(word))
            if column is not None:
                return column, words[k + 1 :]
    return None, []
