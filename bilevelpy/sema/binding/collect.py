"""Finds the value of every name: the first source that has it, else the model's default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bilevelpy.diagnostics import Label
from bilevelpy.ir.expr import Array as LiteralArray
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.program import Param, Program, Read, Table
from bilevelpy.sema.binding.convert import flat_key, is_pandas, kind
from bilevelpy.sema.binding.npz import FileProblem
from bilevelpy.sema.binding.raw import Given, Grid, Long, NotNumbers
from bilevelpy.sema.binding.reads import ReadProblem, read_default
from bilevelpy.sema.binding.shapes import axes_text
from bilevelpy.sema.binding.sources import Source, TableSource, Values, open_file
from bilevelpy.sema.binding.state import State, close_to
from bilevelpy.sema.binding.textfiles import frame_table

# Names of a data file that a message lists.
MAX_NAMES = 8


def collect(state: State, sources: Sequence[Source]) -> None:
    """Fill ``given`` and ``given_axes``; report what is unknown, missing or unreadable."""
    program = state.program
    known = {*program.params, *named_axes(program)}
    for source in sources:
        for name in source.names():
            if name not in known and source.strict:
                _unknown(state, name, known | set(program.externs))
    missing: list[Param] = []
    for param in program.params.values():
        if param.name in state.failed:  # its file could not be read
            continue
        holder = _holder(sources, param.name)
        if holder is not None:
            _take(state, param, holder)
        elif not _default(state, param):
            missing.append(param)
    for axis in named_axes(program).values():
        holder = _holder(sources, axis.name)
        if holder is None:
            continue
        try:
            state.given_axes[axis.name] = holder.axis(axis)
        except (NotNumbers, FileProblem) as problem:
            state.report(
                "BLV0419", axis.span, "declared here", poison=axis, axis=axis.name, found=problem
            )
    if missing and "*" not in state.failed:
        _missing(state, missing, sources)


def _holder(sources: Sequence[Source], name: str) -> Source | None:
    """The first source that has a value for ``name``."""
    return next((s for s in sources if name in s.names()), None)


def named_axes(program: Program) -> Mapping[str, Any]:
    """The axes that data may bind by name."""
    return {axis.name: axis for axis in program.axes.values()}


def caller_sources(
    state: State, keywords: Mapping[str, Any], data: Any, files: Sequence[tuple[str | None, Any]]
) -> list[Source]:
    """Everything the caller handed over, in order of precedence."""
    sources: list[Source] = []
    if keywords:
        sources.append(Values(keywords, "argument {name}"))
    paths = list(files)
    if is_pandas(data) and hasattr(data, "columns"):
        sources.append(TableSource(frame_table(data), "the frame"))
    elif isinstance(data, Mapping):
        sources.append(Values(data, "argument {name}"))
    elif data is not None:
        paths.insert(0, (None, data))
    for name, path in paths:
        try:
            sources.append(open_file(Path(path), name, state.program))
        except (FileProblem, NotNumbers) as problem:
            _unreadable(state, name, path, problem)
        except TypeError:
            _unreadable(
                state, name, kind(path), FileProblem("data is a mapping or the path of a file")
            )
    return sources


def bind_externs(state: State, externs: Mapping[str, Callable[..., Any]]) -> None:
    """Check the functions handed over."""
    declared = state.program.externs
    for name in externs:
        if name not in declared:
            _unknown(state, name, set(declared))
    for name, extern in declared.items():
        if callable(externs.get(name)):
            state.externs[name] = externs[name]
            state.origins[name] = f"argument {name}"
            continue
        hint = (
            f'hand it over from Python with `externs={{"{name}": function}}`, '
            f"or with `--extern {name}=FILE.py:OBJECT`"
        )
        state.report(
            "BLV0421",
            extern.span,
            "declared here",
            poison=("extern", name),
            name=name,
            found=kind(externs[name]) if name in externs else "none",
            hint=None if name in externs else hint,
        )


def _take(state: State, param: Param, source: Source) -> None:
    try:
        state.given[param.name] = source.param(param)
    except NotNumbers as problem:
        not_numbers(state, param, str(problem))
    except FileProblem as problem:
        state.report(
            "BLV0411",
            param.span,
            "its value",
            poison=param.name,
            file=getattr(source, "shown", "the file"),
            reason=problem,
        )


def not_numbers(state: State, param: Param, found: str) -> None:
    """Report a value that is not made of numbers."""
    hint = (
        "a table has a column for every set of the param" if found.startswith("a table") else None
    )
    state.report(
        "BLV0407",
        param.span,
        "a numeric param",
        poison=param.name,
        name=param.name,
        found=found,
        hint=hint,
    )


def _default(state: State, param: Param) -> bool:
    """Take the model's default; whether there is one."""
    default = param.default
    if isinstance(default, Read):
        try:
            state.given[param.name] = read_default(default, param)
        except NotNumbers as problem:
            not_numbers(state, param, str(problem))
        except ReadProblem as problem:
            state.report(
                problem.code,
                default.span,
                problem.label,
                poison=param.name,
                hint=problem.hint,
                secondary=(),
                notes=(),
                fix=None,
                **problem.values,
            )
    elif isinstance(default, Table):
        keys = tuple(flat_key(k) for k in default.values)
        state.given[param.name] = Given(
            Long(keys, np.array(list(default.values.values()), dtype=float)), "default"
        )
    elif isinstance(default, LiteralArray) and len(param.literal) == default.rank:
        # A literal may set the sizes of dims, like an array that is bound.
        array = np.array(default.values).reshape(param.literal)
        state.given[param.name] = Given(Grid(array, (None,) * array.ndim), "default")
    return isinstance(default, Read | Table | Expr)


