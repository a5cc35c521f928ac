"""Hover texts: what a name is, where it belongs, over which axes, and its formula."""

from __future__ import annotations

import gc
from collections import defaultdict
from typing import Any

from bilevelpy.diagnostics import Source, Span
from bilevelpy.errors import ExportError
from bilevelpy.exporters.latex.model import latex
from bilevelpy.exporters.latex.symbols import symbol
from bilevelpy.exporters.latex.terms import Terms
from bilevelpy.ir import atoms
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.program import BoundProgram, Data, Level, Program
from bilevelpy.ir.types import Axes
from bilevelpy.lsp.datafiles import Entry
from bilevelpy.lsp.document import Document
from bilevelpy.lsp.index import ITERATOR, Symbol, Use
from bilevelpy.sema.check import check
from bilevelpy.sema.lookup import axes_text
from bilevelpy.sema.scope import TOP, UPPER, Kind
from bilevelpy.syntax import ast

_MAX_CODE, _MAX_FORMULA = 400, 4000
_CURVATURE = {"?": "neither convex nor concave by rule"}
_MONOTONE = {"+": "nondecreasing", "-": "nonincreasing", "?": ""}
_SIGN = {"+": "nonnegative", "-": "nonpositive", "?": ""}


def hover(document: Document, use: Use, held: dict[str, Entry]) -> str:
    """Markdown about the name under the cursor. ``held``: what the data files hold, by name."""
    if use.symbol is None:
        return function(use.name)
    s = use.symbol
    parts = [_code(_written(document, s))]
    level = f" of `{s.level}`" if s.kind != Kind.LEVEL and s.level != TOP else ""
    parts.append(f"{s.kind}{level}{_over(document, s)}")
    doc = getattr(s.node, "doc", None)
    if doc:
        parts.append(doc)
    entry = held.get(s.name) if s.kind in (Kind.PARAM, Kind.SET, Kind.DIM) else None
    if entry is not None:
        shape = f", {entry.shape}" if entry.shape else ""
        parts.append(f"in `{entry.file}`{shape}")
    formula = _formula(document, s)
    if formula and len(formula) <= _MAX_FORMULA:
        parts.append(f"$${formula}$$")
    if s.kind == Kind.LEVEL and document.program is not None:
        parts.append(curvature(document.program, document.program.level(s.name)))
    return "\n\n".join(p for p in parts if p)


def function(name: str) -> str:
    """Markdown about a function of the language, from the table of atoms."""
    signature, words = atoms.CALLS[name]
    facts = ""
    tables = (atoms.ELEMENTWISE, atoms.REDUCTIONS, atoms.MAPS, atoms.MATRICES)
    atom = next((t[name] for t in tables if name in t), None)
    if atom is not None:
        shape = _CURVATURE.get(atom.curvature, atom.curvature)
        smooth = "smooth" if atom.smooth else "not smooth"
        rest = [_SIGN[atom.sign], _MONOTONE[atom.monotone], smooth]
        domain = f"; where its argument is {atom.domain}" if atom.domain != "all" else ""
        facts = ", ".join([shape, *(r for r in rest if r)]) + domain
    comprehension = "also takes a comprehension" if words.endswith("*") else ""
    parts = [_code(signature), words.removesuffix("*").strip(), facts, comprehension]
    return "\n\n".join(p for p in parts if p)


def objective(document: Document, level: str) -> str:
    """Markdown about `minimize` or `maximize`: the formula of the level, and its curvature."""
    program = document.program
    if program is None or level not in {found.name for found in program.levels}:
        return ""
    found = program.level(level)
    terms = Terms(program)
    at = terms.letters(len(found.family), ())
    try:
        formula = terms.show(found.objective, at, at)
    except ExportError:
        formula = ""
    shown = f"$${formula}$$" if 0 < len(formula) <= _MAX_FORMULA else ""
    about = curvature(program, found) if level != UPPER else ""
    return "\n\n".join(p for p in (f"objective of `{level}`", shown, about) if p)


def model(document: Document) -> str:
    """Markdown about the whole model: its mathematics."""
    program = document.program
    if program is None:
        return ""
    title = program.title or program.name
    try:
        return f"**{title}**\n\n$${latex(program)}$$"
    except ExportError:  # of a length that nobody reads
        return f"**{title}**"


