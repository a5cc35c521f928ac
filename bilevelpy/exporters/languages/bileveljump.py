"""A BilevelJuMP program in Julia: both levels as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.conditions import Line, Writer
from bilevelpy.exporters.expressions import Style, simple
from bilevelpy.exporters.header import commented, header, name_lines
from bilevelpy.exporters.languages.julia_loops import JULIA, looped, looped_data
from bilevelpy.exporters.loops import loops
from bilevelpy.exporters.naming import identifiers
from bilevelpy.exporters.naming import number as plain
from bilevelpy.exporters.parts import parts_of_levels
from bilevelpy.reductions.optimality.validity import require_convex, require_optimistic
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rows import Rows, system

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

RESERVED = [
    "baremodule",
    "begin",
    "break",
    "catch",
    "const",
    "continue",
    "do",
    "else",
    "elseif",
    "end",
    "export",
    "false",
    "finally",
    "for",
    "function",
    "global",
    "if",
    "import",
    "let",
    "local",
    "macro",
    "module",
    "quote",
    "return",
    "struct",
    "true",
    "try",
    "using",
    "while",
    "model",
    "Upper",
    "Lower",
    "BilevelModel",
    "in",
    "isa",
    "where",
    "abs",
    "exp",
    "log",
    "max",
    "min",
    "pi",
    "im",
    "Inf",
    "NaN",
]
TARGET = "a BilevelJuMP program"


class BilevelJump:
    """Linear rows; linear or quadratic objectives; one follower, convex in continuous variables:
    BilevelJuMP puts its optimality conditions in its place. SCIP takes the SOS1 sets that it makes.
    """

    name: ClassVar[str] = "bileveljump"
    title: ClassVar[str] = "BilevelJuMP program (Julia) with both levels"
    suffix: ClassVar[str] = ".jl"
    consumer: ClassVar[str] = "julia {file}"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The program."""
        found = lift(system(bound), leader=True)
        program = bound.program
        require_optimistic(found, TARGET)
        if len(found.followers) != 1:
            span = program.lowers[-1].span if program.lowers else program.upper.span
            what = "anything but one follower"
            raise refuse(program, "BLV0701", span, target=TARGET, what=what)
        for block in found.columns.blocks:
            if block.is_dual:
                raise refuse(program, "BLV0701", block.span, target=TARGET, what="shadow prices")
        for rows in (found.upper_rows, found.lower_rows):
            for r in (*rows.functions.quadratic, *rows.functions.trees):
                what = "a row that is not linear"
                raise refuse(program, "BLV0701", rows.spans[r], target=TARGET, what=what)
        warnings = require_convex(found, options.force)
        write = Writer(bound, TARGET, Style(simple("")), identifiers(RESERVED), found.columns.names)
        columns = found.columns
        made = loops(parts_of_levels(found, move_idle=False), write, JULIA)
        if made is not None:
            head = header(program, "bilevel program", [f"WARNING: {w}" for w in warnings])
            out = [*commented(head, "#"), *looped(made, stem), "", *_solved(int(found.sign))]
            data = {".dat": looped_data(made, columns.owner)}
            return Files("\n".join(out) + "\n", data, warnings)
        lines = [f"WARNING: {w}" for w in warnings] + name_lines(columns.names, write.names)
        out = commented(header(program, "bilevel program", lines), "#")
        out += ["using BilevelJuMP, JuMP, SCIP", "",
                "model = BilevelModel(SCIP.Optimizer, mode = BilevelJuMP.SOS1Mode())"]  # fmt: skip
        for level, mine in (("Upper", 0), ("Lower", 1)):
            for j in np.flatnonzero(columns.owner == mine):
                name = write.names[j]
                low, high = float(columns.lower[j]), float(columns.upper[j])
                parts = [f"@variable({level}(model), {_ranged(name, low, high)}"]
                parts += ["integer = true"] if columns.integer[j] else []
                out.append(", ".join(parts) + ")")
        lower = _constraints("Lower", found.lower_rows, write)
        span = program.level(found.followers[0].level).objective.span
        below = write.function(found.lower_objectives, 0, span)
        above = write.function(found.objective, 0, program.upper.objective.span)
        out += ["", f"@objective(Lower(model), Min, {below})", *lower, ""]
        out += [f"@objective(Upper(model), Min, {above})"]
        out += _constraints("Upper", found.upper_rows, write)
        out += ["", *_solved(int(found.sign))]
        return Files("\n".join(out) + "\n", warnings=warnings)


def _solved(sign: int) -> list[str]:
    return [
        "optimize!(model)",
        "println(termination_status(model))",
        f'println("F = ", {sign} * objective_value(model))',
    ]


def _ranged(name: str, low: float, high: float) -> str:
    left = f"{plain(low)} <= " if np.isfinite(low) else ""
    right = f" <= {plain(high)}" if np.isfinite(high) else ""
    return f"{left}{name}{right}" if left or not right else f"{name}{right}"


def _constraints(level: str, rows: Rows, write: Writer) -> list[str]:
    return [_constraint(level, line) for line in write.lines(rows)]


def _constraint(level: str, line: Line) -> str:
    if line.low == line.high:
        body = f"{line.body} == {plain(line.high)}"
    elif not np.isfinite(line.low):
        body = f"{line.body} <= {plain(line.high)}"
    elif not np.isfinite(line.high):
        body = f"{line.body} >= {plain(line.low)}"
    else:
        body = f"{plain(line.low)} <= {line.body} <= {plain(line.high)}"
    return f"@constraint({level}(model), {line.name}, {body})"
