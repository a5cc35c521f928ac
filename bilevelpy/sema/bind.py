"""Binding: a program and data become a bound program, or a list of all that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from bilevelpy.errors import DataError
from bilevelpy.ir.program import BoundProgram
from bilevelpy.ir.types import Axis
from bilevelpy.sema.binding.axes import resolve_axis
from bilevelpy.sema.binding.collect import bind_externs, caller_sources, collect
from bilevelpy.sema.binding.domains import check_values
from bilevelpy.sema.binding.indices import check_empty, check_subscripts
from bilevelpy.sema.binding.order import Thing, needs, ordered
from bilevelpy.sema.binding.params import check_ranks, resolve_param
from bilevelpy.sema.binding.shapes import program_axes
from bilevelpy.sema.binding.state import State
from bilevelpy.sema.binding.variables import check_variables

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Diagnostic
    from bilevelpy.ir.program import Program

Path = str | PathLike[str]


def bind(
    program: Program,
    data: Mapping[str, Any] | Path | Any | None = None,
    *,
    keywords: Mapping[str, Any] | None = None,
    files: Sequence[tuple[str | None, Path]] = (),
    externs: Mapping[str, Callable[..., Any]] | None = None,
) -> BoundProgram:
    """Give every param its array and every axis its size.

    Parameters
    ----------
    program
        A program without errors.
    data
        A mapping from names to values, a pandas DataFrame (a column per param), or the path of a
        data file.
    keywords
        Values by name; they win over ``data``.
    files
        ``(name, path)`` for a file that holds one name, ``(None, path)`` for one with several.
    externs
        Name -> function.

    Returns
    -------
    BoundProgram
        With arrays kept by reference where they are float64 already.

    Raises
    ------
    DataError
        With every independent error.
    """
    state = State(program)
    collect(state, caller_sources(state, keywords or {}, data, files))
    bind_externs(state, externs or {})
    used = set(program_axes(program))
    check_ranks(state)
    things: list[Thing] = [*program.axes.values(), *program_axes(program), *program.params]
    for thing in ordered(state, things):
        if thing in state.failed:
            continue
        if any(n in state.failed for n in needs(state, thing)):
            state.failed.add(thing)
        elif isinstance(thing, str):
            resolve_param(state, program.params[thing])
        else:
            resolve_axis(state, thing)
    for param in program.params.values():
        if param.name in state.arrays:
            check_values(state, param)
    if "*" not in state.failed:
        check_subscripts(state)
        check_empty(state)
        check_variables(state)
    problems = [d for d in state.diagnostics if _matters(d, used)]
    if problems:
        raise DataError(sorted(problems, key=_place), program.sources)
    sizes = {a: n for a, n in state.sizes.items() if a in used}
    named = {axis: (n.labels, n.name) for axis, n in state.named.items()}
    return BoundProgram(program, replace(state.data, sizes=sizes, named=named))


def _matters(problem: Diagnostic, used: set[Axis]) -> bool:
    """Nobody misses the size of an axis that nothing uses."""
    if problem.code != "BLV0408" or problem.primary is None:
        return True
    return any(axis.span == problem.primary.span for axis in used)


def _place(problem: Diagnostic) -> tuple[str, int]:
    """Where a diagnostic stands in the text; those without a place come first."""
    return (problem.primary.span.file, problem.primary.span.start) if problem.primary else ("", -1)