def curvature(program: Program, level: Level) -> str:
    """What the text alone says about the curvature of a follower's objective in its variables.

    Sizes and values of data are not known here: every axis counts as two long, and a param has the
    sign that its domain gives it.
    """
    from bilevelpy.analysis.bounds.signs import Signs
    from bilevelpy.analysis.curvature import judge_level
    from bilevelpy.analysis.forms.form import Forms
    from bilevelpy.analysis.forms.scope import make_scope, names_of

    bound = BoundProgram(program, Data(defaultdict(lambda: 2), {}, {}, {}))
    roots: list[Expr] = [level.objective]
    own = names_of([level])
    other = names_of([x for x in program.levels if x is not level])
    try:
        forms = Forms(make_scope(bound, roots, own, other))
        verdict = judge_level(forms, Signs(bound), level, {})
    except (KeyError, LookupError, ValueError, ArithmeticError):
        return ""  # a rule that needs the data: `bilevelpy explain` has it, an editor has not
    return f"**{verdict.kind}** in its variables, by its text: {verdict.reason}"


def warm_up() -> None:
    """Load what judges curvature, which takes a second, before somebody waits for it. What is there
    then stays there: no collection walks through it again, which would take a tenth of a second.
    """
    text = (
        "upper { var x; minimize y; }\n"
        "lower low { var y; minimize log(1 + exp(y)) + norm2([x, y]) - y; }\n"
    )
    program = check(Source("<warm>", text)).program
    if program is not None:
        curvature(program, program.lowers[0])
    gc.collect()
    gc.freeze()


def _written(document: Document, s: Symbol) -> str:
    """The declaration as it is written."""
    node = s.node
    span = getattr(node, "span", s.span)
    if isinstance(node, ast.Lower):
        span = node.head_span
    text = _text(document.state.sources.get(span.file), span)
    word = {
        Kind.DIM: "dim",
        Kind.PARAM: "param",
        Kind.VAR: "var",
        Kind.SET: "",
        Kind.DEF: "",
    }.get(Kind(s.kind) if s.kind in list(Kind) else Kind.DEF, "")
    return f"{word} {text}".strip()


def _text(source: Source | None, span: Span) -> str:
    if source is None:
        return ""
    text = source.text[span.start : span.end].strip()
    return text if len(text) <= _MAX_CODE else text[:_MAX_CODE] + " ..."


def _over(document: Document, s: Symbol) -> str:
    """Over which axes a value runs."""
    state = document.state
    axes: Axes | None = None
    if s.kind == ITERATOR:
        return f" over `{_text(state.sources.get(s.node.set.span.file), s.node.set.span)}`"
    if s.declaration is not None:
        axes = state.shapes.get(s.declaration) or state.rows.get(s.declaration)
    return f" over {axes_text(axes)}" if axes else ""


def _formula(document: Document, s: Symbol) -> str:
    """The mathematics behind a name, where the model is complete enough to have it."""
    program = document.program
    if program is None:
        return ""
    try:
        return _equation(document, program, s)
    except ExportError:  # of a length that nobody reads
        return ""


def _equation(document: Document, program: Program, s: Symbol) -> str:
    terms = Terms(program)
    if s.kind == Kind.REPORT and s.name in program.reports:
        value = program.reports[s.name].value
        at = terms.letters(len(value.axes), ())
        return f"{symbol(s.name)} = {terms.show(value, at, at)}"
    if s.kind == Kind.LET and s.declaration is not None:
        found: Any = document.state.lets.get(s.declaration)
        if found is not None:
            at = terms.letters(len(found.expr.axes), ())
            return f"{symbol(s.name)} = {terms.show(found.expr, at, at)}"
    if s.kind == Kind.CONSTRAINT and s.level in {level.name for level in program.levels}:
        for c in program.level(s.level).constraints:
            if c.name == s.name:
                at = terms.letters(len(c.axes), ())
                signs = {"<=": r"\le", ">=": r"\ge", "==": "="}
                shown = [terms.show(t, at if t.axes else (), at) for t in c.terms]
                words = [shown[0]]
                for relation, text in zip(c.relations, shown[1:], strict=True):
                    words += [signs[str(relation)], text]
                return " ".join(words)
    if s.kind == Kind.VAR:
        axes = document.state.shapes.get(s.declaration) if s.declaration else None
        at = terms.letters(len(axes or ()), ())
        return terms.variable(s.level, s.name, at)
    return ""


def _code(text: str) -> str:
    return f"```blv\n{text}\n```" if text else ""
