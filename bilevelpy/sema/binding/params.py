"""Values to arrays over the axes of their params: alignment by label, sizes, defaults."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bilevelpy.diagnostics import Label as Place
from bilevelpy.ir.expr import Array as LiteralArray
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.program import Param
from bilevelpy.ir.sparse import DENSE_LIMIT, is_sparse
from bilevelpy.ir.types import Axis, AxisKind
from bilevelpy.sema.binding.counted import counted_order
from bilevelpy.sema.binding.labelled import unknown_element
from bilevelpy.sema.binding.lookup import Lookup, one_label, twice
from bilevelpy.sema.binding.problems import evaluation_problem
from bilevelpy.sema.binding.raw import Given, Grid, Long, shape_text, the
from bilevelpy.sema.binding.shapes import axes_text, parts_of
from bilevelpy.sema.binding.state import State, label_text, listed

REPEATED = 1 << 28
"""How often a number is repeated at most: 2 GB, of which a solve makes copies."""


def check_ranks(state: State) -> None:
    """Report values with the wrong number of axes before any of them sets a size."""
    for param in state.program.params.values():
        given = state.given.get(param.name)
        if given is None or param.name in state.failed:
            continue
        if isinstance(given.value, Long):
            _check_keys(state, param, given, given.value)
        elif not _fits(given.value, len(param.axes)):
            _wrong_rank(state, param, given, given.value.array.shape)


def _fits(grid: Grid, rank: int) -> bool:
    array = grid.array
    if array.ndim == rank or (array.ndim == 0 and rank):
        return True
    if rank == 0:
        return bool(array.size == 1) and not is_sparse(array)
    return grid.loose and array.ndim == 2 and rank == 1 and array.shape[1] == 1


def resolve_param(state: State, param: Param) -> None:
    """Give the param its array."""
    given = state.given.get(param.name)
    if given is not None:
        array = (
            _long(state, param, given)
            if isinstance(given.value, Long)
            else _grid(state, param, given)
        )
        origin = given.origin
    elif isinstance(param.default, Expr):
        array = _folded(state, param, param.default)
        origin = "default"
    else:
        return
    if array is None:
        state.failed.add(param.name)
        return
    state.arrays[param.name] = array
    state.origins[param.name] = origin


def _source(state: State, param: Param) -> str:
    return f"from {the(state.given[param.name].origin)}"


def _shape(state: State, param: Param) -> tuple[int, ...]:
    return tuple(state.sizes[a] for a in param.axes)


def _folded(state: State, param: Param, default: Expr) -> Any:
    if isinstance(default, LiteralArray) and len(default.values) != math.prod(_shape(state, param)):
        declared = f"{axes_text(param.axes)} = {shape_text(_shape(state, param))}"
        found = f"{len(default.values)} values"
        place = default.span or param.span
        state.report("BLV0403", place, "", name=param.name, declared=declared, found=found)
        return None
    value = evaluation_problem(state, default, param.name)
    if value is None:
        return None
    value = value.astype(np.float64, copy=False)
    shape = _shape(state, param)
    if value.shape == shape:
        return value if value.flags.c_contiguous else np.ascontiguousarray(value).reshape(shape)
    if value.ndim == 0:
        return _repeated(state, param, float(value))
    return _grid(state, param, Given(Grid(value, (None,) * value.ndim), "default"))


def _repeated(state: State, param: Param, value: float) -> Any:
    """A number over all axes."""
    shape = _shape(state, param)
    times = math.prod(shape)
    note = f"{value:g} would be repeated {times:,} times, at most {REPEATED:,} are made"
    try:
        if times <= REPEATED:
            return np.full(shape, value)
    except MemoryError:
        note = f"its {times:,} values do not fit into memory"
    state.report("BLV0425", param.span, "", what=f"`{param.name}`", notes=(note,))
    return None


# --- arrays -------------------------------------------------------------------------------------


def _grid(state: State, param: Param, given: Given) -> Any:
    assert isinstance(given.value, Grid)
    grid = given.value
    array, labels, rank = grid.array, grid.labels, len(param.axes)
    if is_sparse(array):
        return _sparse(state, param, given, array)
    if rank == 0 and array.size == 1:
        return array.reshape(())
    if array.ndim == 0 and rank:
        return _repeated(state, param, float(array))
    if grid.loose and array.ndim == 2 and rank == 1 and array.shape[1] == 1:
        array, labels = array[:, 0], labels[:1]
    rows = grid.rows
    for d, axis in enumerate(param.axes):
        own = labels[d]
        counts = grid.loose and axis.kind in (AxisKind.DIM, AxisKind.SIZE)
        if own is None or counts:
            if array.shape[d] != state.sizes[axis]:
                _conflict(state, param, given, d, array.shape)
                return None
            if not counts:
                continue
            order = counted_order(state, param, axis, own, array.shape[d])
        else:
            order = _order(state, param, axis, own)
        if order is None:
            return None
        if not np.array_equal(order, np.arange(array.shape[d])):
            array = np.take(array, order, axis=d)
            rows = rows[order] if rows is not None and d == 0 else rows
    if rows is not None:
        state.rows[param.name] = np.broadcast_to(rows.reshape(-1, *[1] * (rank - 1)), array.shape)
    return array


def _order(state: State, param: Param, axis: Axis, labels: tuple[Any, ...]) -> Any:
    """Where each element of the axis stands among ``labels``; None after a report."""
    again = twice(labels)
    if again:
        return _twice_labelled(state, param, again)
    lookup = Lookup(state, axis)
    places = [lookup.find(k) for k in labels]
    unknown = [k for k, p in zip(labels, places, strict=True) if p is None]
    if unknown:
        unknown_element(state, param.name, param.name, unknown[0], axis, len(unknown) - 1)
        return None
    order = np.full(state.sizes[axis], -1)
    order[np.array(places, dtype=np.int64)] = np.arange(len(labels))
    absent = np.flatnonzero(order < 0)
    if len(absent):
        _absent(
            state,
            param,
            (axis,),
            [state.element(axis, k) for k in absent[:3]],
            len(absent),
            len(order),
        )
        return None
    return order


def _sparse(state: State, param: Param, given: Given, matrix: Any) -> Any:
    for d, axis in enumerate(param.axes):
        if matrix.shape[d] != state.sizes[axis]:
            _conflict(state, param, given, d, matrix.shape)
            return None
    return matrix


def _wrong_rank(state: State, param: Param, given: Given, shape: tuple[int, ...]) -> None:
    rank = len(param.axes)
    found = f"{shape_text(shape)}" if shape else "a number"
    hint = None
    if sum(k != 1 for k in shape) <= rank < len(shape):
        hint = f"pass it with one axis, for example `{param.name}.ravel()`" if rank == 1 else None
    elif is_sparse(given.value.array) and rank == 1 if isinstance(given.value, Grid) else False:
        hint = "a sparse matrix has two axes"
    _misfit(state, param, given, found, hint)


def _misfit(state: State, param: Param, given: Given, found: str, hint: str | None = None) -> None:
    """Report a value of another shape than the axes of its param."""
    state.report(
        "BLV0403",
        param.span,
        f"bound to {given.describe()}",
        poison=param.name,
        name=param.name,
        declared=axes_text(param.axes),
        found=found,
        hint=hint,
    )


def _conflict(state: State, param: Param, given: Given, dim: int, shape: tuple[int, ...]) -> None:
    axis, rank = param.axes[dim], len(param.axes)
    expected, found = state.sizes[axis], shape[dim]
    words = {
        1: ("entry", "entries"),
        2: (("row", "rows"), ("column", "columns"))[dim if rank == 2 else 0],
    }.get(rank)
    along = words[found != 1] if words else f"entries along axis {dim + 1}"
    setter = state.setters[axis]
    text = f"`{axis.name}` was set to {expected} by {setter.text}"
    inside = setter.span is not None and setter.span != param.span
    first = (
        setter.span is not None and axis.size is None and axis.labels is None and axis.low is None
    )
    hint = None
    if first and inside:
        hint = f"bind arrays that agree on `{axis.name}`, or give `{param.name}` an axis of its own"
        if words and found > expected:
            extra = (
                f"extra {words[0]}"
                if found == expected + 1
                else f"{found - expected} extra {words[1]}"
            )
            hint = f"drop the {extra} of `{param.name}`, or give it an axis of its own"
    state.report(
        "BLV0402",
        param.span,
        f"bound to {given.describe()}",
        name=param.name,
        found=found,
        along=along,
        axis=axis.name,
        expected=expected,
        hint=hint,
        notes=() if inside else (text,),
        secondary=(Place(setter.span, text),) if inside and setter.span is not None else (),
    )


# --- values by key ------------------------------------------------------------------------------


def _check_keys(state: State, param: Param, given: Given, long: Long) -> None:
    width = sum(len(parts_of(a)) for a in param.axes)
    odd = next((k for k in long.keys if len(k) != width), None)
    if odd is not None or not param.axes:
        plural = "s" if odd is not None and len(odd) != 1 else ""
        found = f"labelled with {len(odd)} label{plural} a value" if odd else "labelled values"
        _misfit(state, param, given, found)


def _twice_labelled(state: State, param: Param, labels: Sequence[Any]) -> None:
    state.report(
        "BLV0423",
        param.span,
        _source(state, param),
        name=param.name,
        element=listed(label_text(k) for k in labels),
    )


def _long(state: State, param: Param, given: Given) -> Any:
    assert isinstance(given.value, Long)
    long = given.value
    widths = [len(parts_of(a)) for a in param.axes]
    again = twice(long.keys)
    if again:
        return _twice_labelled(state, param, [one_label(k) for k in again])
    shape = _shape(state, param)
    flat = np.zeros(len(long.keys), dtype=np.int64)
    start = 0
    for axis, width, size in zip(param.axes, widths, shape, strict=True):
        lookup = Lookup(state, axis)
        parts = [one_label(k[start : start + width]) for k in long.keys]
        cache = {part: lookup.find(part) for part in dict.fromkeys(parts)}
        unknown = [part for part, place in cache.items() if place is None]
        if unknown:
            unknown_element(state, param.name, param.name, unknown[0], axis, len(unknown) - 1)
            return None
        flat = flat * size + np.array([cache[part] for part in parts], dtype=np.int64)
        start += width
    total = math.prod(shape)
    if len(long.keys) < total:
        _report_holes(state, param, flat, shape)
        return None
    array = np.empty(total)
    array[flat] = long.values
    if long.rows is not None:
        rows = np.zeros(total, dtype=np.int64)
        rows[flat] = long.rows
        state.rows[param.name] = rows.reshape(shape)
    return array.reshape(shape)


def _report_holes(state: State, param: Param, flat: Any, shape: tuple[int, ...]) -> None:
    total = math.prod(shape)
    if total <= DENSE_LIMIT:
        present = np.zeros(total, dtype=bool)
        present[flat] = True
        first = np.flatnonzero(~present)[:3]
    else:
        known = set(flat.tolist())
        first = np.array([k for k in range(len(known) + 3) if k not in known][:3])
    entries = []
    for k in first:
        place = np.unravel_index(int(k), shape)
        entries.append(
            ", ".join(state.element(a, int(p)) for a, p in zip(param.axes, place, strict=True))
        )
    if len(param.axes) > 1:
        entries = [f"({e})" for e in entries]
    _absent(state, param, param.axes, entries, total - len(flat), total)


def _absent(
    state: State, param: Param, axes: tuple[Axis, ...], first: list[str], count: int, total: int
) -> None:
    names = f"`{axes[0].name}`" if len(axes) == 1 else axes_text(axes)
    shown = ", ".join(first) + (f" and {count - len(first)} more" if count > len(first) else "")
    state.report(
        "BLV0409",
        param.span,
        f"no value for {shown}",
        name=param.name,
        count=count,
        total=total,
        axes=names,
        notes=(f"its data comes {_source(state, param)}",),
        hint="give every element a value; nothing is filled in",
    )
