"""Large GAMS programs: equations over sets, numbers included.

One set ``l`` counts everything: variables, lines of tables, members of families. A place in a table
is a set of pairs (line, variable), over which a sum has one term.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.exporters.loops import Dialect
from bilevelpy.exporters.naming import number

if TYPE_CHECKING:
    from bilevelpy.exporters.loops import Loops

Array = np.ndarray[Any, np.dtype[Any]]


def _at(index: str) -> str:
    return f"'{index}'" if index.isdigit() else index


GAMS = Dialect(
    lambda table, index: f"{table}({_at(index)})",
    lambda base, table, index: (
        f"{base}({_at(index)})" if table is None else f"sum({table}({_at(index)},j), {base}(j))"
    ),
    lambda body, inner, table, index: f"sum({table}({_at(index)},{inner}), {body})",
)
RELATIONS = {"e": "high", "l": "high", "g": "low"}
"""Relation of GAMS -> the end of a row that stands on its right."""


@dataclass(slots=True)
class Text:
    """Declarations, names of equations with their domain, and their bodies."""

    declared: list[str] = field(default_factory=list)
    equations: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)

    def add(self, name: str, body: str, domain: str = "(l)", members: str = "") -> None:
        """An equation; ``members`` says for which ``i`` it holds."""
        self.equations.append(f"{name}{domain}")
        self.bodies.append(f"{name}{members}.. {body};")


def beginning(made: Loops, stem: str, text: Text) -> None:
    """What conditions and levels have alike: variables, the upper objective, rows."""
    text.declared += [f'$include "{stem}.inc"', "variables v(l), zu;"]
    text.declared += ["v.lo(c) = low(c); v.up(c) = high(c);", "v.l(c) = start(c);"]
    text.add("defzu", f"zu =e= {made.objective.body}", "")
    if made.tables["whole"].any():
        text.declared += ["integer variables w(l);", "w.lo(c) = low(c); w.up(c) = high(c);"]
        text.add("whole_", "v(c) =e= w(c)", members="(c)$whole(c)")
    for z in made.definitions:
        text.declared.append(f"variables {z.label}(l);")
        text.add(f"{z.label}_", f"{z.label}(i) =e= {z.body}", members=_first(z.count))
    for r in made.rows:
        for relation, end in RELATIONS.items():
            if row_members(made, r.label, relation).any():
                name = f"{r.label}_is_{relation}"
                body = f"{r.body} ={relation}= {r.label}_{end}(i)"
                text.add(f"{name}_", body, members=f"(i)${name}(i)")


def _first(count: int) -> str:
    return f"(i)$(ord(i) <= {count})"


def looped(made: Loops, stem: str, sign: int) -> list[str]:
    """The program of conditions; its sets and parameters are included."""
    text = Text()
    beginning(made, stem, text)
    matched = []
    for p in made.pairs:
        # A variable is matched as a whole, so that the multipliers of a family get a copy.
        text.declared.append(f"positive variables {p.label}_lam(l);")
        text.add(f"{p.label}_", f"{p.body} =g= 0", members=_first(p.count))
        copied = f"{p.label}_lam(i) =e= sum({p.label}_multiplier(i,j), v(j))"
        text.add(f"{p.label}_is", copied, members=_first(p.count))
        matched.append(f"{p.label}_.{p.label}_lam")
    left = [e.partition("(")[0] for e in text.equations]
    members = [e for e in left if not any(m.startswith(f"{e}.") for m in matched)] + matched
    return [
        *written(text),
        "model kkt /", *(f"  {m}," for m in members[:-1]), f"  {members[-1]} /;", "",
        "solve kkt using mpec minimizing zu;",
        *report("kkt", sign),
    ]  # fmt: skip


def written(text: Text) -> list[str]:
    """Declarations, equations, bodies."""
    head = ["equations", *(f"  {e}" for e in text.equations), ";", ""]
    return [*text.declared, *head, *text.bodies, ""]


def report(model: str, sign: int) -> list[str]:
    """Status, objective and values into a file."""
    return [
        f"* the objective of the model is {sign} * zu.l; look at MODEL STATUS, gams exits with 0",
        "* status, objective, then every variable in the order of the include file",
        "file res /res.txt/; put res;",
        f"put {model}.modelstat:0:0 / zu.l:0:10 /;",
        "loop(c, put v.l(c):0:12 /);",
        "putclose res;",
    ]


def looped_data(made: Loops) -> str:
    """The sets and parameters; explanatory texts are the names in the model."""
    tables = made.tables
    lines = (
        max(int(t[-1]) for n, t in tables.items() if made.sorts[n] == "lines")
        if any(s == "lines" for s in made.sorts.values())
        else 0
    )
    last = max([lines, *(t.size for t in tables.values())])
    out = [f"set l / 0*{last} /;", "alias (l, i, j, k, n, p, q, i6, i7, i8, i9);"]
    out += _listed("set c(l)", (f'{k} "{_quoted(n)}"' for k, n in enumerate(tables["name"])))
    for name, table in tables.items():
        sort = made.sorts[name]
        if name == "name" or (name == "whole" and not table.any()):
            continue
        if sort == "name":
            named = (f'{k} "{_quoted(n)}"' for k, n in enumerate(table))
            out += _listed(f"set {name}(l)", named)
        elif sort == "number":
            # What is zero need not be said, but something has to be.
            values = (f"{k} {_number(v)}" for k, v in enumerate(table.tolist()) if v or not k)
            out += _listed(f"parameter {name}(l)", values)
        elif sort == "place":
            pairs = (f"{k}.{v}" for k, v in enumerate(table.tolist()))
            out += _listed(f"set {name}(l,l)", pairs)
        else:
            ends = zip(table[:-1].tolist(), table[1:].tolist(), strict=True)
            spans = (f"{k}.({a}*{b - 1})" for k, (a, b) in enumerate(ends) if b > a)
            out += _listed(f"set {name}(l,l)", spans)
    for r in made.rows:
        for relation in RELATIONS:
            chosen = np.flatnonzero(row_members(made, r.label, relation))
            if chosen.size:
                out += _listed(f"set {r.label}_is_{relation}(l)", map(str, chosen.tolist()))
    return "\n".join(out) + "\n"


def row_members(made: Loops, label: str, relation: str) -> Array:
    """The members of a family of rows that have a relation."""
    low, high = made.tables[f"{label}_low"], made.tables[f"{label}_high"]
    if relation == "e":
        return np.asarray(low == high)
    return np.asarray(np.isfinite(high if relation == "l" else low) & (low != high))


def _listed(head: str, members: Iterable[str]) -> list[str]:
    return [f"{head} /", *(f"  {m}" for m in members), "/;"]


def _number(value: float) -> str:
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    return number(value) if value else "eps"


def _quoted(name: str) -> str:
    """An explanatory text: at most 255 printable characters, no double quotes."""
    return "".join(c if c.isprintable() and c != '"' else " " for c in name)[:200]
