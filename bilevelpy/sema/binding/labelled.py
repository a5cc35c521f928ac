"""Elements of labelled axes: declared, bound by name, or found in the labels of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bilevelpy.diagnostics import Label as Place
from bilevelpy.ir.types import Axis, AxisKind, Label
from bilevelpy.sema.binding.lookup import Lookup, all_labels, one_label, twice
from bilevelpy.sema.binding.raw import Elements, Grid, Long, the
from bilevelpy.sema.binding.shapes import components, parts_of
from bilevelpy.sema.binding.state import State, close_to, label_text, listed, number_text


def resolve_labelled(state: State, axis: Axis) -> None:
    """Elements by declaration, by name, or from the labels of the data."""
    if axis.labels is not None:
        _set_labels(state, axis, axis.labels, "its declaration")
        return
    if axis.name in state.given_axes:
        given, origin = state.given_axes[axis.name]
        if not isinstance(given, Elements):
            hint = f"pass a list of its elements as `{axis.name}`"
            _wrong_elements(state, axis, f"the number {number_text(given)}", hint)
            return
        _set_labels(state, axis, given.labels, the(origin))
        return
    found = _from_data(state, axis)
    if found is not None:
        _set_labels(state, axis, *found)
        return
    if not undetermined(state, axis):
        users = [p.name for p in state.program.params.values() if axis in p.axes]
        hint = f"bind `{axis.name}` to the list of its elements"
        if users:
            hint += f", or give {listed(f'`{u}`' for u in users)} by label"
        parts = [part.name for part in parts_of(axis)]
        if users and len(parts) > 1:
            hint += (
                f" (in a CSV: the columns {', '.join(f'`{n}`' for n in parts)} and one for each)"
            )
        state.report(
            "BLV0408",
            axis.span,
            "its elements come from the data",
            poison=axis,
            what="elements",
            axis=axis.name,
            hint=hint,
        )
    state.failed.add(axis)


def _from_data(state: State, axis: Axis) -> tuple[tuple[Label, ...], str] | None:
    """Elements from the first labelled value over the axis, or over pairs that are made of it."""
    arity = len(parts_of(axis))
    for param in state.program.params.values():
        given = state.given.get(param.name)
        if given is None:
            continue
        place = 0
        for d, own in enumerate(param.axes):
            width = len(parts_of(own))
            if own is axis:
                labels = _labels_at(given.value, d, place, arity)
                if labels is not None:
                    return labels, given.describe()
            place += width
    for param in state.program.params.values():
        given = state.given.get(param.name)
        parts = components(param.axes)
        if given is not None and isinstance(given.value, Long) and axis in parts and arity == 1:
            places = [k for k, part in enumerate(parts) if part is axis]
            return tuple(
                dict.fromkeys(key[k] for k in places for key in given.value.keys if k < len(key))
            ), given.describe()
    for other in state.program.axes.values():
        named = state.given_axes.get(other.name)
        labels = (
            named[0].labels
            if named is not None and isinstance(named[0], Elements)
            else other.labels
        )
        parts = parts_of(other)
        if labels is not None and axis in parts and other is not axis and len(parts) > 1:
            places = [k for k, part in enumerate(parts) if part is axis]
            tuples = [k for k in labels if isinstance(k, tuple) and len(k) == len(parts)]
            return tuple(
                dict.fromkeys(label[k] for label in tuples for k in places)
            ), f"the elements of {other.name}"
    return None


def _labels_at(value: Grid | Long, dim: int, place: int, arity: int) -> tuple[Label, ...] | None:
    if isinstance(value, Grid):
        return value.labels[dim] if dim < len(value.labels) else None
    keys = [
        one_label(key[place : place + arity]) for key in value.keys if len(key) >= place + arity
    ]
    return tuple(dict.fromkeys(keys))


def _wrong_elements(state: State, axis: Axis, found: str, hint: str | None = None) -> None:
    state.report(
        "BLV0419", axis.span, "declared here", poison=axis, axis=axis.name, found=found, hint=hint
    )


def _set_labels(state: State, axis: Axis, labels: Sequence[Label], origin: str) -> None:
    repeated = twice(labels)
    if repeated:
        twice_in = listed(label_text(k) for k in repeated)
        _wrong_elements(state, axis, f"{origin}: it has {twice_in} twice")
        return
    if axis.parents and not _set_members(state, axis, labels, origin):
        return
    if not axis.parents or axis.kind is AxisKind.PAIRS or not axis.is_numeric:
        state.labels[axis] = tuple(labels)
    state.set_size(axis, len(labels), axis.span, f"the elements from {origin}")


def _set_members(state: State, axis: Axis, labels: Sequence[Label], origin: str) -> bool:
    """Positions of the labels in the parents; False if some are not there."""
    widths = [len(parts_of(p)) for p in axis.parents]
    lookups = [Lookup(state, p) for p in axis.parents]
    members = np.zeros((len(labels), len(axis.parents)), dtype=np.int64)
    for row, label in enumerate(labels):
        parts = label if isinstance(label, tuple) else (label,)
        if len(parts) != sum(widths):
            wanted = " and ".join(p.name for p in axis.parents)
            found = f"{origin}: {label_text(label)} is not made of {wanted}"
            _wrong_elements(state, axis, found)
            return False
        start = 0
        for k, (parent, lookup, width) in enumerate(
            zip(axis.parents, lookups, widths, strict=True)
        ):
            part = one_label(tuple(parts[start : start + width]))
            position = lookup.find(part)
            if position is None:
                unknown_element(state, axis, axis.name, part, parent)
                return False
            members[row, k] = position
            start += width
    state.members[axis] = members
    return True


def unknown_element(
    state: State, poison: Axis | str, name: str, label: Any, axis: Axis, more: int = 0
) -> None:
    """Report a label of the data that the axis does not have."""
    spans = (
        state.program.params[name].span
        if name in state.program.params
        else getattr(poison, "span", None)
    )
    setter = state.setters.get(axis)
    similar = (
        close_to(label, [k for k in all_labels(state, axis) if isinstance(k, str)])
        if isinstance(label, str)
        else None
    )
    places = (
        (Place(axis.span, f"elements from {setter.text.removeprefix('the elements from ')}"),)
        if axis.span is not None and setter is not None
        else ()
    )
    text = label_text(label) + (f" and {more} more" if more else "")
    known = listed((label_text(k) for k in all_labels(state, axis)), 6)
    state.report(
        "BLV0410",
        spans,
        f"from {the(state.given[name].origin)}" if name in state.given else "its elements",
        poison=poison,
        secondary=places,
        name=name,
        element=text,
        axis=axis.name,
        notes=(f"elements of `{axis.name}`: {known}",),
        hint=f"did you mean {label_text(similar)}?" if similar else None,
    )


def combine(state: State, axis: Axis) -> None:
    """`union`, `inter`, `diff` of sets, in the order of the left operand."""
    labels = list(dict.fromkeys(all_labels(state, axis.operands[0])))
    for operand in axis.operands[1:]:
        other = all_labels(state, operand)
        inside = set(other)
        if axis.operation == "union":
            labels = list(dict.fromkeys([*labels, *other]))
        elif axis.operation == "inter":
            labels = [k for k in labels if k in inside]
        else:
            labels = [k for k in labels if k not in inside]
    _set_labels(state, axis, labels, f"`{axis.operation}`")


def undetermined(state: State, axis: Axis) -> bool:
    """Whether an error elsewhere explains why nothing is known about ``axis``."""
    if "*" in state.failed or axis in state.failed:
        return True
    return any(
        p.name in state.failed for p in state.program.params.values() if _mentions(p.axes, axis)
    )


def _mentions(axes: Sequence[Axis], axis: Axis) -> bool:
    return axis in axes or axis in components(tuple(axes))
