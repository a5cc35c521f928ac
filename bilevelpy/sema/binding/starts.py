"""Start values that a caller hands over, as arrays over the axes of their variables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bilevelpy.errors import DataError, UsageError
from bilevelpy.ir.program import BoundProgram, Param, Variable
from bilevelpy.sema.binding.convert import convert
from bilevelpy.sema.binding.counted import Named
from bilevelpy.sema.binding.params import check_ranks, resolve_param
from bilevelpy.sema.binding.raw import Given, Grid, Long, NotNumbers
from bilevelpy.sema.binding.state import Setter, State

Array = np.ndarray[Any, np.dtype[np.float64]]


def start_array(
    bound: BoundProgram, name: str, variable: Variable, value: Any, what: str = "start"
) -> Array:
    """The value as a finite array in the variable's shape; a number goes for all entries.

    Tables of pandas and mappings are aligned by label, as data is; all else goes by position.
    ``name`` is what the caller calls the variable, ``what`` what the value is for.

    Raises
    ------
    UsageError
        For what is no number, has another shape or is not finite.
    DataError
        For labels that do not fit.
    """
    try:
        given = convert(value, axes=variable.axes)
    except NotNumbers as problem:
        raise UsageError(f"{what}: `{name}` takes numbers, found {problem}") from None
    shape = tuple(bound.data.sizes[a] for a in variable.axes)
    labelled = isinstance(given, Long) or (given.loose and given.array.ndim)
    array: Any
    if labelled and shape:
        array = _aligned(bound, variable, given)
    else:
        array = given.values if isinstance(given, Long) else given.array
        array = array.toarray() if hasattr(array, "toarray") else array
        if array.shape not in ((), shape):
            raise UsageError(f"{what}: `{name}` has shape {shape}, found {array.shape}")
    if not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(np.atleast_1d(array)))[0])
        where = f" at index {list(place)}" if array.ndim else ""
        bad = np.atleast_1d(array)[place]
        raise UsageError(f"{what}: `{name}` must be finite, found {bad}{where}")
    return np.array(np.broadcast_to(array, shape), dtype=np.float64)


def _aligned(bound: BoundProgram, variable: Variable, given: Grid | Long) -> Any:
    """Labelled values in the order of the variable's axes: read as data over them would be."""
    program, data = bound.program, bound.data
    stand_in = Param(variable.name, variable.axes, span=variable.span)
    state = State(
        replace(program, params={**program.params, variable.name: stand_in}),
        given={variable.name: Given(given, "`start`")},
        sizes=dict(data.sizes),
        labels=dict(data.labels),
        members=dict(data.members),
        arrays=dict(data.arrays),
        setters={a: Setter(a.span, "its declaration or data") for a in variable.axes},
        named={
            axis: Named(labels, name, labels == tuple(range(len(labels))))
            for axis, (labels, name) in data.named.items()
        },
    )
    check_ranks(state)
    if not state.diagnostics:
        resolve_param(state, stand_in)
    if state.diagnostics:
        raise DataError(state.diagnostics, program.sources)
    return state.arrays[variable.name]
