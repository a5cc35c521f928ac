"""GAMS: the bilevel program itself, with an annotation that says what belongs to which follower."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.conditions import Line, Writer
from bilevelpy.exporters.header import commented, header, name_lines
from bilevelpy.exporters.languages.gams import (
    LOCAL,
    STYLE,
    broken,
    declarations,
    gams_names,
    listed,
    report,
    sides,
    wrapped,
)
from bilevelpy.exporters.languages.gams_loops import (
    GAMS,
    RELATIONS,
    Text,
    beginning,
    looped_data,
    row_members,
    written,
)
from bilevelpy.exporters.languages.gams_loops import report as looped_report
from bilevelpy.exporters.loops import loops
from bilevelpy.exporters.naming import number as plain
from bilevelpy.exporters.parts import parts_of_levels
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.monomials import Terms, terms_rows
from bilevelpy.reductions.optimality.validity import require_convex, require_optimistic
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rows import join_rows, system

if TYPE_CHECKING:
    from bilevelpy.exporters.loops import Loops
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.reductions.rows import System

TARGET = "a GAMS EMP program"
# An expression that two levels share would be a variable of neither.
EMP = replace(GAMS, share=False)
# ReSHOP differentiates followers itself: it has no derivatives of these functions, and loses terms
# of `c*x*y` where c is a parameter with the value -1, but not of `c*(x*y)`.
SPELLED = {
    "tan": "(sin({0})/cos({0}))",
    "sinh": "((exp({0}) - exp(-({0})))/2)",
    "cosh": "((exp({0}) + exp(-({0})))/2)",
    "tanh": "(1 - 2/(exp(2*({0})) + 1))",
}
EMP_STYLE = replace(STYLE, functions={**STYLE.functions, **SPELLED}, grouped=True)
SEEN = "every variable of the leader, for a follower to see"


class GamsEmp:
    """One follower or several independent ones, convex, of any functions that GAMS knows."""

    name: ClassVar[str] = "gams-emp"
    title: ClassVar[str] = "GAMS program with a bilevel EMP annotation (ReSHOP)"
    suffix: ClassVar[str] = ".gms"
    consumer: ClassVar[str] = "gams {file} lo=2 emp=reshop"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The program."""
        target, program = TARGET, bound.program
        found = lift(system(bound))
        require_optimistic(found, target)
        if not program.lowers:
            raise refuse(
                program, "BLV0701", program.upper.span, "no `lower` in this model",
                target=target, what="a model of one level", hint="gams-mpec holds it",
            )  # fmt: skip
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
        _require_smooth(found)
        found, added = _all_seen(found)
        write = Writer(bound, target, EMP_STYLE, gams_names(), found.columns.names)
        lines = [*(f"WARNING: {w}" for w in warnings), LOCAL]
        if added:
            lines.append(f"{write.names[-1]}: {SEEN} (ReSHOP 0.4.9 stops at one that none reads)")
        what = "bilevel program for EMP; solve with emp=reshop"
        made = loops(parts_of_levels(found), write, EMP)
        if made is not None:
            out = commented(header(program, what, lines), "*")
            out += broken(_looped(found, made, stem))
            data = looped_data(made) + "\n".join(_annotation(found, made)) + "\n"
            return Files("\n".join(out) + "\n", {".inc": data}, warnings)
        lines += name_lines(found.columns.names, write.names)
        out = commented(header(program, what, lines), "*")
        values = ["zu", *(f"zl{k + 1}" for k in range(len(found.followers)))]
        out += declarations(found.columns, write.names, ["zu", *values[1:]])
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
                for name, relation, end in sides(line):
                    names[k].append(name)
                    body.append(f"{name}.. {line.body} ={relation}= {plain(end)};")
        every = [*defs, *(n for part in names.values() for n in part)]
        out += ["equations", *listed(every), "", *broken(body), "", "model bl / all /;", ""]
        out += ['$onecho > "%emp.info%"']
        leaders = [write.names[j] for j in found.upper_columns]
        out += [" ".join(["bilevel", *leaders])] if leaders else ["bilevel"]
        for k in range(len(found.followers)):
            own_columns = [write.names[j] for j in np.flatnonzero(found.columns.owner == k + 1)]
            block = [f"min zl{k + 1}", *own_columns, f"defzl{k + 1}", *names[k + 1]]
            out += wrapped(block)
        out += ["$offecho", "", "solve bl using emp minimizing zu;"]
        out += report("bl", values, write.names, int(found.sign))
        return Files("\n".join(out) + "\n", warnings=warnings)


