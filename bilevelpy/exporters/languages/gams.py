"""GAMS: the optimality conditions as an MPEC, and what every program of GAMS has."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.conditions import Line, Writer, conditions, slack_tree
from bilevelpy.exporters.expressions import Style, simple
from bilevelpy.exporters.header import commented, header, name_lines
from bilevelpy.exporters.languages.gams_loops import GAMS, looped, looped_data
from bilevelpy.exporters.loops import loops
from bilevelpy.exporters.naming import Namer, identifiers
from bilevelpy.exporters.naming import number as plain
from bilevelpy.exporters.parts import parts_of_conditions

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.reductions.columns import Columns

RESERVED = [
    "all",
    "and",
    "card",
    "diag",
    "eq",
    "equation",
    "equations",
    "else",
    "eps",
    "file",
    "files",
    "free",
    "ge",
    "gt",
    "if",
    "inf",
    "integer",
    "binary",
    "le",
    "lt",
    "lo",
    "loop",
    "l",
    "m",
    "maximizing",
    "minimizing",
    "model",
    "models",
    "ne",
    "negative",
    "no",
    "not",
    "or",
    "option",
    "options",
    "ord",
    "parameter",
    "parameters",
    "positive",
    "put",
    "repeat",
    "sameas",
    "scalar",
    "scalars",
    "set",
    "sets",
    "solve",
    "smax",
    "smin",
    "sum",
    "system",
    "table",
    "then",
    "up",
    "until",
    "using",
    "variable",
    "variables",
    "while",
    "xor",
    "yes",
    "zu",
    "zl",
    "defu",
    "bl",
    "kkt",
    "res",
    "put",
    "abs",
    "arctan",
    "cos",
    "cosh",
    "exp",
    "log",
    "max",
    "min",
    "power",
    "sin",
    "sinh",
    "sqr",
    "sqrt",
    "tan",
    "tanh",
    "display",
    "na",
    "undf",
    "fx",
    "scale",
]
LOCAL = "Solutions are local: set starts (x.l = 1;) before the solve statement to look for others."
FUNCTIONS = simple("exp log sqrt sin cos tan sinh cosh tanh abs") | {
    "atan": "arctan({0})",
    "max": "max({0},{1})",
    "min": "min({0},{1})",
}


def _power(base: str, exponent: str, whole: int | None) -> str:
    # `**` takes no negative base, `power` takes a whole exponent.
    if whole == 2:
        return f"sqr({base})"
    return f"power({base},{whole})" if whole is not None else f"{base}**{exponent}"


STYLE = Style(FUNCTIONS, _power)
# Characters of a line at most; GAMS reads 80,000.
WIDTH = 10_000


def gams_names() -> Namer:
    """Identifiers of at most 63 letters, in which upper and lower case are the same."""
    return identifiers(RESERVED, fold=True, limit=60)


class GamsMpec:
    """The conditions of :mod:`bilevelpy.reductions.optimality.kkt` with complementarity pairs."""

    name: ClassVar[str] = "gams-mpec"
    title: ClassVar[str] = "GAMS program of the KKT conditions with complementarity (NLPEC, KNITRO)"
    suffix: ClassVar[str] = ".gms"
    consumer: ClassVar[str] = "gams {file} lo=2 mpec=nlpec"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The program."""
        target = "a GAMS MPEC program"
        found = conditions(bound, target, options)
        program = bound.program
        namer = gams_names()
        write = Writer(bound, target, STYLE, namer, found.columns.names)
        lines = [*(f"WARNING: {w}" for w in found.warnings), LOCAL]
        what = "optimality conditions of the followers as complementarity pairs"
        made = loops(parts_of_conditions(found, paired_rows=False), write, GAMS)
        if made is not None:
            out = commented(header(program, what, lines), "*")
            out += broken(looped(made, stem, int(found.system.sign)))
            return Files("\n".join(out) + "\n", {".inc": looped_data(made)}, found.warnings)
        lines += name_lines(found.columns.names, write.names)
        out = commented(header(program, what, lines), "*")
        out += declarations(found.columns, write.names, ["zu"])
        objective = write.function(found.objective, 0, program.upper.objective.span)
        body = [f"defzu.. zu =e= {objective};"]
        names = ["defzu"]
        paired = {p.row for p in found.pairs if p.row is not None}
        for line in write.lines(found.rows, found.kinds):
            if line.row in paired:
                continue
            for name, relation, end in sides(line):
                names.append(name)
                body.append(f"{name}.. {line.body} ={relation}= {plain(end)};")
        matched: list[str] = []
        for pair in found.pairs:
            name = namer.name(f"comp.{pair.name}")
            body.append(f"{name}.. {write.tree(slack_tree(found, pair), pair.span)} =g= 0;")
            matched.append(f"{name}.{write.names[pair.multiplier]}")
            names.append(name)
        out += ["equations", *listed(names), "", *broken(body), ""]
        members = [n for n in names if not any(m.startswith(f"{n}.") for m in matched)] + matched
        out += wrapped(["model kkt /", *(f"{m}," for m in members[:-1]), members[-1], "/;"])
        out += ["", "solve kkt using mpec minimizing zu;"]
        out += report("kkt", ["zu"], write.names, int(found.system.sign))
        return Files("\n".join(out) + "\n", warnings=found.warnings)


