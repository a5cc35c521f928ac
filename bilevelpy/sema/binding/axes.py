"""Sizes, labels and members of axes, each once everything that it is made of is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bilevelpy.diagnostics import Label as Place
from bilevelpy.ir.types import Axis, AxisKind
from bilevelpy.sema.binding.labelled import combine, resolve_labelled, undetermined
from bilevelpy.sema.binding.lookup import all_labels
from bilevelpy.sema.binding.problems import evaluation_problem
from bilevelpy.sema.binding.raw import Elements, Grid, Long, the
from bilevelpy.sema.binding.shapes import components
from bilevelpy.sema.binding.state import State, label_text, listed, number_text

PRODUCT_LIMIT = 200_000_000
"""Largest number of candidates that a condition is evaluated for."""


def resolve_axis(state: State, axis: Axis) -> None:
    """Find the size of an axis, its labels and its members; report what is missing or wrong."""
    if axis.operation is not None:
        combine(state, axis)
    elif axis.kind is AxisKind.CONCAT:
        state.set_size(
            axis, sum(state.sizes[p] for p in axis.parents), axis.span, "the parts of `concat`"
        )
    elif axis.kind in (AxisKind.DIM, AxisKind.SIZE):
        _dim(state, axis)
    elif axis.kind is AxisKind.RANGE:
        _range(state, axis)
    elif axis.condition is not None:
        _condition(state, axis)
    else:
        resolve_labelled(state, axis)
    if axis in state.sizes and axis.kind is not AxisKind.RANGE:
        _check_fixed(state, axis)


# --- sizes --------------------------------------------------------------------------------------


def _dim(state: State, axis: Axis) -> None:
    if axis.size is not None:
        value = evaluation_problem(state, axis.size, axis)
        if value is not None:
            _set_dim(state, axis, float(value), axis.span, "its declaration")
        return
    if axis.name in state.given_axes:
        found, origin = state.given_axes[axis.name]
        if isinstance(found, Elements):
            numbers = [k for k in found.labels if isinstance(k, int)]
            found = (
                float(max(numbers, default=0)) if len(numbers) == len(found.labels) else math.nan
            )
        _set_dim(state, axis, found, axis.span, the(origin))
        return
    for param in state.program.params.values():
        given = state.given.get(param.name)
        if given is None or axis not in components(param.axes):
            continue
        size = _seen_size(axis, param.axes, given.value)
        if size is not None:
            _set_dim(state, axis, float(size), param.span, given.describe())
            return
    if not undetermined(state, axis):
        state.report(
            "BLV0408",
            axis.span,
            "declared here",
            poison=axis,
            what="size",
            axis=axis.name,
            hint=f"bind `{axis.name}` by name, or an array over it",
        )
    state.failed.add(axis)


def _seen_size(axis: Axis, axes: Sequence[Axis], value: Grid | Long) -> int | None:
    """How long a bound value says that ``axis`` is."""
    if isinstance(value, Grid):
        shape = value.array.shape
        if len(shape) == 2 and len(axes) == 1 and value.loose and shape[1] == 1:
            shape = shape[:1]
        if len(shape) != len(axes) or axis not in axes:
            return None
        return int(shape[list(axes).index(axis)])
    place = components(tuple(axes)).index(axis)
    try:
        numbers = [float(key[place]) for key in value.keys]
    except (ValueError, IndexError):
        return None
    return int(max(numbers, default=0.0))


def _set_dim(state: State, axis: Axis, size: float, span: Any, text: str) -> None:
    if not (math.isfinite(size) and size >= 1 and size == int(size)):
        places = (Place(span, f"from {text}"),) if span is not None and span != axis.span else ()
        state.report(
            "BLV0416",
            axis.span or span,
            "declared here",
            poison=axis,
            secondary=places,
            axis=axis.name,
            found=number_text(size) if math.isfinite(size) else str(size),
            notes=() if places else (f"it comes from {text}",),
            hint="nothing is left in this data: look at what selects or reads it"
            if size == 0 and places
            else None,
        )
        return
    state.set_size(axis, int(size), span, text)


def _range(state: State, axis: Axis) -> None:
    ends = []
    for end in (axis.low, axis.high):
        value = evaluation_problem(state, end, axis) if end is not None else None
        if value is None:
            return
        number = float(value)
        if not (math.isfinite(number) and number == int(number)):
            state.report(
                "BLV0424",
                axis.span or (end.span if end else None),
                "declared here",
                poison=axis,
                axis=axis.name,
                found=number_text(number) if math.isfinite(number) else str(number),
            )
            return
        ends.append(int(number))
    state.set_size(
        axis, max(ends[1] - ends[0] + 1, 0), axis.span, f"the range {ends[0]}..{ends[1]}"
    )
    if axis.name in state.given_axes:
        given, origin = state.given_axes[axis.name]
        wanted = tuple(range(ends[0], ends[1] + 1))
        if not isinstance(given, Elements) or not set(given.labels) <= set(wanted):
            _fixed(state, axis, given, origin)


def _condition(state: State, axis: Axis) -> None:
    assert axis.condition is not None
    sizes = [state.sizes[p] for p in axis.parents]
    if math.prod(sizes) > PRODUCT_LIMIT:
        state.report(
            "BLV0425",
            axis.span,
            "",
            poison=axis,
            what=f"the condition over {listed(p.name for p in axis.parents)}",
            notes=(f"it has {math.prod(sizes):,} combinations, the limit is {PRODUCT_LIMIT:,}",),
        )
        return
    value = evaluation_problem(state, axis.condition, axis)
    if value is None:
        return
    members = np.argwhere(np.broadcast_to(value.astype(bool), sizes))
    state.members[axis] = members
    parent = axis.parents[0]
    if len(axis.parents) == 1 and parent in state.labels:
        state.labels[axis] = tuple(state.labels[parent][k] for k in members[:, 0])
    state.set_size(axis, len(members), axis.span, "its condition")


# --- what the model fixes -----------------------------------------------------------------------


def _check_fixed(state: State, axis: Axis) -> None:
    """A size or elements that the model declares do not change; the same value again is fine."""
    declared = (
        axis.size is not None
        or axis.labels is not None
        or axis.condition is not None
        or axis.operation is not None
    )
    if (
        not declared
        or state.program.axes.get(axis.name) is not axis
        or axis.name not in state.given_axes
    ):
        return
    given, origin = state.given_axes[axis.name]
    if isinstance(given, Elements):
        # Rows of a table may name a part of a set.
        same = set(given.labels) <= set(all_labels(state, axis))
    else:
        same = given == state.sizes[axis]
    if not same:
        _fixed(state, axis, given, origin)


def _fixed(state: State, axis: Axis, given: Any, origin: str) -> None:
    found = (
        listed(label_text(k) for k in given.labels)
        if isinstance(given, Elements)
        else number_text(given)
    )
    state.report(
        "BLV0418",
        axis.span,
        "declared here",
        axis=axis.name,
        found=found,
        notes=(f"from {the(origin)}",),
        hint=f"leave `{axis.name}` out of the data, or declare it without a value",
    )
