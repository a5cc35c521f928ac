"""The inverse of :mod:`bilevelpy.ir.serial`: a bound program from its JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bilevelpy.diagnostics import Source, Span
from bilevelpy.errors import UsageError
from bilevelpy.ir.build import Builder
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.program import (
    Assumption,
    BoundProgram,
    Constraint,
    Data,
    Expect,
    Extern,
    ExternArgument,
    Level,
    Param,
    Program,
    Read,
    Report,
    Table,
    Variable,
)
from bilevelpy.ir.restore_nodes import MAKE, Document, label_of
from bilevelpy.ir.serial import FORMAT, VERSION, digest
from bilevelpy.ir.types import (
    Axes,
    Axis,
    AxisKind,
    Domain,
    DomainKind,
    Relation,
    Sense,
    Stance,
)
from bilevelpy.system.storage import number


class Damage(ValueError):
    """What a document says that cannot be."""


def _told(error: Exception) -> str:
    """An exception of reading as a phrase; Python's words about its own types help nobody."""
    if isinstance(error, Damage):
        return str(error)
    if isinstance(error, KeyError):
        return f"an entry has no `{error.args[0]}`"
    if isinstance(error, RecursionError):
        return "its expressions are nested too deeply"
    return "a value is not of the kind that belongs there"


def decode(
    content: Document, arrays: Mapping[str, Any], externs: Mapping[str, Any]
) -> BoundProgram:
    """The bound program of a document.

    Parameters
    ----------
    arrays
        Arrays that stand beside the document, by the names it has for them.
    externs
        Functions for the model's ``extern`` declarations.

    Raises
    ------
    UsageError
        Where it is no such document, is of a later version, or is damaged.
    """
    if content.get("format") != FORMAT:
        raise UsageError(f'this is no model: `format` is not "{FORMAT}"')
    if content.get("version") != VERSION:
        raise UsageError(
            f"this model has version {content.get('version')} of the format, this program reads "
            f"version {VERSION}"
        )
    try:
        bound = _Reader(content, arrays).bound(externs)
        found = digest(bound)
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise UsageError(f"this model is damaged: {_told(error)}") from error
    if found != content.get("digest"):
        raise UsageError("this model is damaged: its content does not fit its `digest`")
    return bound


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Damage("a text is expected where another value stands")
    return value


