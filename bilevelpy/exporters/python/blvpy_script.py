"""A BLVPY program: both levels as they are, the follower a disciplined convex problem in CVXPY."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.conditions import Line, Writer
from bilevelpy.exporters.header import header, one_line
from bilevelpy.exporters.python.blvpy_forms import convex, parameters
from bilevelpy.exporters.python.blvpy_loops import looped, start_range
from bilevelpy.exporters.python.python_script import arrays_packed, docstring, python_names, style
from bilevelpy.reductions.optimality.validity import require_convex, require_optimistic
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.rows import System, system

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.program import BoundProgram

STYLE = style("cp.", abs="cp.abs({0})", max="cp.maximum({0}, {1})", min="cp.minimum({0}, {1})",
              softplus="cp.logistic({0})")  # fmt: skip
TARGET = "a BLVPY program"
TAIL = '''
lower = bp.LowerProblem(cp.Minimize(f), constraints=lower_constraints, parameters=parameters)
problem = bp.BilevelProblem(cp.Minimize(F), lower, upper_constraints=upper_constraints)


def solve(starts=10):
    """The best of several starts: that of the model, then random ones within the bounds."""
    if not problem.is_dblp():
        raise SystemExit("the follower is not in the form of disciplined convex programs")
    rng = np.random.default_rng(0)
    best = failed = None
    for k in range(starts):
        for variable, low, high, start in ranges:
            variable.value = rng.uniform(low, high) if k else start
        try:
            result = problem.solve(epsilon_target=1e-10, verbose=False)
        except bp.BilevelError as error:  # such as a follower without solutions at this start
            failed = error
            continue
        if best is None or result.objective < best.objective:
            best = result
    if best is None:
        raise SystemExit(f"no start led to a solution: {failed}")
    return best


if __name__ == "__main__":
    result = solve(*(int(word) for word in sys.argv[1:]))
    print(result.status)
    print("F =", SIGN * result.objective)
    for variable, value in result.variable_values.items():
        print(variable.name(), "=", float(value))
'''


class BlvpyScript:
    """Convex followers (one, or several independent ones) in continuous variables."""

    name: ClassVar[str] = "blvpy"
    title: ClassVar[str] = "BLVPY program: both levels in CVXPY (local solution by Ipopt)"
    suffix: ClassVar[str] = ".py"
    consumer: ClassVar[str] = "python {file}"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The program."""
        found = system(bound)
        _fits(found)
        require_optimistic(found, TARGET)
        said = require_convex(found, options.force)
        columns = found.columns
        namer = python_names(
            "cp", "bp", "np", "sys", "F", "f", "lower", "upper_constraints", "lower_constraints",
            "parameters", "problem", "solve", "result", "SIGN", "starts", "ranges",
        )  # fmt: skip
        write = Writer(bound, TARGET, STYLE, namer, columns.names)
        what = "Both levels as minimisations; solutions are local."
        lines = [
            *(f"WARNING: {w}" for w in said),
            "Run it with Python 3.12 or newer and the package blvpy; an argument is the number of",
            "starts, of which the best is kept.",
        ]
        out = docstring(header(bound.program, what, lines))
        large = looped(found, write)
        if large is not None:
            _disciplined(found, write, [*large.common, *large.lower], large.tables)
            made = [*out, *large.head, *large.common, *large.upper, *large.lower, *large.ranges]
            tables = {".npz": arrays_packed(large.tables)}
            return Files("\n".join(made) + "\n" + TAIL, tables, said)
        out += ["import sys", "", "import blvpy as bp", "import cvxpy as cp", "import numpy as np"]
        out += ["", f"SIGN = {int(found.sign)}  # of the model's objective", ""]
        for j, name in enumerate(write.names):
            sign = ", nonneg=True" if columns.lower[j] >= 0 else ""
            out.append(f"{name} = cp.Variable(name={columns.names[j]!r}{sign})")
        span = bound.program.upper.objective.span
        out += ["", f"F = {write.function(found.objective, 0, span)}"]
        lower = found.lower_columns
        parts = [
            convex(found.lower_objectives, k, lower, write, bound.program.level(fo.level).span)
            for k, fo in enumerate(found.followers)
        ]
        out += [f"f = {' + '.join(parts)}", "", "upper_constraints = ["]
        moved: list[str] = []
        for line in write.lines(found.upper_rows):
            out += _constraint(found.upper_rows.names[line.row], line)
        own: list[str] = []
        theirs: list[int] = []
        for line in write.lines(found.lower_rows):
            r = line.row
            target = own if set(lower) & found.lower_rows.functions.reads(r) else moved
            theirs += [r] if target is own else []
            if r in found.lower_rows.functions.quadratic:
                body = convex(
                    found.lower_rows.functions, r, lower, write, found.lower_rows.spans[r],
                    sign=1.0 if np.isfinite(line.high) else -1.0, is_row=True,
                )  # fmt: skip
                line = Line(line.name, body, line.low, line.high, line.kind, r)
            target += _constraint(found.lower_rows.names[r], line)
        out += moved
        out += [b for j in found.upper_columns for b in _bounds(found, int(j), write.names[j])]
        out += ["]", "lower_constraints = [", *own]
        out += [b for j in lower for b in _bounds(found, int(j), write.names[j])]
        follower = [f"f = {' + '.join(parts)}", "lower_constraints = [", *own]
        follower += [b for j in lower for b in _bounds(found, int(j), write.names[j])]
        _disciplined(found, write, [*follower, "]"], None)
        read = parameters(found, theirs)
        out += ["]", f"parameters = [{', '.join(write.names[j] for j in read)}]"]
        out += ["# (variable, low, high, start): where solutions are looked for", "ranges = ["]
        for j in found.upper_columns:
            ends = start_range(columns, int(j))
            out.append(f"    ({write.names[j]}, {', '.join(repr(e) for e in ends)}),")
        out.append("]")
        return Files("\n".join(out) + "\n" + TAIL, warnings=said)


