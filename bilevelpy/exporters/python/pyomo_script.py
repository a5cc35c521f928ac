"""A readable Pyomo program: upper level, follower, stationarity, complementarity."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.conditions import Line, Writer, conditions, slack_tree
from bilevelpy.exporters.header import header
from bilevelpy.exporters.loops import loops
from bilevelpy.exporters.parts import parts_of_conditions
from bilevelpy.exporters.python.python_script import (
    ALL,
    PYTHON,
    TABLES,
    bound,
    docstring,
    members,
    packed,
    python_names,
    style,
)

if TYPE_CHECKING:
    from bilevelpy.exporters.loops import Loops
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.reductions.optimality.conditions import KKT

STYLE = style("pyo.", abs="abs({0})")
TITLES = {
    "upper": "upper level",
    "lower": "feasibility of the followers",
    "stationarity": "stationarity of the followers",
    "price": "shadow prices",
}
TAIL = """
def solve(solver=None):
    \"\"\"Solve with a solver of Pyomo's, or, without one, with SCIP (pip install pyscipopt).\"\"\"
    if solver is not None:
        pyo.SolverFactory(solver).solve(m)
        return pyo.value(m.F)
    import os
    import tempfile

    from pyscipopt import Model

    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "model.nl")
        _, key = m.write(file)
        scip = Model()
        scip.hideOutput()
        scip.readProblem(file)
        scip.optimize()
        if not scip.getNSols():
            raise SystemExit(f"SCIP says {scip.getStatus()}")
        # The file has names of its own: v3 is Pyomo's symbol for what SCIP calls x3.
        known = m.solutions.symbol_map[key].bySymbol
        for column in scip.getVars(transformed=False):
            made = known.get("v" + column.name[1:])
            if made is not None:
                variable = made if hasattr(made, "set_value") else made()
                variable.set_value(scip.getVal(column), skip_validation=True)
        return scip.getObjVal()


if __name__ == "__main__":
    print("F =", SIGN * solve(*sys.argv[1:]))
    for name in NAMES:
        print(name, "=", pyo.value(m.component(name), exception=False))
