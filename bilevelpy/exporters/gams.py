"""GAMS: the bilevel program itself (EMP), or its optimality conditions as an MPEC."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.conditions import Line, Writer, conditions, slack_tree
from bilevelpy.exporters.expressions import Style, simple
from bilevelpy.exporters.gams_loops import GAMS, looped, looped_data
from bilevelpy.exporters.header import commented, header, name_lines
from bilevelpy.exporters.loops import loops
from bilevelpy.exporters.naming import Namer, identifiers
from bilevelpy.exporters.naming import number as plain
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.rows import system
from bilevelpy.reductions.validity import require_convex, require_optimistic

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


def gams_names() -> Namer:
    """Identifiers of at most 63 letters, in which upper and lower case are the same."""
    return identifiers(RESERVED, fold=True, limit=60)


class GamsEmp:
    """One follower or several independent ones, convex, of any functions that GAMS knows."""

    name: ClassVar[str] = "gams-emp"
    title: ClassVar[str] = "GAMS program with a bilevel EMP annotation (ReSHOP)"
    suffix: ClassVar[str] = ".gms"
    consumer: ClassVar[str] = "gams {file} lo=2 emp=reshop"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The program."""
        target = "a GAMS EMP program"
        found = system(bound)
        require_optimistic(found, target)
        program = bound.program
        prices = [b for b in found.columns.blocks if b.is_dual]
        if prices:
            raise refuse(
                program, "BLV0701", prices[0].span, "its shadow price is used",
                target=target, what="shadow prices", hint="gams-mpec holds them",
            )  # fmt: skip
        for k, follower in enumerate(found.followers):
            whole = found.columns.integer & (found.columns.owner == k + 1)
            if whole.any() or follower.nash:
                what = "a Nash game" if follower.nash else "whole numbers of a follower"
                raise refuse(program, "BLV0701", follower.span, target=target, what=what)
        # The solvers of EMP put optimality conditions in the follower's place.
        warnings = require_convex(found, options.force)
        write = Writer(bound, target, STYLE, gams_names(), found.columns.names)
        lines = [f"WARNING: {w}" for w in warnings] + name_lines(found.columns.names, write.names)
        out = commented(
            header(program, "bilevel program for EMP; solve with emp=reshop", lines), "*"
        )
        values = ["zu", *(f"zl{k + 1}" for k in range(len(found.followers)))]
        out += _declarations(found.columns, write.names, ["zu", *values[1:]])
        upper = list(write.lines(found.upper_rows))
        lower: dict[int, list[Line]] = {k + 1: [] for k in range(len(found.followers))}
        # A row of a follower that reads none of its variables belongs to the upper level.
        for line in write.lines(found.lower_rows):
            k = int(found.lower_rows.follower[line.row])
            reads = found.lower_rows.functions.reads(line.row)
            own = any(found.columns.owner[j] == k for j in reads)
            (lower[k] if own else upper).append(line)
        defs = [f"def{value}" for value in values]
        names: dict[int, list[str]] = {}
        body: list[str] = []
        objective = write.function(found.objective, 0, program.upper.objective.span)
        body.append(f"defzu.. zu =e= {objective};")
        for k in range(len(found.followers)):
            level = program.level(found.followers[k].level)
            shown = write.function(found.lower_objectives, k, level.objective.span)
            body.append(f"defzl{k + 1}.. zl{k + 1} =e= {shown};")
        for k, part in enumerate([upper, *lower.values()]):
            names[k] = []
            for line in part:
                for name, relation, end in _split(line):
                    names[k].append(name)
                    body.append(f"{name}.. {line.body} ={relation}= {plain(end)};")
        every = [*defs, *(n for part in names.values() for n in part)]
        out += ["equations", *_listed(every), "", *_broken(body), "", "model bl / all /;", ""]
        out += ['$onecho > "%emp.info%"']
        leaders = [write.names[j] for j in found.upper_columns]
        out += [" ".join(["bilevel", *leaders])] if leaders else ["bilevel"]
        for k in range(len(found.followers)):
            own_columns = [write.names[j] for j in np.flatnonzero(found.columns.owner == k + 1)]
            block = [f"min zl{k + 1}", *own_columns, f"defzl{k + 1}", *names[k + 1]]
            out += _wrapped(block)
        out += ["$offecho", "", "solve bl using emp minimizing zu;"]
        out += _report("bl", values, write.names, int(found.sign))
        return Files("\n".join(out) + "\n", warnings=warnings)


