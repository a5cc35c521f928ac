"""Declared sets: the axes that labels, ranges, tables and sets of other sets make."""

from __future__ import annotations

from collections.abc import Generator

from bilevelpy.diagnostics import Label, Span
from bilevelpy.ir.types import Axes, Axis, AxisKind
from bilevelpy.sema.axes import (
    axes_of,
    axis_of,
    checked_labels,
    combine,
    counted,
    declared_labels,
    named_axis,
    range_of,
)
from bilevelpy.sema.expressions.points import parts_of
from bilevelpy.sema.scope import AT_TOP, Request, State
from bilevelpy.sema.values import Value
from bilevelpy.syntax import ast


def set_axis(state: State, node: ast.SetItem) -> Generator[Request, Value | None, Axis | None]:
    """The axis of a declared set; None after a message."""
    name, span, doc, value = node.name, node.name_span, node.doc, node.value
    if node.within is None:
        match value:
            case None:
                return Axis(name, AxisKind.LABELS, span=span, doc=doc)
            case ast.Range():
                made = yield from range_of(state, AT_TOP, value, name)
                if made is None:
                    return None
                return Axis(name, AxisKind.RANGE, span=span, low=made.low, high=made.high, doc=doc)
            case ast.LabelSet():
                return declared_labels(state, AT_TOP, name, value, doc, span)
            case ast.SetOperation():
                made = yield from axis_of(state, AT_TOP, value)
                return _named(made, name, span, doc) if made is not None else None
            case ast.Name():
                # `set A = B` is another name of the same axis.
                return named_axis(state, AT_TOP, value)
            case _:
                state.error(
                    "BLV0310",
                    value.span,
                    "not a set",
                    name=state.text(value.span),
                    what="a value",
                    hint='a set is a range `1..n`, labels `{"a", "b"}`, or a combination of sets',
                )
                return None
    factors = node.within.factors if isinstance(node.within, ast.CrossProduct) else (node.within,)
    parents = yield from axes_of(state, AT_TOP, factors)
    if parents is None:
        return None
    kind = AxisKind.PAIRS if len(parents) > 1 else AxisKind.SUBSET
    match value:
        case None:
            return Axis(name, kind, span=span, parents=parents, doc=doc)
        case ast.LabelSet():
            labels = checked_labels(state, AT_TOP, value)
            _check_members(state, value, parents, name)
            return Axis(name, kind, span=span, labels=labels, parents=parents, doc=doc)
        case _:
            other = yield from axis_of(state, AT_TOP, value)
            if other is None:
                return None
            if kind is AxisKind.SUBSET:
                if other.descends_from(parents[0]):
                    return _named(other, name, span, doc)
                other = combine(state, "inter", parents[0], other)
                return _named(other, name, span, doc) if other is not None else None
            return _named(other, name, span, doc)


def _named(axis: Axis, name: str, span: Span, doc: str | None) -> Axis:
    """A set expression under the name of its declaration."""
    return Axis(
        name,
        axis.kind,
        span=span,
        size=axis.size,
        low=axis.low,
        high=axis.high,
        labels=axis.labels,
        parents=axis.parents,
        condition=axis.condition,
        operation=axis.operation,
        operands=axis.operands,
        doc=doc,
    )


def _check_members(state: State, node: ast.LabelSet, parents: Axes, name: str) -> None:
    """Elements of a subset or of pairs must be elements of the sets they are taken from."""
    width = _width(parents) if len(parents) == 1 else len(parents)
    for element, span in zip(node.elements, node.element_spans, strict=True):
        parts = element if isinstance(element, tuple) else (element,)
        if len(parts) != width:
            state.error(
                "BLV0321", span, "another length", expected=counted(width, "label"), axis=name
            )
            continue
        # Elements of a subset of pairs are pairs.
        taken = (element,) if len(parents) == 1 else parts
        for item, parent in zip(taken, parents, strict=True):
            wrong_kind = parent.is_numeric and isinstance(item, str)
            if wrong_kind or (parent.labels is not None and item not in parent.labels):
                state.error(
                    "BLV0306",
                    span,
                    f"not in {parent.name}",
                    secondary=[Label(parent.span, "declared here")] if parent.span else [],
                    found=state.text(span)
                    if isinstance(item, tuple)
                    else f'"{item}"'
                    if isinstance(item, str)
                    else item,
                    axis=parent.name,
                )


def _width(axes: Axes) -> int:
    """How many labels name an entry over the axes; an element of a set of pairs has several."""
    return sum(max(len(parts_of(a)), 1) for a in axes)