"""


class PyomoScript:
    """Any class of functions that the KKT conditions exist for."""

    name: ClassVar[str] = "pyomo"
    title: ClassVar[str] = "Pyomo program of the KKT conditions (SOS1 or products)"
    suffix: ClassVar[str] = ".py"
    consumer: ClassVar[str] = "python {file}"

    def export(self, bound_: BoundProgram, options: Options, stem: str) -> Files:
        """The program; the numbers of a large one stand in ``stem.npz`` beside it."""
        return Files(*pyomo_text(bound_, options))


def pyomo_text(
    bound_: BoundProgram, options: Options
) -> tuple[str, dict[str, str | bytes], tuple[str, ...]]:
    """The program, what stands beside it, and warnings."""
    form = options.form("pyomo", "sos1", "products")
    found = conditions(bound_, "a Pyomo program", options)
    namer = python_names(
        "pyo", "m", "sys", "solve", "sos", "var", "SIGN", "NAMES", "name", *ALL.split()
    )
    write = Writer(bound_, "a Pyomo program", STYLE, namer, found.columns.names)
    program = bound_.program
    what = "Optimality conditions of the followers; complementarity as " + (
        "SOS1 sets." if form == "sos1" else f"products of at most {options.epsilon!r}."
    )
    out = docstring(header(program, what, [f"WARNING: {w}" for w in found.warnings]))
    looped = loops(parts_of_conditions(found, paired_rows=form == "products"), write, PYTHON)
    if looped is not None:
        out += _looped(found, looped, form, options)
        return "\n".join(out) + "\n" + TAIL, {".npz": packed(looped)}, found.warnings
    out += _beginning(found, form)
    columns = found.columns
    for j, name in enumerate(write.names):
        low, high = float(columns.lower[j]), float(columns.upper[j])
        domain = ", pyo.Integers" if columns.integer[j] else ""
        start = float(columns.start[j])
        out.append(
            f"{name} = var({columns.names[j]!r}, {bound(low)}, {bound(high)}, {start!r}{domain})"
        )
    objective = write.function(found.objective, 0, program.upper.objective.span)
    shown = list(columns.names[: found.system.columns.count])
    out += ["", f"NAMES = {shown!r}", f"m.F = pyo.Objective(expr={objective})"]
    paired = {p.row for p in found.pairs if p.row is not None} if form == "sos1" else set()
    kind = ""
    for line in write.lines(found.rows, found.kinds):
        if line.kind != kind:
            kind = line.kind
            out += ["", f"# {TITLES[kind]}"]
        if line.row not in paired:
            out.append(_constraint(found.rows.names[line.row], line))
    out += ["", "# complementarity"]
    for pair in found.pairs:
        slack = write.tree(slack_tree(found, pair), pair.span)
        multiplier = write.names[pair.multiplier]
        if form == "products":
            out.append(
                f"m.add_component({'comp.' + pair.name!r}, pyo.Constraint("
                f"expr=({slack})*{multiplier} <= {options.epsilon!r}))"
            )
            continue
        made = namer.name(f"slack.{pair.name}")
        out += [
            f"{made} = var({'slack.' + pair.name!r}, 0.0, None, 0.0)",
            f"m.add_component({'def.' + pair.name!r}, pyo.Constraint(expr={made} == {slack}))",
            f"sos({'sos.' + pair.name!r}, {made}, {multiplier})",
        ]
    return "\n".join(out) + "\n" + TAIL, {}, found.warnings


def _constraint(name: str, line: Line) -> str:
    if line.low == line.high:
        body = f"{line.body} == {line.high!r}"
    else:
        body = f"pyo.inequality({bound(line.low)}, {line.body}, {bound(line.high)})"
    return f"m.add_component({name!r}, pyo.Constraint(expr={body}))"


def _beginning(found: KKT, form: str) -> list[str]:
    """Imports, the model, and how something is added to it."""
    out = ["import sys", "", "import pyomo.environ as pyo", ""]
    sign = int(found.system.sign)
    out += [f"SIGN = {sign}  # of the model's objective against the one minimised here"]
    out += ["m = pyo.ConcreteModel()", "", "", "def var(name, low, high, start, domain=pyo.Reals):",
            '    """Add a variable under its name in the model."""',
            "    made = pyo.Var(domain=domain, bounds=(low, high), initialize=start)",
            "    m.add_component(name, made)", "    return made", "", ""]  # fmt: skip
    if form == "sos1":
        out += ["def sos(name, slack, multiplier):", '    """One of the two is zero."""',
                "    rule = [slack, multiplier], [1, 2]",
                "    m.add_component(name, pyo.SOSConstraint(rule=lambda m: rule, sos=1))",
                "", ""]  # fmt: skip
    return out


ROWS = """\
def named(name, bodies):
    \"\"\"Expressions that others share, each computed once.\"\"\"
    bodies = list(bodies)
    made = pyo.Expression(range(len(bodies)), initialize=dict(enumerate(bodies)))
    m.add_component(name, made)
    return made


def rows(names, bodies, low, high):
    \"\"\"Add low <= body <= high under its name in the model; infinite ends are open.\"\"\"
    for name, body, *ends in zip(names, bodies, low, high):
        least, most = (None if abs(e) == float("inf") else e for e in ends)
        expr = body == most if least == most else pyo.inequality(least, body, most)
        m.add_component(name, pyo.Constraint(expr=expr))


"""


def _looped(found: KKT, made: Loops, form: str, options: Options) -> list[str]:
    """The program in loops over tables."""
    out = ["import pathlib", "import types", "", "import numpy as np"]
    out += [*_beginning(found, form), *ROWS.splitlines(), *TABLES, ""]
    out += ["v = [", "    var(name, low, high, start, pyo.Integers if whole else pyo.Reals)",
            "    for name, low, high, start, whole in zip(t.name, t.low, t.high, t.start, t.whole)",
            "]", f"NAMES = t.name[:{found.system.columns.count}]", ""]  # fmt: skip
    out += [f'{z.label} = named("{z.label}", {members(z)})' for z in made.definitions]
    out += [f"m.F = pyo.Objective(expr={made.objective.body})"]
    kind = ""
    for r in made.rows:
        if r.kind != kind:
            kind = r.kind
            out += ["", f"# {TITLES[kind]}"]
        out.append(f"rows(t.{r.label}_name, {members(r)}, t.{r.label}_low, t.{r.label}_high)")
    out += ["", "# complementarity"]
    for p in made.pairs:
        out.append(
            f"for name, slack, k in zip(t.{p.label}_name, {members(p)}, t.{p.label}_multiplier):"
        )
        if form == "products":
            out += [
                "    product = pyo.Constraint(expr=slack * v[k] <= " + f"{options.epsilon!r})",
                '    m.add_component("comp." + name, product)',
            ]
            continue
        out += [
            '    made = var("slack." + name, 0.0, None, 0.0)',
            '    m.add_component("def." + name, pyo.Constraint(expr=made == slack))',
            '    sos("sos." + name, made, v[k])',
        ]
    return out
