"""MPS files: the optimality conditions with SOS1 sets, indicators or big-M, in free format."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.header import commented, header, mixed_lines, name_lines
from bilevelpy.exporters.matrices.matrix import TITLES, mixed_program, with_ends
from bilevelpy.exporters.naming import Namer, number
from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.reductions.columns import Columns
    from bilevelpy.reductions.linearization.mixed import Indicator, Mixed
    from bilevelpy.reductions.rows import Functions, Rows

OBJECTIVE = "OBJ"


def mps_names() -> Namer:
    """Names of free MPS files: anything without blanks that cannot be taken for a mark."""
    return Namer(
        r"!-~", r"A-Za-z_", reserved=(OBJECTIVE, "RHS", "BND", "RNG", "MARKER"), brackets=("[", "]")
    )


class Mps:
    """Mixed-integer programs with a linear or quadratic objective and rows."""

    name: ClassVar[str] = "mps"
    title: ClassVar[str] = (
        "MPS file of the KKT conditions (SOS1, indicators, big-M, strong duality)"
    )
    suffix: ClassVar[str] = ".mps"
    consumer: ClassVar[str] = "scip -f {file}"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The text of the file."""
        mixed = mixed_program(bound, options, "an MPS file", quadratic_rows=True)
        return Files(
            mixed_text(mixed, TITLES[options.reformulation or "sos1"]), warnings=mixed.kkt.warnings
        )


def mixed_text(mixed: Mixed, what: str) -> str:
    """A mixed-integer program as an MPS file."""
    columns, rows = mixed.columns, with_ends(mixed.rows)
    names, row_names = mps_names().names(columns.names), mps_names().names(rows.names)
    program = mixed.kkt.system.bound.program
    lines = [*mixed_lines(mixed), *name_lines(columns.names, names)]
    top = commented(header(program, what, [*lines, *name_lines(rows.names, row_names)]), "*")
    indicators = _indicator_rows(mixed.indicators)
    body = matrix_lines(program.name, columns, mixed.objective, rows, names, row_names, indicators)
    if mixed.sets:
        body.append("SOS")
        for k, (_, members) in enumerate(mixed.sets):
            body.append(f" S1 SOS{k + 1}")
            body += [f"    {names[j]} {weight + 1}" for weight, j in enumerate(members)]
    # Readers want the sections in this order.
    body += quadratic_lines(mixed.objective, names)
    body += row_quadratic_lines(rows.functions, names, row_names)
    if mixed.indicators:
        body.append("INDICATORS")
        body += [
            f" IF {name} {names[i.binary]} {i.value}"
            for (name, *_), i in zip(indicators, mixed.indicators, strict=True)
        ]
    return "\n".join([*top, *body, "ENDATA"]) + "\n"


IndicatorRow = tuple[str, tuple[tuple[int, float], ...], float]


def _indicator_rows(indicators: tuple[Indicator, ...]) -> list[IndicatorRow]:
    return [(f"ind{k + 1}", i.terms, i.bound) for k, i in enumerate(indicators)]


def matrix_lines(
    name: str,
    columns: Columns,
    objective: Functions,
    rows: Rows,
    names: tuple[str, ...],
    row_names: tuple[str, ...],
    extra: list[IndicatorRow] | None = None,
) -> list[str]:
    """NAME to BOUNDS of a minimisation whose rows all have an end.

    Every bound is written: readers disagree on defaults.
    """
    extra = extra or []
    out = [f"NAME {name}", "ROWS", f" N {OBJECTIVE}"]
    kinds = [_kind(float(lo), float(hi)) for lo, hi in zip(rows.lower, rows.upper, strict=True)]
    out += [f" {kind} {n}" for kind, n in zip(kinds, row_names, strict=True)]
    out += [f" L {n}" for n, *_ in extra]
    entries: list[list[tuple[str, float]]] = [[] for _ in names]
    for j, c in linear_terms(objective, 0):
        entries[j].append((OBJECTIVE, c))
    for r in range(rows.count):
        for j, c in linear_terms(rows.functions, r):
            entries[j].append((row_names[r], c))
    for n, terms, _ in extra:
        for j, c in terms:
            entries[j].append((n, c))
    out.append("COLUMNS")
    whole = False
    for j, column in enumerate(names):
        if bool(columns.integer[j]) != whole:
            whole = not whole
            out.append(f"    MARKER{j} 'MARKER' '{'INTORG' if whole else 'INTEND'}'")
        # A column that nothing reads is still a column.
        for row, c in entries[j] or [(OBJECTIVE, 0.0)]:
            out.append(f"    {column} {row} {number(c)}")
    if whole:
        out.append("    MARKEREND 'MARKER' 'INTEND'")
    out.append("RHS")
    if objective.constant[0]:
        # The constant of the objective stands on the other side.
        out.append(f"    RHS {OBJECTIVE} {number(-float(objective.constant[0]))}")
    ranges: list[str] = []
    for n, kind, low, high in zip(row_names, kinds, rows.lower, rows.upper, strict=True):
        end = float(low) if kind == "G" else float(high)
        if end:
            out.append(f"    RHS {n} {number(end)}")
        if kind == "L" and np.isfinite(low):
            ranges.append(f"    RNG {n} {number(float(high) - float(low))}")
    out += [f"    RHS {n} {number(bound)}" for n, _, bound in extra if bound]
    if ranges:
        out += ["RANGES", *ranges]
    out.append("BOUNDS")
    ends = zip(names, columns.lower, columns.upper, columns.integer, strict=True)
    for column, low, high, is_whole in ends:
        out += _bounds(column, float(low), float(high), bool(is_whole))
    return out


def quadratic_lines(objective: Functions, names: tuple[str, ...]) -> list[str]:
    """The QUADOBJ section: one triangle of the Hessian."""
    if 0 not in objective.quadratic:
        return []
    coo = objective.quadratic[0].tocoo()
    entries = sorted(zip(coo.row, coo.col, coo.data, strict=True))
    return [
        "QUADOBJ",
        *(f"    {names[j]} {names[i]} {number(float(c))}" for i, j, c in entries if i >= j),
    ]


def row_quadratic_lines(
    functions: Functions, names: tuple[str, ...], row_names: tuple[str, ...]
) -> list[str]:
    """A QCMATRIX section for each quadratic row: both triangles of the form ``v' Q v``."""
    lines: list[str] = []
    for r, matrix in sorted(functions.quadratic.items()):
        coo = matrix.tocoo()
        lines.append(f"QCMATRIX {row_names[r]}")
        lines += [
            f"    {names[i]} {names[j]} {number(float(c) / 2)}"
            for i, j, c in sorted(zip(coo.row, coo.col, coo.data, strict=True))
            if c
        ]
    return lines


def _kind(low: float, high: float) -> str:
    if low == high:
        return "E"
    return "L" if np.isfinite(high) else "G"


def _bounds(column: str, low: float, high: float, whole: bool) -> list[str]:
    """Lower bound first: readers disagree on what a negative upper bound alone means."""
    if whole and low == 0 and high == 1:
        return [f" BV BND {column}"]
    if low == high:
        return [f" FX BND {column} {number(low)}"]
    if low == -np.inf and high == np.inf:
        return [f" FR BND {column}"]
    first = f" MI BND {column}" if low == -np.inf else f" LO BND {column} {number(low)}"
    last = f" PL BND {column}" if high == np.inf else f" UP BND {column} {number(high)}"
    return [first, last]
