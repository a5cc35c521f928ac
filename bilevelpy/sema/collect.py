"""Declarations of a file: every name once in its scope, none hiding another, the blocks a model
needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bilevelpy.diagnostics import Label, Span
from bilevelpy.ir.atoms import CALLS
from bilevelpy.sema.scope import TOP, UPPER, Declaration, Kind, State
from bilevelpy.syntax import ast


@dataclass(slots=True)
class Outline:
    """The blocks of a model, in the order of the text."""

    headers: list[ast.ModelHeader] = field(default_factory=list)
    uppers: list[ast.Upper] = field(default_factory=list)
    lowers: list[ast.Lower] = field(default_factory=list)
    expects: list[ast.ExpectDecl] = field(default_factory=list)


def collect(state: State, items: Iterable[ast.Item], complete: bool) -> Outline:
    """Fill the tables of ``state``; ``complete`` is False where syntax errors may have swallowed
    statements.
    """
    outline = Outline()
    for item in items:
        _collect_item(state, outline, item)
    for upper in outline.uppers[:1]:
        _statements(state, UPPER, state.top, upper.statements)
    for lower in outline.lowers:
        if state.top[lower.name].node is lower:
            state.lowers[lower.name] = {}
            _statements(state, lower.name, state.lowers[lower.name], lower.statements)
    _check_constraints(state)
    _check_blocks(state, outline, complete)
    return outline


def _collect_item(state: State, outline: Outline, item: ast.Item) -> None:
    match item:
        case ast.ModelHeader():
            if outline.headers:
                state.error(
                    "BLV0211",
                    item.span,
                    "a second header",
                    secondary=[Label(outline.headers[0].span, "the first")],
                )
            outline.headers.append(item)
        case ast.DimDecl():
            for dim in item.items:
                _declare(state, state.top, dim, Kind.DIM, TOP)
        case ast.ParamDecl():
            for param in item.items:
                _declare(state, state.top, param, Kind.PARAM, TOP)
        case ast.SetDecl():
            for one in item.items:
                _declare(state, state.top, one, Kind.SET, TOP)
        case ast.DefDecl():
            _declare(state, state.top, item, Kind.DEF, TOP)
            _parameters(state, item)
        case ast.ExternDecl():
            _declare(state, state.top, item, Kind.EXTERN, TOP)
        case ast.ReportDecl():
            _declare(state, state.top, item, Kind.REPORT, TOP)
        case ast.Lower():
            outline.lowers.append(item)
            _declare(state, state.top, item, Kind.LEVEL, TOP)
        case ast.Upper():
            if outline.uppers:
                state.error(
                    "BLV0208",
                    item.keyword_span,
                    "a second `upper`",
                    secondary=[Label(outline.uppers[0].keyword_span, "the first")],
                    hint="a model has one leader; followers are `lower` blocks",
                )
            outline.uppers.append(item)
        case ast.ExpectDecl():
            outline.expects.append(item)
        case _:
            pass


def _statements(
    state: State, level: str, table: dict[str, Declaration], statements: Iterable[ast.Statement]
) -> None:
    for statement in statements:
        match statement:
            case ast.VarDecl():
                for variable in statement.items:
                    _declare(state, table, variable, Kind.VAR, level)
            case ast.LetDecl():
                _declare(state, table, statement, Kind.LET, level)
            case ast.SubjectTo():
                for constraint in statement.constraints:
                    _declare_constraint(state, level, constraint)
            case _:
                pass


def _declare(
    state: State, table: dict[str, Declaration], node: Any, kind: Kind, level: str
) -> None:
    made = Declaration(node.name, kind, level, node.name_span, node)
    name = made.name
    if kind not in (Kind.REPORT, Kind.LEVEL) and (name in CALLS or name == "pi"):
        what = "a constant" if name == "pi" else "a function"
        state.error(
            "BLV0204",
            made.span,
            f"{what} of the language",
            hint="choose another name",
            name=name,
            what=what,
        )
    earlier = table.get(name)
    if earlier is not None:
        _twice(state, made, earlier)
        return
    outer = state.top.get(name) if table is not state.top else None
    if outer is not None:
        _hides(state, made, outer)
    table[name] = made
    if level in state.lowers:
        state.below.setdefault(name, []).append(made)


def _parameters(state: State, node: ast.DefDecl) -> None:
    """Names of a function's arguments stand once."""
    seen: dict[str, Span] = {}
    for name, span in zip(node.parameters, node.parameter_spans, strict=True):
        if name in seen:
            earlier = [Label(seen[name], "first declared here")]
            state.error("BLV0202", span, "again", secondary=earlier, name=name)
        seen.setdefault(name, span)


def _twice(state: State, made: Declaration, earlier: Declaration) -> None:
    other_file = earlier.span.file != made.span.file
    state.doubtful.add(earlier)
    hint = f"it comes from {earlier.span.file}, which this file includes" if other_file else None
    state.error(
        "BLV0202",
        made.span,
        "again",
        secondary=[Label(earlier.span, "first declared here")],
        hint=hint,
        name=made.name,
    )


def _hides(state: State, made: Declaration, outer: Declaration) -> None:
    state.error(
        "BLV0203",
        made.span,
        f"declared again in `{made.level}`",
        secondary=[Label(outer.span, f"{outer.kind}")],
        hint="rename one of the two",
        name=made.name,
    )


def _declare_constraint(state: State, level: str, node: ast.Constraint) -> None:
    table = state.constraints.setdefault(level, {})
    made = Declaration(node.name, Kind.CONSTRAINT, level, node.name_span, node)
    if node.name in table:
        _twice(state, made, table[node.name])
    else:
        table[node.name] = made


def _check_constraints(state: State) -> None:
    """A constraint shares the names of its level and of the top of the file."""
    for level, table in state.constraints.items():
        for name, made in table.items():
            own = state.lowers.get(level, {}).get(name)
            outer = state.top.get(name)
            if own is not None:
                _twice(state, *sorted((made, own), key=lambda d: -d.span.start))
            elif outer is not None and outer.level == level:
                _twice(state, *sorted((made, outer), key=lambda d: -d.span.start))
            elif outer is not None and outer.kind is not Kind.REPORT:
                _hides(state, made, outer)


def _check_blocks(state: State, outline: Outline, complete: bool) -> None:
    if complete and not outline.uppers:
        span = (
            outline.headers[0].span
            if outline.headers
            else (outline.lowers[0].head_span if outline.lowers else None)
        )
        if span is None:
            source = next(iter(state.sources.values()))
            end = len(source.text.rstrip())
            span = Span(source.name, end, end)
        state.error(
            "BLV0207",
            span,
            "no `upper { ... }` in this file",
            hint="a problem without a follower is written as an `upper` block alone",
        )
    blocks: list[ast.Upper | ast.Lower] = [*outline.uppers[:1], *outline.lowers]
    for block in blocks:
        name = "upper" if isinstance(block, ast.Upper) else block.name
        head = block.keyword_span if isinstance(block, ast.Upper) else block.head_span
        found = [s for s in block.statements if isinstance(s, ast.Objective)]
        if not found and complete:
            state.error("BLV0209", head, "no `minimize` or `maximize` in it", name=name)
        for extra in found[1:]:
            state.error(
                "BLV0210",
                extra.span,
                "a second objective",
                secondary=[Label(found[0].span, "the first")],
                hint="add the two with weights, or make one a constraint",
                name=name,
            )