def _require_smooth(found: System) -> None:
    """Refuse followers with kinks: there are no optimality conditions in derivatives."""
    program, columns = found.bound.program, found.columns
    followers = [(k + 1, program.level(f.level).objective) for k, f in enumerate(found.followers)]
    trees = [
        (owner, objective.span, found.lower_objectives.trees[owner - 1])
        for owner, objective in followers
        if owner - 1 in found.lower_objectives.trees
    ]
    rows = found.lower_rows
    trees += [(int(rows.follower[r]), rows.spans[r], t) for r, t in rows.functions.trees.items()]
    for owner, span, tree in trees:
        own = {int(j) for j in np.flatnonzero(columns.owner == owner)}
        for j, slope in sc.gradient(tree, own).items():
            if slope is None:
                raise refuse(
                    program, "BLV0707", span, "has kinks (abs, max or min)",
                    hint="write it with a further variable and two rows, which is smooth",
                    what=f"the derivative by `{columns.names[j]}`",
                )  # fmt: skip


def _all_seen(found: System) -> tuple[System, bool]:
    """The system in which rows of followers read all variables of the leader.

    The first follower gets a further variable, which is the sum of those that no row of a follower
    reads. It stands nowhere else, so that the follower stays what it was.
    """
    rows, columns = found.lower_rows, found.columns
    reads: set[int] = set().union(*(rows.functions.reads(r) for r in range(rows.count)))
    unseen = [int(j) for j in found.upper_columns if int(j) not in reads]
    if not unseen or not found.followers:
        return found, False
    width = columns.count + 1
    terms: Terms = {**{(j,): 1.0 for j in unseen}, (columns.count,): -1.0}
    seen = replace(
        terms_rows(["seen_by_a_follower"], [terms], [0.0], [0.0], width), follower=np.ones(1, int)
    )
    inf = np.array([np.inf])
    wider = replace(
        found,
        columns=columns.extended(["seen"], -inf, inf, np.zeros(1, dtype=bool), owner=1),
        objective=found.objective.widened(width),
        upper_rows=found.upper_rows.widened(width),
        lower_objectives=found.lower_objectives.widened(width),
        lower_rows=join_rows([rows.widened(width), seen], width),
    )
    return wider, True


def _looped(found: System, made: Loops, stem: str) -> list[str]:
    """The program in equations over sets; sets, parameters and the annotation are included."""
    text = Text()
    beginning(made, stem, text)
    if found.columns.integer.any():
        # As in `_all_seen`: the whole numbers are variables of the leader, too.
        text.declared.append("variables w_seen;")
        text.add("w_seen_", "w_seen =e= sum(c$whole(c), w(c))", "")
    for f in made.followers:
        text.declared.append(f"variables {f.label}_value(l);")
        members = f"(i)$(ord(i) <= {f.count})"
        text.add(f"{f.label}_", f"{f.label}_value(i) =e= {f.body}", members=members)
    solve = ["model bl / all /;", "", "solve bl using emp minimizing zu;"]
    return [*written(text), *solve, *looped_report("bl", int(found.sign))]


def _annotation(found: System, made: Loops) -> list[str]:
    """Elements of variables and equations by level; what is not named is the leader's."""
    leaders = [f"v('{j}')" for j in found.upper_columns]
    leaders += [f"w('{j}')" for j in np.flatnonzero(found.columns.integer)]
    out = ['$onecho > "%emp.info%"', *wrapped(["bilevel", *leaders])]
    first = found.upper_rows.count
    own: dict[int, list[str]] = {k + 1: [] for k in range(len(found.followers))}
    for r in made.rows:
        if r.kind != "lower":
            continue
        for relation in RELATIONS:
            for m in np.flatnonzero(row_members(made, r.label, relation)):
                follower = int(found.lower_rows.follower[r.places[m] - first])
                own[follower].append(f"{r.label}_is_{relation}_('{m}')")
    for f in made.followers:
        for i, k in enumerate(f.places):
            columns = [f"v('{j}')" for j in np.flatnonzero(found.columns.owner == k + 1)]
            whole = k == 0 and bool(found.columns.integer.any())
            columns += ["w_seen"] if whole else []
            own[k + 1] += ["w_seen_"] if whole else []
            objective = [f"min {f.label}_value('{i}')", *columns, f"{f.label}_('{i}')"]
            out += wrapped([*objective, *own[k + 1]])
    return [*out, "$offecho"]
