"""MPS + AUX: the bilevel program itself, as MibS and the BOBILib collection have it.

The MPS file holds the upper objective, all rows and all columns; the AUX file says which belong to
the follower and what the follower minimises. The name-based form is the one that MibS 1.2 reads
(``@NUMCONSTRS``, ``@CONSTRSBEGIN``); the index-based twin stands beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.header import commented, header, name_lines
from bilevelpy.exporters.matrices.matrix import with_ends
from bilevelpy.exporters.matrices.mps import matrix_lines, mps_names
from bilevelpy.exporters.naming import number
from bilevelpy.ir.types import Stance
from bilevelpy.reductions.optimality.validity import refuse_steps
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rows import Functions, System, join_rows, system

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.program import BoundProgram

TARGET = "MPS + AUX"


class MpsAux:
    """Linear levels, one follower."""

    name: ClassVar[str] = "mps-aux"
    title: ClassVar[str] = "the bilevel program as MPS + AUX (MibS, BOBILib)"
    suffix: ClassVar[str] = ".mps"
    consumer: ClassVar[str] = "mibs -Alps_instance {file} -MibS_auxiliaryInfoFile {stem}.aux"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The MPS text, and both AUX forms beside it."""
        _fits(bound)
        found = lift(system(bound), leader=True)
        _is_linear(found)
        warnings = _linking(found, options.force)
        # Readers drop rows without ends, which would shift the positions of the others.
        parts = [with_ends(found.upper_rows), with_ends(found.lower_rows)]
        rows = join_rows(parts, found.columns.count)
        names = mps_names().names(found.columns.names)
        row_names = mps_names().names(rows.names)
        lines = [*name_lines(found.columns.names, names), *name_lines(rows.names, row_names)]
        if float(found.objective.constant[0]):
            value = float(found.objective.constant[0])
            lost = f"MibS drops the constant {value!r} of the upper objective"
            lines.append(lost)
            warnings = (*warnings, lost)
        if found.sign < 0:
            lines.append("the upper level maximises: its objective is negated here")
        what = "bilevel program; the .aux file beside this one says what belongs to the follower"
        top = commented(header(bound.program, what, lines), "*")
        body = matrix_lines(
            bound.program.name, found.columns, found.objective, rows, names, row_names
        )
        lower = [int(j) for j in found.lower_columns]
        first = parts[0].count
        chosen = list(range(first, rows.count))
        total = Functions(
            found.lower_objectives.constant.sum(keepdims=True), found.lower_objectives.linear
        )
        costs = [float(total.linear[0, j]) for j in lower]
        by_name = [
            "@NUMVARS", str(len(lower)), "@NUMCONSTRS", str(len(chosen)), "@VARSBEGIN",
            *(f"{names[j]} {number(c)}" for j, c in zip(lower, costs, strict=True)),
            "@VARSEND", "@CONSTRSBEGIN", *(row_names[r] for r in chosen), "@CONSTRSEND",
            "@NAME", bound.program.name, "@MPS", f"{stem}.mps",
        ]  # fmt: skip
        by_index = [
            f"N {len(lower)}", f"M {len(chosen)}",
            *(f"LC {j}" for j in lower), *(f"LR {r}" for r in chosen),
            *(f"LO {number(c)}" for c in costs), "OS 1",
        ]  # fmt: skip
        beside = {".aux": _text(by_name), ".index.aux": _text(by_index)}
        return Files(_text([*top, *body, "ENDATA"]), beside, warnings)


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _fits(bound: BoundProgram) -> None:
    """What shows without any coefficient."""
    program = bound.program

    def no(span: Span | None, label: str, what: str, hint: str | None = None) -> Exception:
        return refuse(program, "BLV0701", span, label, target=TARGET, what=what, hint=hint)

    if program.stance is Stance.PESSIMISTIC:
        raise refuse(program, "BLV0704", program.upper.span, target=TARGET)
    refuse_steps(program, TARGET)
    if not program.lowers:
        raise no(program.upper.span, "no `lower` in this model", "a model of one level")
    if len(program.lowers) > 1:
        raise no(program.lowers[1].span, "a second follower", "several followers")
    level = program.lowers[0]
    members = int(np.prod([bound.data.sizes[a] for a in level.family], dtype=np.int64))
    if members != 1:
        label = f"{members} followers"
        raise no(level.span, label, "several followers", "lp and mps take families of followers")


def _is_linear(found: System) -> None:
    program = found.bound.program
    prices = [b for b in found.columns.blocks if b.is_dual]
    level = program.lowers[0]

    def no(span: Span | None, label: str, what: str) -> Exception:
        hint = "lp, mps and nl write optimality conditions, which take more"
        return refuse(program, "BLV0701", span, label, target=TARGET, what=what, hint=hint)

    if prices:
        raise no(prices[0].span, "its shadow price is used", "shadow prices")
    if found.objective.degree > 1:
        raise no(program.upper.objective.span, "not linear", "this objective")
    functions = found.lower_objectives
    if functions.trees:
        raise no(level.objective.span, "not linear", "this objective")
    for q in functions.quadratic.values():
        # Terms of upper variables alone do not matter to the follower.
        own = set(found.lower_columns)
        if any(int(j) in own for j in q.tocoo().row):
            raise no(level.objective.span, "not linear", "this objective")
    for rows in (found.upper_rows, found.lower_rows):
        for r in (*rows.functions.quadratic, *rows.functions.trees):
            raise no(rows.spans[r], "not linear", "this row")


def _linking(found: System, force: bool) -> tuple[str, ...]:
    """MibS stops where an upper variable in a lower row is continuous."""
    rows, columns = found.lower_rows, found.columns
    for r in range(rows.count):
        for j in sorted(rows.functions.reads(r)):
            if columns.owner[j] == 0 and not columns.integer[j]:
                name = columns.names[j]
                if force:
                    return (
                        f"MibS does not take this file: `{name}` is continuous and stands in "
                        f"`{rows.names[r]}`",
                    )
                block = columns.block_of(j)
                raise refuse(
                    found.bound.program,
                    "BLV0709",
                    block.span if block is not None else rows.spans[r],
                    f"`{name}` is continuous and stands in `{rows.names[r]}`",
                    hint="`force` writes the file for other readers; lp and mps solve such models",
                )
    return ()