def declarations(columns: Columns, names: tuple[str, ...], values: list[str]) -> list[str]:
    """Variables with all their bounds and starts."""
    out: list[str] = []
    binary = columns.integer & (columns.lower == 0) & (columns.upper == 1)
    groups = {
        "variables": [n for n, i in zip(names, columns.integer, strict=True) if not i] + values,
        "binary variables": [n for n, b in zip(names, binary, strict=True) if b],
        "integer variables": [
            n for n, i, b in zip(names, columns.integer, binary, strict=True) if i and not b
        ],
    }
    for word, group in groups.items():
        if group:
            out += [word, *listed(group), ""]
    for j, name in enumerate(names):
        low, high, start = (float(v[j]) for v in (columns.lower, columns.upper, columns.start))
        parts = []
        if binary[j]:
            continue
        if low > -np.inf or columns.integer[j]:
            parts.append(f"{name}.lo = {plain(low) if np.isfinite(low) else '-inf'};")
        if high < np.inf or columns.integer[j]:
            parts.append(f"{name}.up = {plain(high) if np.isfinite(high) else 'inf'};")
        if start:
            parts.append(f"{name}.l = {plain(start)};")
        if parts:
            out.append(" ".join(parts))
    return [*out, ""]


def sides(line: Line) -> list[tuple[str, str, float]]:
    """Equations of GAMS have one side: (name, relation, end)."""
    if line.low == line.high:
        return [(line.name, "e", line.high)]
    found = []
    if np.isfinite(line.high):
        found.append((line.name, "l", line.high))
    if np.isfinite(line.low):
        found.append((line.name if not found else f"{line.name}_lo", "g", line.low))
    return found


def listed(names: list[str]) -> list[str]:
    """Names one a line, as a declaration ends."""
    return [f"  {n}{';' if k == len(names) - 1 else ','}" for k, n in enumerate(names)]


def wrapped(words: list[str], width: int = 100) -> list[str]:
    """Words over lines of a moderate length."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) > width:
            lines.append("  ")
        lines[-1] += f" {word}"
    return lines


def broken(lines: list[str]) -> list[str]:
    """Long lines as several."""
    out: list[str] = []
    for line in lines:
        out += [line] if len(line) <= WIDTH else wrapped(line.split(" "), WIDTH)
    return out


def report(model: str, values: list[str], names: tuple[str, ...], sign: int) -> list[str]:
    """Status, objective and values, on the listing and into a file."""
    shown = [f"{n}.l" for n in (*values, *names)]
    return [
        *wrapped(["display", *(f"{s}," for s in shown[:-1]), f"{shown[-1]};"]),
        f"* the objective of the model is {sign} * zu.l; look at MODEL STATUS, gams exits with 0",
        "* status, objective, then every variable in the order of their declaration",
        "file res /res.txt/; put res;",
        f"put {model}.modelstat:0:0 / zu.l:0:10 /;",
        *(f"put {n}.l:0:12 /;" for n in names),
        "putclose res;",
    ]
