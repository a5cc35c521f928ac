"""AMPL: the conditions with ``complements``, or with big-M in the part of AMPL that GLPK reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.conditions import Line, Writer, conditions, slack_tree
from bilevelpy.exporters.expressions import Style, simple
from bilevelpy.exporters.header import commented, header, mixed_lines, name_lines
from bilevelpy.exporters.languages.ampl_loops import AMPL, looped, looped_data
from bilevelpy.exporters.languages.ampl_tables import tabled_data, tabled_model
from bilevelpy.exporters.loops import loops
from bilevelpy.exporters.matrices.matrix import TITLES, mixed_program
from bilevelpy.exporters.naming import Namer, identifiers
from bilevelpy.exporters.naming import number as plain
from bilevelpy.exporters.parts import parts_of_conditions
from bilevelpy.reductions.refusal import refuse

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.reductions.columns import Columns

INLINE = 5_000
"""Coefficients that are written into a model; more of them go into a data file."""
RESERVED = [
    "and",
    "binary",
    "by",
    "check",
    "complements",
    "contains",
    "data",
    "default",
    "diff",
    "dimen",
    "display",
    "div",
    "else",
    "end",
    "exists",
    "for",
    "forall",
    "if",
    "in",
    "integer",
    "Infinity",
    "inter",
    "less",
    "let",
    "max",
    "maximize",
    "min",
    "minimize",
    "mod",
    "model",
    "not",
    "or",
    "option",
    "or",
    "param",
    "printf",
    "prod",
    "reset",
    "set",
    "setof",
    "solve",
    "sum",
    "suffix",
    "symbolic",
    "symdiff",
    "table",
    "then",
    "to",
    "union",
    "until",
    "var",
    "while",
    "within",
    "F",
    "s",
    "t",
    "subject",
    "obj",
    "abs",
    "atan",
    "cos",
    "exp",
    "log",
    "sin",
    "sqrt",
    "card",
]
NONLINEAR = simple("exp log sqrt sin cos tan atan sinh cosh tanh abs") | {
    "max": "max({0}, {1})",
    "min": "min({0}, {1})",
}


def ampl_names() -> Namer:
    """Identifiers that are no words of AMPL or GMPL."""
    return identifiers(RESERVED, limit=100)


class Ampl:
    """With ``complements`` any functions; with big-M linear rows and a linear objective."""

    name: ClassVar[str] = "ampl"
    title: ClassVar[str] = "AMPL model with `complements`, or GMPL with big-M"
    suffix: ClassVar[str] = ".mod"
    consumer: ClassVar[str] = "ampl {file}    (big-M: glpsol --model {file} [--data {stem}.dat])"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The model; the numbers of a large one stand in ``stem.dat`` beside it."""
        form = options.form("ampl", "complements", "big-m")
        return _gmpl(bound, options) if form == "big-m" else _complements(bound, options, stem)


def _complements(bound: BoundProgram, options: Options, stem: str) -> Files:
    target = "an AMPL model"
    found = conditions(bound, target, options)
    namer = ampl_names()
    write = Writer(bound, target, Style(NONLINEAR), namer, found.columns.names)
    lines = [f"WARNING: {w}" for w in found.warnings]
    what = "optimality conditions of the followers as complementarity pairs"
    made = loops(parts_of_conditions(found, paired_rows=False), write, AMPL)
    if made is not None:
        head = commented(header(bound.program, what, lines), "#")
        text = "\n".join([*head, *looped(made, stem, found.system.columns.count)])
        return Files(text + "\n", {".dat": looped_data(made)}, found.warnings)
    lines += name_lines(found.columns.names, write.names)
    out = commented(header(bound.program, what, lines), "#")
    out += _variables(found.columns, write.names)
    objective = write.function(found.objective, 0, bound.program.upper.objective.span)
    out.append(f"minimize F: {objective};")
    paired = {p.row for p in found.pairs if p.row is not None}
    for line in write.lines(found.rows, found.kinds):
        if line.row not in paired:
            out.append(_row(line))
    for pair in found.pairs:
        slack = write.tree(slack_tree(found, pair), pair.span)
        name = namer.name(f"comp.{pair.name}")
        multiplier = write.names[pair.multiplier]
        out.append(f"subject to {name}: 0 <= {slack} complements {multiplier} >= 0;")
    out += ["", "solve;", _display(write.names), "end;"]
    return Files("\n".join(out) + "\n", warnings=found.warnings)


def _gmpl(bound: BoundProgram, options: Options) -> Files:
    target = "a GMPL model"
    mixed = mixed_program(bound, options, target, quadratic_rows=False)
    write = Writer(bound, target, Style({}), ampl_names(), mixed.columns.names)
    lines = [*mixed_lines(mixed), *name_lines(mixed.columns.names, write.names)]
    out = commented(header(bound.program, TITLES["big-m"], lines), "#")
    out += _variables(mixed.columns, write.names)
    if mixed.objective.quadratic:
        span = bound.program.upper.objective.span
        raise refuse(
            bound.program, "BLV0701", span, "quadratic", target=target, what="this objective"
        )
    if mixed.rows.functions.linear.nnz + mixed.objective.linear.nnz > INLINE:
        head = commented(header(bound.program, TITLES["big-m"], lines), "#")
        return Files(tabled_model(head), {".dat": tabled_data(mixed)}, mixed.kkt.warnings)
    objective = write.function(mixed.objective, 0, bound.program.upper.objective.span)
    out.append(f"minimize F: {objective};")
    out += [_row(line) for line in write.lines(mixed.rows)]
    out += ["", "solve;", _display(write.names), "end;"]
    return Files("\n".join(out) + "\n", warnings=mixed.kkt.warnings)


def _display(names: tuple[str, ...]) -> str:
    return f"display {', '.join(['F', *names])};"


def _variables(columns: Columns, names: tuple[str, ...]) -> list[str]:
    out: list[str] = []
    for j, name in enumerate(names):
        low, high = float(columns.lower[j]), float(columns.upper[j])
        parts = ["integer"] if columns.integer[j] else []
        if low == high:
            parts.append(f"= {plain(low)}")
        else:
            parts += [f">= {plain(low)}"] if np.isfinite(low) else []
            parts += [f"<= {plain(high)}"] if np.isfinite(high) else []
        out.append(f"var {name}{' ' if parts else ''}{', '.join(parts)};")
    return out


def _row(line: Line) -> str:
    if line.low == line.high:
        return f"subject to {line.name}: {line.body} = {plain(line.high)};"
    if not np.isfinite(line.low):
        return f"subject to {line.name}: {line.body} <= {plain(line.high)};"
    if not np.isfinite(line.high):
        return f"subject to {line.name}: {line.body} >= {plain(line.low)};"
    return f"subject to {line.name}: {plain(line.low)} <= {line.body} <= {plain(line.high)};"