class _Reader:
    """Rebuilds objects in the order of the document."""

    def __init__(self, content: Document, arrays: Mapping[str, Any]) -> None:
        self.content = content
        self.beside = arrays
        self.builder = Builder()
        self.things: list[Any] = []

    def bound(self, externs: Mapping[str, Any]) -> BoundProgram:
        for place, entry in enumerate(self.content["objects"]):
            try:
                self.things.append(
                    self._axis(entry) if "axis" in entry and "kind" in entry else self._node(entry)
                )
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                raise Damage(f"object {place}: {_told(error)}") from error
        program = self._program(self.content["program"])
        return BoundProgram(program, self._data(self.content["data"], externs))

    def expr(self, place: int | None) -> Any:
        """The node at a place; None for None."""
        if place is None:
            return None
        found = self._thing(place)
        if not isinstance(found, Expr):
            raise Damage(f"object {place} is no node")
        return found

    def axis(self, place: int) -> Axis:
        found = self._thing(place)
        if not isinstance(found, Axis):
            raise Damage(f"object {place} is no axis")
        return found

    def _thing(self, place: Any) -> Any:
        """What stands at a place: objects read those before them only."""
        if isinstance(place, bool) or not isinstance(place, int):
            raise Damage("a place among the objects is a whole number")
        if not 0 <= place < len(self.things):
            raise Damage(f"there is no object {place} before it")
        return self.things[place]

    def axes(self, places: Sequence[int]) -> Axes:
        return tuple(self.axis(p) for p in places)

    def span(self, value: Sequence[Any] | None) -> Span | None:
        return None if value is None else Span(str(value[0]), int(value[1]), int(value[2]))

    def _axis(self, entry: Document) -> Axis:
        kind = AxisKind(entry["kind"])
        size = self.expr(entry["size"])
        if kind is AxisKind.SIZE:
            # Equal sizes are one axis for the builder too.
            return self.builder.size_axis(int(size.value))
        return Axis(
            entry["axis"],
            kind,
            self.span(entry["span"]),
            size,
            self.expr(entry["low"]),
            self.expr(entry["high"]),
            None if entry["labels"] is None else tuple(label_of(v) for v in entry["labels"]),
            self.axes(entry["parents"]),
            self.expr(entry["condition"]),
            entry["operation"],
            self.axes(entry["operands"]),
            entry["doc"],
        )

    def _node(self, entry: Document) -> Expr:
        operands = [self.expr(p) for p in entry["operands"]]
        if entry["node"] not in MAKE:
            raise Damage(f"there is no node of the kind {entry['node']!r}")
        return MAKE[entry["node"]](self, entry, operands)

    def _domain(self, entry: Document) -> Domain:
        ends = [self.expr(entry[k]) for k in ("lower", "upper", "radius")]
        return Domain(
            DomainKind(entry["kind"]), ends[0], ends[1], ends[2], self.span(entry["span"])
        )

    def _default(self, entry: Document | None) -> Expr | Read | Table | None:
        if entry is None:
            return None
        if "expr" in entry:
            made: Expr = self.expr(entry["expr"])
            return made
        span = self.span(entry["span"]) or Span("", 0, 0)
        if "read" in entry:
            form, path, key = entry["read"]
            return Read(form, path, key, entry["folder"], span)
        return Table({label_of(k): number(v) for k, v in entry["table"]}, span)

    def _program(self, entry: Document) -> Program:
        levels = [self._level(level) for level in entry["levels"]]
        params = [
            Param(
                p["name"],
                self.axes(p["axes"]),
                self._domain(p["domain"]),
                self._default(p["default"]),
                self.span(p["span"]),
                p["doc"],
            )
            for p in entry["params"]
        ]
        reports = [Report(n, self.expr(v), self.span(s), d) for n, v, s, d in entry["reports"]]
        return Program(
            entry["name"],
            entry["title"],
            {name: self.axis(p) for name, p in entry["axes"].items()},
            {p.name: p for p in params},
            {e["name"]: self._extern(e) for e in entry["externs"]},
            levels[0],
            tuple(levels[1:]),
            Stance(entry["stance"]),
            {r.name: r for r in reports},
            tuple(self._expect(e) for e in entry["expects"]),
            {name: Source(name, _text(text)) for name, text in entry["sources"].items()},
            self.builder,
        )

    def _extern(self, entry: Document) -> Extern:
        return Extern(
            entry["name"],
            tuple(ExternArgument(n, self.axes(a)) for n, a in entry["arguments"]),
            self.axes(entry["result"]),
            tuple((n, tuple(args)) for n, args in entry["properties"]),
            self.span(entry["span"]),
            entry["doc"],
        )

    def _expect(self, entry: Document) -> Expect:
        value = entry["level"] if entry["level"] is not None else self.expr(entry["value"])
        ends = number(entry["expected"]), number(entry["tolerance"])
        return Expect(value, *ends, entry["text"], self.span(entry["span"]))

    def _level(self, entry: Document) -> Level:
        name = entry["name"]
        variables = [
            Variable(
                v["name"],
                name,
                self.axes(v["axes"]),
                self._domain(v["domain"]),
                self.expr(v["start"]),
                self.span(v["span"]),
                v["doc"],
            )
            for v in entry["variables"]
        ]
        constraints = [
            Constraint(
                c["name"],
                self.axes(c["axes"]),
                tuple(self.expr(t) for t in c["terms"]),
                tuple(Relation(r) for r in c["relations"]),
                self.span(c["span"]),
                c["doc"],
            )
            for c in entry["constraints"]
        ]
        facts = [
            Assumption(
                a["name"],
                tuple(self.expr(x) for x in a["arguments"]),
                a["constraint"],
                self.span(a["span"]),
            )
            for a in entry["assumptions"]
        ]
        return Level(
            name,
            self.axes(entry["family"]),
            tuple(variables),
            Sense(entry["sense"]),
            self.expr(entry["objective"]),
            tuple(constraints),
            tuple(facts),
            bool(entry["nash"]),
            self.span(entry["span"]),
            entry["doc"],
        )

    def _data(self, entry: Document, externs: Mapping[str, Any]) -> Data:
        return Data(
            {self.axis(p): int(n) for p, n in entry["sizes"]},
            {self.axis(p): tuple(label_of(v) for v in values) for p, values in entry["labels"]},
            {
                self.axis(p): self._numbers(values, np.int64).reshape(-1, len(self.axis(p).parents))
                for p, values in entry["members"]
            },
            {name: self._array(value) for name, value in entry["arrays"].items()},
            dict(externs),
            dict(entry["origins"]),
        )

    def _numbers(self, value: Any, dtype: Any) -> np.ndarray[Any, Any]:
        if isinstance(value, str):
            if value not in self.beside:
                raise Damage(f"the file beside it holds no array `{value}`")
            return np.asarray(self.beside[value], dtype=dtype)
        if dtype is np.float64:
            return np.array([number(v) for v in value], dtype=dtype)
        return np.array(value, dtype=dtype)

    def _array(self, entry: Document) -> Any:
        shape = tuple(int(n) for n in entry["shape"])
        if "values" in entry:
            return self._numbers(entry["values"], np.float64).reshape(shape)
        from scipy.sparse import csr_matrix

        parts = (
            self._numbers(entry["data"], np.float64),
            self._numbers(entry["indices"], np.int64),
            self._numbers(entry["indptr"], np.int64),
        )
        return csr_matrix(parts, shape=shape)
