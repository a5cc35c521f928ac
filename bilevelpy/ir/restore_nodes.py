"""Nodes from their entries in a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bilevelpy.ir.expr import Expr
from bilevelpy.system.storage import number

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.build import Builder
    from bilevelpy.ir.types import Axes, Axis

Document = Mapping[str, Any]


class Reading(Protocol):
    """A document that is read: what its entries say of by number."""

    builder: Builder

    def expr(self, place: int | None) -> Any:
        """The node of that number."""
        ...

    def axis(self, place: int) -> Axis:
        """The axis of that number."""
        ...

    def axes(self, places: Sequence[int]) -> Axes:
        """Several."""
        ...

    def span(self, value: Sequence[Any] | None) -> Span | None:
        """A place in a source."""
        ...


def label_of(value: Any) -> Any:
    """A label: a pair is a list in JSON."""
    return tuple(value) if isinstance(value, list) else value


def _gather(r: Reading, e: Document, o: list[Expr]) -> Expr:
    return r.builder.gather(o[0], [r.expr(i) for i in e["index"]], r.span(e.get("span")))


def _einsum(r: Reading, e: Document, o: list[Expr]) -> Expr:
    pairs = [(node, tuple(labels)) for node, labels in zip(o, e["subscripts"], strict=True)]
    return r.builder.einsum(pairs, tuple(e["output"]), r.span(e.get("span")))


def _scatter(r: Reading, e: Document, o: list[Expr]) -> Expr:
    axes = r.axes(e["axes"])[: len(o) - 1]
    return r.builder.scatter_sum(o[0], o[1:], axes, r.span(e.get("span")))


MAKE: dict[str, Callable[[Reading, Document, list[Expr]], Expr]] = {
    "Const": lambda r, e, o: r.builder.const(number(e["value"]), r.span(e.get("span"))),
    "Array": lambda r, e, o: r.builder.array(
        [number(v) for v in e["values"]], r.axes(e["axes"]), r.span(e.get("span"))
    ),
    "Fill": lambda r, e, o: r.builder.fill(
        number(e["value"]), r.axes(e["axes"]), r.span(e.get("span"))
    ),
    "Eye": lambda r, e, o: r.builder.eye(r.axis(e["axes"][0]), r.span(e.get("span"))),
    "ParamRef": lambda r, e, o: r.builder.param(
        e["name"], r.axes(e["axes"]), r.span(e.get("span"))
    ),
    "VarRef": lambda r, e, o: r.builder.var(
        e["level"], e["name"], r.axes(e["axes"]), r.span(e.get("span"))
    ),
    "DualRef": lambda r, e, o: r.builder.dual(
        e["level"], e["constraint"], r.axes(e["axes"]), r.span(e.get("span"))
    ),
    "Size": lambda r, e, o: r.builder.size(r.axis(e["axis"]), r.span(e.get("span"))),
    "Position": lambda r, e, o: r.builder.position(r.axis(e["axis"])),
    "Coordinate": lambda r, e, o: r.builder.coordinate(r.axis(e["axis"])),
    "Component": lambda r, e, o: r.builder.component(r.axis(e["axis"]), int(e["part"])),
    "LabelPosition": lambda r, e, o: r.builder.label_position(
        r.axis(e["axis"]), label_of(e["label"]), r.span(e.get("span"))
    ),
    "Locate": lambda r, e, o: r.builder.locate(
        r.axis(e["axis"]), o, bool(e["by_number"]), r.span(e.get("span"))
    ),
    "Apply": lambda r, e, o: r.builder.raw_apply(e["function"], tuple(o), r.span(e.get("span"))),
    "Einsum": _einsum,
    "Align": lambda r, e, o: r.builder.align(
        o[0], tuple(e["source"]), r.axes(e["axes"]), r.span(e.get("span"))
    ),
    "Reduce": lambda r, e, o: r.builder.raw_reduce(
        e["function"], o[0], tuple(e["dims"]), r.span(e.get("span"))
    ),
    "MapLast": lambda r, e, o: r.builder.map_last(e["function"], o[0], r.span(e.get("span"))),
    "Matrix": lambda r, e, o: r.builder.matrix(e["function"], o[0], r.span(e.get("span"))),
    "Gather": _gather,
    "ScatterSum": _scatter,
    "Concat": lambda r, e, o: r.builder.concat(o, r.axis(e["axes"][0]), r.span(e.get("span"))),
    "Diag": lambda r, e, o: r.builder.diag(o[0], r.span(e.get("span"))),
    "ExternCall": lambda r, e, o: r.builder.extern(
        e["name"], o, r.axes(e["axes"]), r.span(e.get("span"))
    ),
}