def _missing(state: State, missing: list[Param], sources: Sequence[Source]) -> None:
    offered = {name for s in sources for name in s.names()}
    used = {*state.program.params, *named_axes(state.program)}
    notes = []
    for param in missing:
        state.failed.add(param.name)
        similar = close_to(param.name, offered - used)
        if similar:
            notes.append(f"the data holds `{similar}`: did you mean it for `{param.name}`?")
    unused = sorted(offered - used)
    if unused and not notes:
        shown = ", ".join(f"`{n}`" for n in unused[:MAX_NAMES])
        more = f" and {len(unused) - MAX_NAMES} more" if len(unused) > MAX_NAMES else ""
        notes.append(f"the data holds {shown}{more}, which the model does not declare")
    names = [f"`{p.name}`" for p in missing]
    text = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    first, *rest = missing
    arguments = ", ".join(f"{p.name}=..." for p in missing[:3])
    state.report(
        "BLV0401",
        first.span,
        _expected(first),
        names=text,
        notes=tuple(notes),
        secondary=tuple(Label(p.span, _expected(p)) for p in rest if p.span is not None),
        hint=f"bind by name: `{arguments}`, `data=` with a mapping or file, or `--data FILE`",
    )


def _expected(param: Param) -> str:
    return f"expects an array {axes_text(param.axes)}" if param.axes else "expects a number"


def _unknown(state: State, name: str, known: set[str]) -> None:
    similar = close_to(name, known)
    hint = (
        f"did you mean `{similar}`?"
        if similar
        else "names that data may bind: " + (", ".join(sorted(known)) or "none")
    )
    state.report("BLV0404", None, name=name, hint=hint)


def _unreadable(state: State, name: str | None, path: Any, problem: Exception) -> None:
    param = state.program.params.get(name) if name else None
    axis = named_axes(state.program).get(name) if name else None
    if param is not None:
        state.failed.add(param.name)
    elif axis is not None:
        state.failed.add(axis)
    elif name is None:
        # Everything may have been in that file: what is missing now is no news.
        state.failed.add("*")
    owner = param or axis
    state.report("BLV0411", owner.span if owner else None, "its value", file=path, reason=problem)
