"""Where values come from: keywords, mappings, files. The first source with a name wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bilevelpy.ir.types import Axis, Label
from bilevelpy.sema.binding.convert import convert, index_labels, is_pandas, kind, numeric, plain
from bilevelpy.sema.binding.npz import FileProblem, Npz, read_npy
from bilevelpy.sema.binding.raw import Elements, Given, Grid, Long, NotNumbers
from bilevelpy.sema.binding.shapes import components
from bilevelpy.sema.binding.textfiles import CsvTable, read_csv, read_json

if TYPE_CHECKING:
    from bilevelpy.ir.program import Param, Program

NO_LIMIT = 1 << 62
MODEL_LIMIT, TEXT_LIMIT = 2 << 30, 256 << 20
"""Bytes that one read in a model may take; files that the caller names have no limit."""


class Source(Protocol):
    """Something that holds values by name."""

    @property
    def strict(self) -> bool:
        """Whether names that the model does not know are errors."""
        ...

    def names(self) -> list[str]:
        """Every name that it has a value for."""
        ...

    def param(self, param: Param) -> Given:
        """The value of a param."""
        ...

    def axis(self, axis: Axis) -> tuple[Any, str]:
        """A size or `Elements` of an axis, and where they came from."""
        ...


@dataclass(frozen=True, slots=True)
class Values:
    """Values by name: arguments, a mapping, or the content of a JSON file (``words``)."""

    values: Mapping[str, Any]
    origin: str  # a template with {name}
    strict: bool = True
    words: bool = False

    def names(self) -> list[str]:  # noqa: D102
        return [str(n) for n in self.values]

    def param(self, param: Param) -> Given:  # noqa: D102
        value = convert(self.values[param.name], words=self.words, axes=param.axes)
        return Given(value, self.origin.format(name=param.name))

    def axis(self, axis: Axis) -> tuple[Any, str]:  # noqa: D102
        return elements(self.values[axis.name]), self.origin.format(name=axis.name)


@dataclass(frozen=True, slots=True)
class NpzSource:
    """The members of an .npz file."""

    file: Npz
    shown: str
    strict: bool = False

    def names(self) -> list[str]:  # noqa: D102
        return self.file.names()

    def param(self, param: Param) -> Given:  # noqa: D102
        return Given(convert(self.file.get(param.name)), f'{self.shown}["{param.name}"]')

    def axis(self, axis: Axis) -> tuple[Any, str]:  # noqa: D102
        return elements(self.file.get(axis.name)), f'{self.shown}["{axis.name}"]'


@dataclass(frozen=True, slots=True)
class TableSource:
    """The columns of a CSV file."""

    table: CsvTable
    shown: str
    strict: bool = False

    def names(self) -> list[str]:  # noqa: D102
        return list(dict.fromkeys(self.table.header or ()))

    def param(self, param: Param) -> Given:  # noqa: D102
        return Given(column(self.table, param.name, param), f"{self.shown}, column {param.name}")

    def axis(self, axis: Axis) -> tuple[Any, str]:  # noqa: D102
        found = [k for c in self.table.places(axis.name) for k in self.table.labels(c)]
        return Elements(tuple(dict.fromkeys(found))), f"{self.shown}, column {axis.name}"


def column(table: CsvTable, name: str, param: Param) -> Grid | Long:
    """One column as the value of ``param``, with labels from columns of the param's sets."""
    values = table.numbers([table.only(name)])[:, 0]
    parts = components(param.axes)
    taken: dict[str, int] = {}
    heads: list[int] = []
    for axis in parts:
        places = table.places(axis.name)
        turn = taken.get(axis.name, 0)
        if places:
            heads.append(places[min(turn, len(places) - 1)])
            taken[axis.name] = turn + 1
    if not parts:
        distinct = np.unique(values)
        return Grid(distinct if len(distinct) == 1 else values, (None,))
    if not heads:
        index = table.labels(0) if table.header and not table.header[0] else None
        return Grid(values, (index,), loose=True, rows=table.lines)
    if len(heads) < len(parts):
        missing = next(a.name for a in parts if not table.places(a.name))
        raise NotNumbers(f"a table without a column {missing}")
    keys = tuple(zip(*(table.labels(k) for k in heads), strict=True))
    return _without_repeats(Long(keys, values, table.lines))


def _without_repeats(long: Long) -> Long:
    """Drop rows that repeat a row before them (a long table repeats the values of short params)."""
    seen: set[tuple[tuple[Any, ...], float]] = set()
    keep: list[int] = []
    for k, (key, v) in enumerate(zip(long.keys, long.values.tolist(), strict=True)):
        if (key, v) not in seen:
            seen.add((key, v))
            keep.append(k)
    rows = None if long.rows is None else long.rows[keep]
    return Long(tuple(long.keys[k] for k in keep), long.values[keep], rows)


# How arrays of NumPy, and columns of Polars and Arrow, become lists.
_TO_LISTS = ("tolist", "to_list", "to_pylist")


