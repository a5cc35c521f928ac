"""Solutions as solvers print them for the files that were exported: names and values.

SCIP (``write solution``), HiGHS, Gurobi, CBC and GLPK have this in common: a line with the name of
a column has its value as the next number. Columns that are not named have the value 0; what names
no column (rows, multipliers, sets) is left out, and so are later lines about one that is known,
which hold reduced costs. Which format was solved is not known: the names are read as those of the
one in which most of them are columns.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.errors import UsageError
from bilevelpy.exporters.languages.ampl import ampl_names
from bilevelpy.exporters.matrices.lp import lp_names
from bilevelpy.exporters.matrices.mps import mps_names
from bilevelpy.importers.faults import Text
from bilevelpy.reductions.columns import make_columns
from bilevelpy.system.storage import written_number

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

# Headings of columns in the files of HiGHS (of two styles) and GLPK, and what SCIP and CBC write
# above theirs.
_HIGHS = re.compile(r"# Columns\b")
_PRETTY = re.compile(r"\s*Index .*\bPrimal .*\bName$")
_GLPK = re.compile(r"\s*No\.\s+Column name\b")
_SUMMARY = re.compile(r"solution status:|objective value:|[A-Z].* objective value ")

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(slots=True)
class _Reading:
    """Columns by the names of one format, and what the lines of a file say of them."""

    exact: dict[str, int]
    loose: dict[str, int | None] = field(init=False)
    values: dict[int, float] = field(default_factory=dict)
    fault: tuple[int, str] | None = None

    def __post_init__(self) -> None:
        self.loose = {}
        for name, j in self.exact.items():
            key = _key(name)
            self.loose[key] = j if self.loose.get(key, j) == j else None

    def read(self, lines: list[str]) -> _Reading:
        """Take the values from the lines, up to one that is no number."""
        most = max(len(name.split()) for name in self.exact)
        waiting: int | None = None
        for line in lines:
            words = line.split()
            column, rest = self._entry(words, most)
            if column is None and waiting is not None:
                column, rest = waiting, words
            waiting = column if not rest else None
            if column is None or column in self.values or not rest:
                continue
            value = next((n for n in map(written_number, rest) if n is not None), None)
            if value is None or not math.isfinite(value):
                self.fault = column, line
                break
            self.values[column] = value
        return self

    def _entry(self, words: list[str], most: int) -> tuple[int | None, list[str]]:
        """The column that a line names, by at most so many words, and the words after it: none
        where GLPK has broken the line after a long name.
        """
        if words[:1] not in (["#"], ["*"]):
            for k in range(len(words)):
                for end in range(min(len(words), k + most), k, -1):
                    word = " ".join(words[k:end])
                    column = self.exact.get(word)
                    if column is None and end == k + 1 and not word[:1].isdigit():
                        column = self.loose.get(_key(word))
                    if column is not None:
                        return column, words[end:]
        return None, []


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
    names = {" ".join(columns.names[j].split()): j for j in own}
    for block in columns.blocks:
        if not block.is_dual:
            for j in range(block.offset, block.offset + block.size):
                short = " ".join(columns.names[j].split()).removeprefix(f"{block.level}.")
                names.setdefault(f"{block.level}.{short}", j)
    lines = _entries(Text(path).lines)
    plain = [_key(columns.names[j]) for j in own]
    best = _Reading(names).read(lines)
    for namer in (lp_names, mps_names, ampl_names):
        made = namer().names(columns.names)
        if len({*plain}) < len(own) or [_key(made[j]) for j in own] != plain:
            other = _Reading({made[j]: j for j in own}).read(lines)
            best = max(best, other, key=lambda reading: len(reading.values))
    if best.fault is not None:
        column, line = best.fault
        raise UsageError(f"{path}: `{columns.names[column]}` has no finite value: `{line}`")
    if not best.values:
        shown = ", ".join(f"`{columns.names[j]}`" for j in own[:3])
        raise UsageError(
            f"{path} names no variable of the model: a line has a name and a value, and names are "
            f"such as {shown}"
        )
    values = np.zeros(columns.count)
    values[[*best.values]] = [*best.values.values()]
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
    begin = next((k for k, line in enumerate(lines, 1) if _PRETTY.match(line)), None)
    if begin is not None:
        width = lines[begin - 1].index("Primal") + len("Primal")
        table = itertools.takewhile(lambda line: line[:1] == " ", lines[begin:])
        return [f"{line.split()[-1]} {line[:width].split()[-1]}" for line in table]
    return [line for line in lines if not _SUMMARY.match(line)]


def _key(name: str) -> str:
    """A name without what formats write in their own ways."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
