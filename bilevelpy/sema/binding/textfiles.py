"""Tables (CSV files, DataFrames) and JSON files."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bilevelpy.ir.types import Label
from bilevelpy.sema.binding.convert import index_labels
from bilevelpy.sema.binding.npz import UNREADABLE, FileProblem, reason
from bilevelpy.sema.binding.raw import Array, NotNumbers
from bilevelpy.system.storage import JsonProblem, NotUtf8, loads, utf8_text, written_number

# Python's limit for whole numbers is no label's business: longer ones are text.
_WHOLE = re.compile(r"[+-]?\d{1,300}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A table: column names (None for bare numbers), cells as text, the line of each row."""

    header: tuple[str, ...] | None
    cells: tuple[tuple[str, ...], ...]
    lines: Array

    def places(self, name: str) -> list[int]:
        """Positions of the columns of that name (a set's name may head several)."""
        return [k for k, h in enumerate(self.header or ()) if h == name]

    def only(self, name: str) -> int:
        """The position of the one column of that name."""
        found = self.places(name)
        if len(found) > 1:
            places = f"columns {found[0] + 1} and {found[1] + 1}"
            raise FileProblem(f"its header has `{name}` twice ({places}); keep the one that counts")
        return found[0]

    def numbers(self, columns: Sequence[int]) -> Array:
        """Some columns as float64, row by row."""
        table = np.empty((len(self.cells), len(columns)))
        for r, row in enumerate(self.cells):
            for c, k in enumerate(columns):
                table[r, c] = self._number(row[k], r, k)
        return table

    def labels(self, column: int) -> tuple[Label, ...]:
        """A column as labels: whole numbers if every cell is one, text otherwise."""
        for row, line in zip(self.cells, self.lines, strict=True):
            if not row[column].strip() or "\0" in row[column]:
                what = "a NUL character in the" if row[column].strip() else "an empty"
                heading = self.header[column] if self.header else ""
                where = f"column {heading}" if heading else f"column {column + 1}"
                raise FileProblem(f"{what} label in row {line} of {where}")
        return _as_labels([row[column] for row in self.cells])

    def headings(self, start: int) -> tuple[Label, ...]:
        """The column names from ``start`` on as labels, by the same rule."""
        return _as_labels((self.header or ())[start:])

    def _number(self, text: str, row: int, column: int) -> float:
        number = _number(text)
        if number is None:
            name = self.header[column] if self.header else ""
            heading = f" of column {name}" if name else f", column {column + 1}"
            raise NotNumbers(f"the text {text[:40]!r} in row {self.lines[row]}{heading}")
        return number


def frame_table(frame: Any) -> CsvTable:
    """A pandas DataFrame as a table; an index that is not the default one gives label columns."""
    if index_labels(frame.index) is not None:
        frame = frame.reset_index()
    header = tuple(str(c) for c in frame.columns)
    cells = tuple(tuple(str(v) for v in row) for row in frame.itertuples(index=False, name=None))
    return CsvTable(header, cells, np.arange(len(cells)))


def read_csv(path: Path, limit: int) -> CsvTable:
    """A table with one row of column names, or of bare numbers."""
    text = _text(path, limit)
    rows: list[tuple[str, ...]] = []
    lines: list[int] = []
    try:
        reader = csv.reader(text.splitlines(keepends=True), skipinitialspace=True)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(tuple(cells))
                lines.append(reader.line_num)
    except csv.Error as error:
        raise FileProblem(f"it is no CSV table ({reason(error)})") from None
    if not rows:
        raise FileProblem("it is empty")
    header = _header(rows[0])
    body, places = (rows, lines) if header is None else (rows[1:], lines[1:])
    width = len(rows[0])
    for row, line in zip(body, places, strict=True):
        if len(row) != width:
            found = f"row {line} has {len(row)} cells, the first has {width}"
            raise FileProblem(found + _why(rows[0]))
    if _why(rows[0]) and len({_parted(row[0]) for row in rows}) == 1:
        raise FileProblem("every row has one cell" + _why(rows[0]))
    return CsvTable(header, tuple(body), np.array(places, dtype=np.int64))


def _header(first: tuple[str, ...]) -> tuple[str, ...] | None:
    """The column names in a first row; None where it holds numbers."""
    if all(cell.strip() and _number(cell) is not None for cell in first):
        return None
    # No names either, and a row that is taken for names is lost.
    odd = [cell for cell in first if not _is_name(cell)]
    if len(odd) == len(first):
        wrong = next(cell for cell in first if _number(cell) is None)
        raise FileProblem(f"{wrong.strip()[:40]!r} in its first row is no number; write its digits")
    return tuple(cell.strip() for cell in first)


def _is_name(cell: str) -> bool:
    """Whether not even Python, which reads more than others, sees a number."""
    try:
        float(cell)
    except ValueError:
        return True
    return False


def _parted(cell: str) -> tuple[int, int]:
    """How often the signs stand in a cell that may divide cells elsewhere."""
    return cell.count(";"), cell.count("\t")


def _why(first: tuple[str, ...]) -> str:
    """A word about a first row that other signs than commas divide."""
    for sign, name in ((";", "`;`"), ("\t", "tabs")):
        if len(first) == 1 and sign in first[0].strip():
            return f"; this file has {name} where commas divide cells (and points decimals)"
    return ""


def read_json(path: Path, limit: int) -> Any:
    """The value of a JSON file."""
    try:
        return loads(_text(path, limit))
    except JsonProblem as problem:
        raise FileProblem(str(problem)) from None
    except UNREADABLE as error:
        raise FileProblem(f"it is no JSON ({reason(error)})") from None


def _text(path: Path, limit: int) -> str:
    try:
        size = path.stat().st_size
        if size > limit:
            raise FileProblem(f"its {size:,} bytes exceed the limit of {limit:,}")
        return utf8_text(path.read_bytes())
    except FileNotFoundError:
        raise FileProblem("there is no such file") from None
    except NotUtf8 as problem:
        raise FileProblem(str(problem)) from None
    except UNREADABLE as error:
        raise FileProblem(reason(error)) from None


def _as_labels(texts: Sequence[str]) -> tuple[Label, ...]:
    stripped = [t.strip() for t in texts]
    if all(_WHOLE.fullmatch(t) for t in stripped):
        return tuple(int(t) for t in stripped)
    return tuple(stripped)


def _number(cell: str) -> float | None:
    """The number in a cell, NaN in an empty one; None where it holds other text."""
    word = cell.strip()
    if word.lower() in ("", "nan"):
        return math.nan
    return written_number(word)
