"""One entry: a source text to a checked program and all its diagnostics."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bilevelpy.diagnostics import Diagnostic, Severity, Source, Span
from bilevelpy.ir.program import Expect, Level, Program, Report
from bilevelpy.ir.types import Stance
from bilevelpy.sema.collect import Outline, collect
from bilevelpy.sema.declare import declare
from bilevelpy.sema.expressions.elaborate import evaluate
from bilevelpy.sema.include import read_all
from bilevelpy.sema.levels import let, level, open_level, shapes
from bilevelpy.sema.order import in_order
from bilevelpy.sema.scope import (
    DATA_KINDS,
    REPORTS,
    UPPER,
    Context,
    Declaration,
    Frame,
    Kind,
    State,
)
from bilevelpy.sema.warnings import warn
from bilevelpy.syntax import ast
from bilevelpy.system.garbage import undisturbed


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The program (None only if there are errors), every diagnostic in the order of the text, all
    texts read.
    """

    program: Program | None
    diagnostics: list[Diagnostic]
    sources: dict[str, Source]


@dataclass(frozen=True, slots=True)
class Examination:
    """A check with all that it collected on its way: what editors ask about unfinished files."""

    result: CheckResult
    state: State
    files: list[ast.File]


def check(source: Source, *, loader: Callable[[str], Source] | None = None) -> CheckResult:
    """Parse and check ``source`` without data.

    Parameters
    ----------
    source
        The text; its name, if it is a path, is where includes and data files are looked for.
    loader
        Gives the texts of included files instead of the disk (an editor has unsaved ones).

    Returns
    -------
    CheckResult
        All diagnostics are collected; one mistake gives one message.
    """
    return examine(source, loader=loader).result


def examine(source: Source, *, loader: Callable[[str], Source] | None = None) -> Examination:
    """Check ``source`` as :func:`check` does, and keep declarations, shapes and trees."""
    with undisturbed():
        return _examined(source, loader)


def _examined(source: Source, loader: Callable[[str], Source] | None) -> Examination:
    state = State(sources={source.name: source})
    items, files = read_all(state, source, loader)
    broken = bool(state.diagnostics)
    if broken:
        state.missing = _swallowed(state, files)
    outline = collect(state, items, complete=not broken)
    program = _elaborate(state, outline)
    failed = any(d.severity is Severity.ERROR for d in state.diagnostics)
    if program is not None and not failed:
        warn(state, program)
    files_in_order = {name: k for k, name in enumerate(state.sources)}
    state.diagnostics.sort(key=lambda d: _place(d, files_in_order))
    result = CheckResult(None if failed else program, state.diagnostics, state.sources)
    return Examination(result, state, files)


def _place(found: Diagnostic, files: dict[str, int]) -> tuple[int, int]:
    span = found.primary.span if found.primary else None
    return (files.get(span.file, 0), span.start) if span else (-1, 0)


def _leaves(items: Iterable[ast.Node]) -> Iterable[Span]:
    """Spans of the statements that were read."""
    for item in items:
        if isinstance(item, ast.Upper | ast.Lower):
            yield item.keyword_span if isinstance(item, ast.Upper) else item.head_span
            yield from _leaves(item.statements)
        elif isinstance(item, ast.SubjectTo):
            yield from _leaves(item.constraints)
        else:
            yield item.span


def _swallowed(state: State, files: list[ast.File]) -> frozenset[str]:
    """Names in the parts of the text that syntax errors kept out of the tree: they may be declared
    there.
    """
    words: set[str] = set()
    for file in files:
        source = state.sources[file.span.file]
        position = 0
        for span in sorted(_leaves(file.items), key=lambda s: s.start):
            words.update(re.findall(r"[A-Za-z_]\w*", source.text[position : span.start]))
            position = max(position, span.end)
        words.update(re.findall(r"[A-Za-z_]\w*", source.text[position:]))
    return frozenset(words)


def _elaborate(state: State, outline: Outline) -> Program | None:
    order = in_order(state)
    for declaration in order:
        if declaration.kind in DATA_KINDS:
            declare(state, declaration)
    blocks: list[tuple[str, ast.Upper | ast.Lower]] = [(UPPER, b) for b in outline.uppers[:1]]
    blocks += [
        (b.name, b)
        for b in outline.lowers
        if b.name in state.lowers and state.top[b.name].node is b
    ]
    frames = [open_level(state, name, block) for name, block in blocks]
    for frame in frames:
        shapes(state, frame)
    lets: dict[str, list[Declaration]] = {}
    for declaration in order:
        if declaration.kind is Kind.LET:
            lets.setdefault(declaration.level, []).append(declaration)
    # An upper `let` may read duals, whose axes are those of the followers' constraints: followers
    # first.
    made: dict[str, Level | None] = {}
    for frame in sorted(frames, key=lambda f: f.name == UPPER):
        for declaration in lets.get(frame.name, ()):
            let(state, frame, declaration)
        made[frame.name] = level(state, frame)
    reports = _reports(state)
    expects = _expects(state, outline)
    return _assemble(state, outline, frames, made, reports, expects)


def _reports(state: State) -> dict[str, Report]:
    found: dict[str, Report] = {}
    for declaration in state.top.values():
        if declaration.kind is Kind.REPORT:
            node: ast.ReportDecl = declaration.node
            value = evaluate(state, Context(REPORTS), node.value)
            if value is not None:
                found[node.name] = Report(node.name, value.expr, node.span, node.doc)
    return found


def _expects(state: State, outline: Outline) -> list[Expect]:
    found: list[Expect] = []
    for node in outline.expects:
        target = node.value
        text = state.text(node.span)
        if (
            isinstance(target, ast.Member)
            and target.name == "objective"
            and isinstance(target.base, ast.Name)
        ):
            name = target.base.name
            if name == UPPER or name in state.lowers:
                found.append(Expect(name, node.expected, node.tolerance, text, node.span))
                continue
        value = evaluate(state, Context(REPORTS), target)
        if value is not None:
            found.append(Expect(value.expr, node.expected, node.tolerance, text, node.span))
    return found


def _assemble(
    state: State,
    outline: Outline,
    frames: list[Frame],
    made: dict[str, Level | None],
    reports: dict[str, Report],
    expects: list[Expect],
) -> Program | None:
    upper = made.get(UPPER)
    lowers = [made[f.name] for f in frames if f.name != UPPER]
    if upper is None or any(lower is None for lower in lowers):
        return None
    block = outline.uppers[0]
    header = outline.headers[0] if outline.headers else None
    axes = {d.name: axis for d, axis in state.axes.items() if axis is not None}
    return Program(
        name=header.name if header else "model",
        title=header.title if header else None,
        axes=axes,
        params=state.params,
        externs=state.externs,
        upper=upper,
        lowers=tuple(x for x in lowers if x is not None),
        stance=Stance(block.stance or "optimistic"),
        reports=reports,
        expects=tuple(expects),
        sources=state.sources,
        builder=state.builder,
    )