def _fits(found: System) -> None:
    program = found.bound.program

    def no(span: Span | None, what: str, hint: str | None = None) -> Exception:
        return refuse(program, "BLV0701", span, target=TARGET, what=what, hint=hint)

    if not program.lowers:
        raise no(program.upper.span, "a model of one level")
    for block in found.columns.blocks:
        if block.is_dual:
            raise no(block.span, "shadow prices", "pyomo and gams-mpec hold them")
    for follower in found.followers:
        if follower.nash:
            raise no(follower.span, "a Nash game", "pyomo and gams-mpec hold it")
    for j in np.flatnonzero(found.columns.integer):
        block_of = found.columns.block_of(int(j))
        raise no(block_of.span if block_of else None, "whole numbers (Ipopt)")


def _disciplined(
    found: System, write: Writer, lower: list[str], tables: dict[str, np.ndarray] | None
) -> None:
    """Refuse a follower that CVXPY does not know to be convex whatever the leader chooses.

    ``tables`` are those that a text in loops reads; its variables are the list ``v``.
    """
    import cvxpy as cp

    space: dict[str, Any] = {"cp": cp, "np": np}
    made = []
    for owner, low in zip(found.columns.owner, found.columns.lower, strict=True):
        kind: Any = cp.Variable if owner else cp.Parameter
        made.append(kind(**({"nonneg": True} if low >= 0 else {})))
    if tables is None:
        space |= dict(zip(write.names, made, strict=True))
    else:
        space |= {"v": made, "t": SimpleNamespace(**{k: a.tolist() for k, a in tables.items()})}
    # The text that is going to be written, made of the model's own names and numbers.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on the number of terms
        exec(compile("\n".join(lower), "<follower>", "exec"), space)
        follower = cp.Problem(cp.Minimize(space["f"]), space["lower_constraints"])
        disciplined = follower.is_dpp()
    if not disciplined:
        level = found.bound.program.lowers[0]
        raise refuse(
            found.bound.program, "BLV0701", level.objective.span,
            "not in the form of disciplined (parametrized) convex programs",
            target=TARGET, what="this follower", hint="pyomo, casadi and nl hold it",
        )  # fmt: skip


def _constraint(name: str, line: Line) -> list[str]:
    name = one_line(name)
    if line.low == line.high:
        return [f"    {line.body} == {line.high!r},  # {name}"]
    made = [f"    {line.body} >= {line.low!r},  # {name}"] if line.low > -np.inf else []
    return made + ([f"    {line.body} <= {line.high!r},  # {name}"] if line.high < np.inf else [])


def _bounds(found: System, j: int, name: str) -> list[str]:
    low, high = float(found.columns.lower[j]), float(found.columns.upper[j])
    if low == high:
        return [f"    {name} == {low!r},"]
    made = [f"    {name} >= {low!r},"] if low > -np.inf else []
    return made + ([f"    {name} <= {high!r},"] if high < np.inf else [])
