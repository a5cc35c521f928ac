"""The two-level model in LaTeX, generated from the same tree that is solved."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.header import one_line
from bilevelpy.exporters.latex.conditions import FORMS, conditions_block
from bilevelpy.exporters.latex.layout import LINE, broken, joined, width
from bilevelpy.exporters.latex.leaves import Indices
from bilevelpy.exporters.latex.sets import runs, set_text
from bilevelpy.exporters.latex.symbols import escape
from bilevelpy.exporters.latex.terms import Terms
from bilevelpy.ir.types import DomainKind, Relation, Sense, Stance

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram, Constraint, Level, Program, Variable
    from bilevelpy.ir.types import Axes

RELATIONS = {Relation.LE: r"\le", Relation.GE: r"\ge", Relation.EQ: "="}


class Latex:
    """Any model; data stays symbolic."""

    name: ClassVar[str] = "latex"
    title: ClassVar[str] = "LaTeX of the two-level model, in index notation"
    suffix: ClassVar[str] = ".tex"
    consumer: ClassVar[str] = r"\input{{{file}}} in a document with amsmath"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The aligned block; with ``reformulation`` that of one level, with the data in it."""
        title = escape(one_line(bound.program.title or bound.program.name))
        if options.reformulation is None:
            return Files(f"% {title}\n\\[\n{latex(bound.program)}\n\\]\n")
        form = options.form("latex", *FORMS)
        block, warnings = conditions_block(bound, options, form)
        remarks = "".join(f"% WARNING: {one_line(w)}\n" for w in warnings)
        return Files(f"% {title}: {form}\n{remarks}\\[\n{block}\n\\]\n", warnings=warnings)


def latex(program: Program) -> str:
    """A program without its data as one ``aligned`` block (for display mathematics)."""
    terms = Terms(program)
    lines = _level(terms, program.upper, "")
    for k, level in enumerate(program.lowers):
        lines.append(_argmin_head(terms, level, first=k == 0))
        lines += _level(terms, level, r"\quad ")
        if level.family:
            every = rf"\qquad {_for_all(terms, level.family)[0]}"
            if width(lines[-1] + every) <= LINE:
                lines[-1] += f" {every}"
            else:
                lines.append(rf"& \quad {every}")
    body = " \\\\\n".join(f"  {line}" for line in lines)
    return f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"


def _names(terms: Terms, level: Level, at: Indices) -> str:
    shown = [
        terms.variable(level.name, v.name, at if level.family else ()) for v in level.variables
    ]
    return ", ".join(shown) or r"\cdot"


def _indices(terms: Terms, axes: Axes) -> Indices:
    return tuple(r.place for r in runs(terms, axes, ()))


def _for_all(terms: Terms, axes: Axes) -> tuple[str, Indices]:
    over = runs(terms, axes, ())
    said = r"\forall " + ", ".join(r.beside for r in over)
    return said, tuple(r.place for r in over)


def _argmin_head(terms: Terms, level: Level, *, first: bool) -> str:
    word = "argmin" if level.sense is Sense.MINIMIZE else "argmax"
    at = _indices(terms, level.family)
    names = _names(terms, level, at)
    game = r"\ \text{(Nash)}" if level.nash else ""
    lead = r"& \text{where } " if first else r"& \text{and } "
    return rf"{lead} \left({names}\right) \in \operatorname{{{word}}}{game}"


def _level(terms: Terms, level: Level, indent: str) -> list[str]:
    at = _indices(terms, level.family)
    objective = broken(terms.summands(level.objective, at, at))
    lines: list[str] = []
    if level is terms.program.upper:
        word = r"\min" if level.sense is Sense.MINIMIZE else r"\max"
        under = _names(terms, level, ())
        second = ""
        if terms.program.lowers:
            pick = ", ".join(_names(terms, low, ()) for low in terms.program.lowers)
            pessimistic = terms.program.stance is Stance.PESSIMISTIC
            worst = r"\max" if level.sense is Sense.MINIMIZE else r"\min"
            under = under if pessimistic else f"{under}, {pick}"
            second = rf"{worst}_{{{pick}}} \;" if pessimistic else ""
        lines.append(rf"{word}_{{{under}}} \;{second} & {objective[0]}")
    else:
        lines.append(rf"& {indent} {objective[0]}")
    lines += [rf"& {indent} \quad {more}" for more in objective[1:]]
    lead, further = r"\text{s.t. } ", r"\phantom{\text{s.t. }} "
    for c in level.constraints:
        first, *rest = _constraint(terms, level, c)
        lines.append(rf"& {indent}{lead}{first}")
        lines += [rf"& {indent}{further}\quad {more}" for more in rest]
        lead = further
    for v in level.variables:
        shown = _domain(terms, level, v)
        if shown:
            lines.append(rf"& {indent}{lead}{shown}")
            lead = further
    return lines


def _constraint(terms: Terms, level: Level, c: Constraint) -> list[str]:
    """The lines of a row: its first side may be long, the others follow on the last line."""
    every, at = _for_all(terms, c.axes) if c.axes else ("", ())
    sides = [terms.summands(term, at if term.axes else (), at) for term in c.terms]
    tail = "".join(
        f" {RELATIONS[relation]} {joined(side)}"
        for relation, side in zip(c.relations, sides[1:], strict=True)
    )
    # Families of the level are said once, after its last row.
    own = c.axes[len(level.family) :]
    said = own or (c.axes and not level.family)
    return broken(sides[0], tail + (rf" \quad {every}" if said else ""))


def _domain(terms: Terms, level: Level, v: Variable) -> str:
    kind = v.domain.kind
    every, at = _for_all(terms, v.axes) if v.axes else ("", ())
    name = terms.variable(level.name, v.name, at)
    tail = rf" \quad {every}" if len(v.axes) > len(level.family) else ""
    if kind is DomainKind.FREE:
        return ""
    whole = terms.variable(level.name, v.name, at[: len(level.family)])
    if kind is DomainKind.SIMPLEX:
        return rf"{whole} \in \Delta_{{{set_text(terms, v.axes[-1])}}}"
    if kind is DomainKind.BALL and v.domain.radius is not None:
        return rf"\lVert {whole} \rVert_2 \le {terms.show(v.domain.radius)}"
    if kind is DomainKind.PSD:
        return rf"{whole} \succeq 0"
    if kind is DomainKind.BINARY:
        return rf"{name} \in \{{0, 1\}}{tail}"
    ends = [
        None if e is None else terms.show(e, at if e.axes else (), at)
        for e in (v.domain.lower, v.domain.upper)
    ]
    low = "" if ends[0] in (None, r"-\infty") else f"{ends[0]} \\le "
    high = "" if ends[1] in (None, r"\infty") else f" \\le {ends[1]}"
    if kind is DomainKind.INTEGERS:
        shown = rf"{low}{name}{high}"
        return rf"{shown}, \; {name} \in \mathbb{{Z}}{tail}"
    return f"{low}{name}{high}{tail}" if low or high else ""
