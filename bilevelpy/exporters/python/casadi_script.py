"""A CasADi program: the conditions as a nonlinear program with products, solved by Ipopt."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.conditions import Writer, conditions, slack_tree
from bilevelpy.exporters.header import header
from bilevelpy.exporters.loops import loops
from bilevelpy.exporters.parts import parts_of_conditions
from bilevelpy.exporters.python.python_script import (
    ALL,
    PYTHON,
    TABLES,
    docstring,
    members,
    packed,
    python_names,
    style,
)
from bilevelpy.reductions.refusal import refuse

if TYPE_CHECKING:
    from bilevelpy.exporters.loops import Loops
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.reductions.optimality.conditions import KKT

STYLE = style("ca.", abs="ca.fabs({0})", max="ca.fmax({0}, {1})", min="ca.fmin({0}, {1})")
TARGET = "a CasADi program"
EPSILON = 1e-7
"""Right-hand side of the products unless another one is asked for: 0 leaves no interior."""
WIDER = (1e-1, 1e-3, 1e-5)
"""Right-hand sides before that."""


class CasadiScript:
    """Any class of functions that the KKT conditions exist for; continuous variables."""

    name: ClassVar[str] = "casadi"
    title: ClassVar[str] = (
        "CasADi program of the KKT conditions (products, local solution by Ipopt)"
    )
    suffix: ClassVar[str] = ".py"
    consumer: ClassVar[str] = "python {file}"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The program."""
        options.form("casadi", "products")
        found = conditions(bound, TARGET, options)
        columns = found.columns
        for j in columns.integer.nonzero()[0]:
            block = columns.block_of(int(j))
            span = block.span if block is not None else None
            raise refuse(
                bound.program, "BLV0701", span, target=TARGET, what="whole numbers (Ipopt)"
            )
        namer = python_names("ca", "rows", "solver", "point", *ALL.split())
        write = Writer(bound, TARGET, STYLE, namer, columns.names)
        epsilon = options.epsilon or EPSILON
        what = f"Optimality conditions of the followers; slack * multiplier <= {epsilon!r}."
        lines = [
            *(f"WARNING: {w}" for w in found.warnings),
            "Solutions are local; begin elsewhere to look for others.",
        ]
        out = docstring(header(bound.program, what, lines))
        made = loops(parts_of_conditions(found, paired_rows=True), write, PYTHON)
        if made is not None:
            out += [*_looped(made), *_solved(found, epsilon)]
            return Files("\n".join(out) + "\n", {".npz": packed(made)}, found.warnings)
        out += ["import casadi as ca", "", "inf = ca.inf"]
        out += [f"{n} = ca.MX.sym({o!r})" for n, o in zip(write.names, columns.names, strict=True)]
        out += ["", "# (name, expression, low, high)", "rows = ["]
        for line in write.lines(found.rows, found.kinds):
            out.append(
                f"    ({found.rows.names[line.row]!r}, {line.body}, {line.low!r}, {line.high!r}),"
            )
        products = []
        for pair in found.pairs:
            slack = write.tree(slack_tree(found, pair), pair.span)
            out.append(f"    ({'slack.' + pair.name!r}, {slack}, 0.0, inf),")
            products.append(f"    ({slack})*{write.names[pair.multiplier]},")
        objective = write.function(found.objective, 0, bound.program.upper.objective.span)
        out += ["]", "# slack * multiplier", "products = [", *products, "]"]
        out += [f"F = {objective}", "# (variable, low, high, start)", "variables = ["]
        for k, name in enumerate(write.names):
            ends = (float(v[k]) for v in (columns.lower, columns.upper, columns.start))
            out.append(f"    ({name}, {', '.join(repr(e) for e in ends)}),")
        out += ["]", *_solved(found, epsilon)]
        return Files("\n".join(out) + "\n", warnings=found.warnings)


def _looped(made: Loops) -> list[str]:
    """The program in loops over tables."""
    out = ["import pathlib", "import types", "", "import casadi as ca", "import numpy as np", ""]
    out += [*TABLES, "inf = ca.inf", "v = [ca.SX.sym(name) for name in t.name]"]
    out += ["# expressions that others share"] if made.definitions else []
    out += [f"{z.label} = [{members(z)[1:-1]}]" for z in made.definitions]
    out += ["# (name, expression, low, high), and slack * multiplier", "rows, products = [], []"]
    for r in made.rows:
        names = ", ".join(f"t.{r.label}_{part}" for part in ("low", "high"))
        out.append(f"rows += zip(t.{r.label}_name, {members(r)}, {names})")
    for p in made.pairs:
        out += [
            f"for name, slack, k in zip(t.{p.label}_name, {members(p)}, t.{p.label}_multiplier):",
            '    rows.append(("slack." + name, slack, 0.0, inf))',
            "    products.append(slack * v[k])",
        ]
    out += [f"F = {made.objective.body}", "# (variable, low, high, start)"]
    return [*out, "variables = list(zip(v, t.low, t.high, t.start))"]


def _solved(found: KKT, epsilon: float) -> list[str]:
    """What Ipopt makes of it: products are let go to their bound, where they leave no room to move,
    from larger ones.
    """
    steps = [e for e in WIDER if e > epsilon]
    return [
        'problem = {"x": ca.vertcat(*(v[0] for v in variables)), "f": F,',
        '           "g": ca.vertcat(*(r[1] for r in rows), *products)}',
        'quiet = {"print_time": False, "ipopt.print_level": 0, "ipopt.sb": "yes"}',
        'solver = ca.nlpsol("solver", "ipopt", problem, quiet)',
        'point = {"x": [v[3] for v in variables]}',
        f"for epsilon in ({', '.join(map(repr, [*steps, epsilon]))},):",
        '    point = solver(x0=point["x"], lbx=[v[1] for v in variables],',
        "                   ubx=[v[2] for v in variables],",
        "                   lbg=[r[2] for r in rows] + [-inf] * len(products),",
        "                   ubg=[r[3] for r in rows] + [epsilon] * len(products))",
        'print(solver.stats()["return_status"])',
        f'print("F =", {int(found.system.sign)} * float(point["f"]))',
        f"for (variable, *_), value in zip(variables[:{found.system.columns.count}], "
        'point["x"].full().flat):',
        '    print(variable.name(), "=", value)',
    ]
