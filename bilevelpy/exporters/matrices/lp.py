"""LP files: the optimality conditions as a mixed-integer program for SCIP, Gurobi, CPLEX, ..."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.header import commented, header, mixed_lines, name_lines
from bilevelpy.exporters.matrices.matrix import TITLES, mixed_program
from bilevelpy.exporters.naming import Namer, number
from bilevelpy.reductions.trees import linear_terms, quadratic_terms

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.reductions.linearization.mixed import Mixed
    from bilevelpy.reductions.rows import Functions

# Words that begin a section, or that readers take for infinity or a free variable.
RESERVED = [
    "minimize",
    "maximize",
    "minimum",
    "maximum",
    "min",
    "max",
    "subject",
    "such",
    "that",
    "st",
    "s.t.",
    "bounds",
    "bound",
    "free",
    "infinity",
    "inf",
    "general",
    "generals",
    "gen",
    "integer",
    "integers",
    "binary",
    "binaries",
    "bin",
    "semi",
    "semis",
    "sec",
    "semi-continuous",
    "sos",
    "sos1",
    "sos2",
    "end",
    "obj",
    "one",
    "pwlobj",
]
WIDTH = 100


def lp_names() -> Namer:
    """Names of LP files: no brackets or signs, and nothing that starts like a number."""
    return Namer("A-Za-z0-9_.()#,", "A-DF-Za-df-z_", reserved=RESERVED, fold=True)


class Lp:
    """Mixed-integer programs with a linear or quadratic objective and rows, in LP format."""

    name: ClassVar[str] = "lp"
    title: ClassVar[str] = "LP file of the KKT conditions (SOS1, indicators, big-M, strong duality)"
    suffix: ClassVar[str] = ".lp"
    consumer: ClassVar[str] = "scip -f {file}"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The text of the file."""
        mixed = mixed_program(bound, options, "an LP file", quadratic_rows=True)
        text = lp_text(mixed, TITLES[options.reformulation or "sos1"])
        return Files(text, warnings=mixed.kkt.warnings)


def lp_text(mixed: Mixed, what: str) -> str:
    """A mixed-integer program as an LP file."""
    columns, rows = mixed.columns, mixed.rows
    names = lp_names().names(columns.names)
    row_names = lp_names().names(rows.names)
    program = mixed.kkt.system.bound.program
    lines = [*mixed_lines(mixed), *name_lines(columns.names, names)]
    lines += name_lines(rows.names, row_names)
    out = commented(header(program, what, lines), "\\")
    constant = float(mixed.objective.constant[0])
    terms = linear_terms(mixed.objective, 0)
    out.append("Minimize")
    extra = [(constant, "one")] if constant else []
    out += _wrapped(
        " obj:",
        [
            *_linear(terms, names),
            *_linear_text(extra),
            *_quadratic(mixed.objective, 0, names, True),
        ],
        fallback=f"0 {names[0]}" if names else "0 one",
    )
    out.append("Subject To")
    used = {j for j, _ in terms}
    for r in range(rows.count):
        parts = [
            *_linear(linear_terms(rows.functions, r), names),
            *_quadratic(rows.functions, r, names, False),
        ]
        # A row without columns still says that the program is infeasible, or nothing.
        fallback = f"0 {names[0]}" if names else "0 one"
        low, high = float(rows.lower[r]), float(rows.upper[r])
        used |= rows.functions.reads(r)
        if low == high:
            out += _wrapped(f" {row_names[r]}:", [*parts, f"= {number(high)}"], fallback)
            continue
        if np.isfinite(high):
            out += _wrapped(f" {row_names[r]}:", [*parts, f"<= {number(high)}"], fallback)
        if np.isfinite(low):
            part = "_lo" if np.isfinite(high) else ""
            out += _wrapped(f" {row_names[r]}{part}:", [*parts, f">= {number(low)}"], fallback)
    for k, i in enumerate(mixed.indicators):
        body = _linear(list(i.terms), names)
        out += _wrapped(
            f" ind{k + 1}:",
            [f"{names[i.binary]} = {i.value} ->", *body, f"<= {number(i.bound)}"],
            "",
        )
    out.append("Bounds")
    out += _bounds(mixed, names)
    if constant:
        out.append(" one = 1")
    binary = columns.integer & (columns.lower == 0) & (columns.upper == 1)
    for section, chosen in (("Binary", binary), ("General", columns.integer & ~binary)):
        if chosen.any():
            out.append(section)
            out += [f" {names[j]}" for j in np.flatnonzero(chosen)]
    if mixed.sets:
        out.append("SOS")
        for k, (_, (slack, multiplier)) in enumerate(mixed.sets):
            out.append(f" k{k + 1}: S1:: {names[slack]}:1 {names[multiplier]}:2")
    out.append("End")
    return "\n".join(out) + "\n"


def _bounds(mixed: Mixed, names: tuple[str, ...]) -> list[str]:
    """Both bounds of every column: readers disagree on what an omitted one means."""
    lines: list[str] = []
    for name, low, high in zip(names, mixed.columns.lower, mixed.columns.upper, strict=True):
        if low == high:
            lines.append(f" {name} = {number(low)}")
        elif low == -np.inf and high == np.inf:
            lines.append(f" {name} free")
        else:
            left = "-inf" if low == -np.inf else number(low)
            right = "" if high == np.inf else f" <= {number(high)}"
            lines.append(f" {left} <= {name}{right}")
    return lines


def _linear(terms: Iterable[tuple[int, float]], names: tuple[str, ...]) -> list[str]:
    return _linear_text([(c, names[j]) for j, c in terms])


def _linear_text(terms: Iterable[tuple[float, str]]) -> list[str]:
    """``+ 2 x`` for every term; 1 is not written."""
    parts: list[str] = []
    for c, name in terms:
        sign = "-" if c < 0 else "+"
        size = "" if abs(c) == 1.0 else f"{number(abs(c))} "
        parts.append(f"{sign} {size}{name}")
    return parts


def _quadratic(
    functions: Functions, row: int, names: tuple[str, ...], objective: bool
) -> list[str]:
    """``+ [ 2 x ^2 + 8 y ^2 ] / 2``; rows have no division."""
    terms = quadratic_terms(functions, row)
    if not terms:
        return []
    scale = 2.0 if objective else 1.0
    shown = [
        (scale * c, f"{names[i]} ^2" if i == j else f"{names[i]} * {names[j]}") for i, j, c in terms
    ]
    first, *rest = _linear_text(shown)
    return ["+ [", first.removeprefix("+ "), *rest, "] / 2" if objective else "]"]


def _wrapped(start: str, parts: list[str], fallback: str) -> list[str]:
    """Parts over lines of a moderate length (readers have limits)."""
    body = list(parts)
    if not body or body[0].startswith(("=", "<", ">")):
        body.insert(0, fallback)
    if body[0].startswith("+ ") and not body[0].startswith("+ ["):
        body[0] = body[0][2:]
    lines = [start]
    for part in body:
        if len(lines[-1]) + len(part) > WIDTH:
            lines.append(" ")
        lines[-1] += f" {part}"
    return lines