class GamsMpec:
    """The conditions of :mod:`bilevelpy.reductions.kkt` with complementarity pairs."""

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
        lines = [f"WARNING: {w}" for w in found.warnings]
        what = "optimality conditions of the followers as complementarity pairs"
        made = loops(found, write, GAMS, paired_rows=False)
        if made is not None:
            out = commented(header(program, what, lines), "*")
            out += _broken(looped(made, stem, int(found.system.sign)))
            return Files("\n".join(out) + "\n", {".inc": looped_data(made)}, found.warnings)
        lines += name_lines(found.columns.names, write.names)
        out = commented(header(program, what, lines), "*")
        out += _declarations(found.columns, write.names, ["zu"])
        objective = write.function(found.objective, 0, program.upper.objective.span)
        body = [f"defzu.. zu =e= {objective};"]
        names = ["defzu"]
        paired = {p.row for p in found.pairs if p.row is not None}
        for line in write.lines(found.rows, found.kinds):
            if line.row in paired:
                continue
            for name, relation, end in _split(line):
                names.append(name)
                body.append(f"{name}.. {line.body} ={relation}= {plain(end)};")
        matched: list[str] = []
        for pair in found.pairs:
            name = namer.name(f"comp.{pair.name}")
            body.append(f"{name}.. {write.tree(slack_tree(found, pair), pair.span)} =g= 0;")
            matched.append(f"{name}.{write.names[pair.multiplier]}")
            names.append(name)
        out += ["equations", *_listed(names), "", *_broken(body), ""]
        members = [n for n in names if not any(m.startswith(f"{n}.") for m in matched)] + matched
        out += _wrapped(["model kkt /", *(f"{m}," for m in members[:-1]), members[-1], "/;"])
        out += ["", "solve kkt using mpec minimizing zu;"]
        out += _report("kkt", ["zu"], write.names, int(found.system.sign))
        return Files("\n".join(out) + "\n", warnings=found.warnings)


def _declarations(columns: Columns, names: tuple[str, ...], values: list[str]) -> list[str]:
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
            out += [word, *_listed(group), ""]
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


def _split(line: Line) -> list[tuple[str, str, float]]:
    """Equations of GAMS have one side: (name, relation, end)."""
    if line.low == line.high:
        return [(line.name, "e", line.high)]
    found = []
    if np.isfinite(line.high):
        found.append((line.name, "l", line.high))
    if np.isfinite(line.low):
        found.append((line.name if not found else f"{line.name}_lo", "g", line.low))
    return found


def _listed(names: list[str]) -> list[str]:
    return [f"  {n}{';' if k == len(names) - 1 else ','}" for k, n in enumerate(names)]


def _wrapped(words: list[str], width: int = 100) -> list[str]:
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) > width:
            lines.append("  ")
        lines[-1] += f" {word}"
    return lines


def _broken(lines: list[str], width: int = 10_000) -> list[str]:
    """Long lines as several; GAMS reads 80,000 characters of one."""
    out: list[str] = []
    for line in lines:
        out += [line] if len(line) <= width else _wrapped(line.split(" "), width)
    return out


def _report(model: str, values: list[str], names: tuple[str, ...], sign: int) -> list[str]:
    shown = [f"{n}.l" for n in (*values, *names)]
    return [
        *_wrapped(["display", *(f"{s}," for s in shown[:-1]), f"{shown[-1]};"]),
        f"* the objective of the model is {sign} * zu.l; look at MODEL STATUS, gams exits with 0",
        "* status, objective, then every variable in the order of their declaration",
        "file res /res.txt/; put res;",
        f"put {model}.modelstat:0:0 / zu.l:0:10 /;",
        *(f"put {n}.l:0:12 /;" for n in names),
        "putclose res;",
    ]