def elements(value: Any) -> Any:
    """The value of a set or dim: a number stays one, anything else is a list of labels."""
    try:
        return _elements(value)
    except NotNumbers:
        raise
    except Exception as error:  # objects of other libraries may raise anything
        raise NotNumbers(f"{kind(value)} ({str(error)[:80]})") from None


def _elements(value: Any) -> Any:
    if isinstance(value, bool | np.bool_ | str | bytes):
        raise NotNumbers(f"{value!r}")
    if is_pandas(value):
        if value.ndim == 2:  # a tuple a row, but where there is one column only
            rows = value.itertuples(index=False, name=None)
            value = [row[0] if len(row) == 1 else row for row in rows]
        else:
            value = value.tolist()
    if type(value).__module__.startswith("pandas"):
        return Elements(index_labels(value) or tuple(range(len(value))))
    made = next((getattr(value, name) for name in _TO_LISTS if hasattr(value, name)), None)
    value = value if made is None else made()
    if isinstance(value, Mapping | set | frozenset):
        raise NotNumbers(f"a {type(value).__name__}, which has no order")
    if isinstance(value, list | tuple | range):
        labels: list[Label] = [plain(tuple(v) if isinstance(v, list) else v) for v in value]
        return Elements(tuple(labels))
    number = numeric(value)
    if number.size != 1:
        raise NotNumbers(f"an array of shape {number.shape}")
    return float(number.reshape(()))


def open_file(path: Path, name: str | None, program: Program) -> Source:
    """A file as a source; ``name`` restricts it to one name, whatever the file calls it."""
    shown = path.name
    suffix = path.suffix.lower()
    if suffix == ".npz":
        file = Npz(path, NO_LIMIT)
        if name is None:
            return NpzSource(file, shown)
        held = file.names()
        if name in held:
            return Values({name: file.get(name)}, f'{shown}["{{name}}"]')
        if len(held) != 1:
            raise FileProblem(f"it holds {', '.join(held[:8]) or 'nothing'}, but no {name}")
        return Values({name: file.get(held[0])}, f'{shown}["{held[0]}"]')
    if suffix == ".npy":
        return Values({name or path.stem: read_npy(path, NO_LIMIT)}, shown, strict=name is not None)
    if suffix == ".csv":
        table = read_csv(path, NO_LIMIT)
        if name is None and table.header is None:
            raise FileProblem("its first row holds no column names")
        if name is None:
            # Labels that are none spoil every column beside them: one message, not one for each.
            for place in (k for axis in program.axes for k in table.places(axis)):
                table.labels(place)
            return TableSource(table, shown)
        return NamedTable(table, shown, name)
    if suffix == ".json":
        content = read_json(path, NO_LIMIT)
        if name is None and not isinstance(content, dict):
            raise FileProblem("a JSON data file holds an object {name: value}")
        if name is None:
            return Values(content, f'{shown}["{{name}}"]', strict=False, words=True)
        known = {*program.params, *program.axes}
        if isinstance(content, dict) and name in content and set(content) <= known:
            content = content[name]
        return Values({name: content}, shown, words=True)
    raise FileProblem("its name ends in none of .npz, .npy, .csv, .json")


@dataclass(frozen=True, slots=True)
class NamedTable:
    """A CSV file for one name: its column of that name, its only value column, or all of it."""

    table: CsvTable
    shown: str
    name: str
    strict: bool = True

    def names(self) -> list[str]:  # noqa: D102
        return [self.name]

    def param(self, param: Param) -> Given:  # noqa: D102
        return Given(whole(self.table, param), self.shown)

    def axis(self, axis: Axis) -> tuple[Any, str]:  # noqa: D102
        places = self.table.places(axis.name) or [0]
        return Elements(
            tuple(dict.fromkeys(k for c in places for k in self.table.labels(c)))
        ), self.shown


def whole(table: CsvTable, param: Param) -> Grid | Long:
    """A table that is all about one param."""
    if table.places(param.name):
        return column(table, param.name, param)
    width = len(table.cells[0]) if table.cells else len(table.header or ())
    sets = {axis.name for axis in components(param.axes)}
    others = [k for k in range(width) if not table.header or table.header[k] not in sets]
    if table.header and len(others) == 1 and len(others) < width:
        return column(table, table.header[others[0]], param)
    if len(param.axes) <= 1 and width == 1:
        return Grid(table.numbers([0])[:, 0], (None,), rows=table.lines)
    if _is_cross_table(table, param, width):
        labels = (table.labels(0), table.headings(1))
        return Grid(table.numbers(range(1, width)), labels, loose=True, rows=table.lines)
    matrix = table.numbers(range(width))
    if len(param.axes) <= 1 and len(matrix) == 1:
        matrix = matrix[0]
    return Grid(matrix, (None,) * matrix.ndim, rows=table.lines if matrix.ndim > 1 else None)


def _is_cross_table(table: CsvTable, param: Param, width: int) -> bool:
    """Whether rows are named in the first column and columns in the header.

    The corner is empty (as spreadsheets and pandas write it) or names the set of the rows.
    """
    if len(param.axes) != 2 or len(components(param.axes)) != 2 or not table.header or width < 2:
        return False
    return table.header[0] in ("", param.axes[0].name)
