"""A BLVPY program: both levels as they are, the follower a disciplined convex problem in CVXPY."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.conditions import Line, Writer
from bilevelpy.exporters.header import header
from bilevelpy.exporters.python_script import docstring, python_names, style
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.rows import Functions, System, system
from bilevelpy.reductions.trees import linear_terms, quadratic_terms
from bilevelpy.reductions.validity import require_convex, require_optimistic

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.reductions.columns import Columns

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
        out += ["import sys", "", "import blvpy as bp", "import cvxpy as cp", "import numpy as np"]
        out += ["", f"SIGN = {int(found.sign)}  # of the model's objective", ""]
        for j, name in enumerate(write.names):
            sign = ", nonneg=True" if columns.lower[j] >= 0 else ""
            out.append(f"{name} = cp.Variable(name={columns.names[j]!r}{sign})")
        span = bound.program.upper.objective.span
        out += ["", f"F = {write.function(found.objective, 0, span)}"]
        lower = found.lower_columns
        parts = [
            _convex(found.lower_objectives, k, lower, write, bound.program.level(fo.level).span)
            for k, fo in enumerate(found.followers)
        ]
        out += [f"f = {' + '.join(parts)}", "", "upper_constraints = ["]
        moved: list[str] = []
        for line in write.lines(found.upper_rows):
            out += _constraint(found.upper_rows.names[line.row], line)
        own: list[str] = []
        for line in write.lines(found.lower_rows):
            r = line.row
            target = own if set(lower) & found.lower_rows.functions.reads(r) else moved
            if r in found.lower_rows.functions.quadratic:
                body = _convex(
                    found.lower_rows.functions, r, lower, write, found.lower_rows.spans[r],
                    sign=1.0 if np.isfinite(line.high) else -1.0,
                )  # fmt: skip
                line = Line(line.name, body, line.low, line.high, line.kind, r)
            target += _constraint(found.lower_rows.names[r], line)
        out += moved
        out += [b for j in found.upper_columns for b in _bounds(found, int(j), write.names[j])]
        out += ["]", "lower_constraints = [", *own]
        out += [b for j in lower for b in _bounds(found, int(j), write.names[j])]
        follower = [f"f = {' + '.join(parts)}", "lower_constraints = [", *own]
        follower += [b for j in lower for b in _bounds(found, int(j), write.names[j])]
        _disciplined(found, write, [*follower, "]"])
        out += ["]", f"parameters = [{', '.join(write.names[j] for j in found.upper_columns)}]"]
        out += ["# (variable, low, high, start): where solutions are looked for", "ranges = ["]
        for j in found.upper_columns:
            ends = _range(columns, int(j))
            out.append(f"    ({write.names[j]}, {', '.join(repr(e) for e in ends)}),")
        out.append("]")
        return Files("\n".join(out) + "\n" + TAIL, warnings=said)


def _range(columns: Columns, j: int) -> tuple[float, float, float]:
    """Finite ends for random starts, and the start."""
    low, high, start = (float(v[j]) for v in (columns.lower, columns.upper, columns.start))
    return max(low, min(start, high) - 10.0), min(high, max(start, low) + 10.0), start


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


def _convex(
    functions: Functions,
    row: int,
    own: np.ndarray,
    write: Writer,
    span: Span | None,
    sign: float = 1.0,
) -> str:
    """A function in the form that disciplined programming knows to be convex (concave, where
    ``sign`` is -1): the square part in ``own`` columns as one form, and products with others. What
    reads no column of ``own`` stays away from objectives of followers by being constant there.
    """
    mine = {int(j) for j in own}
    if row in functions.trees:
        terms, square = _monomials(functions.trees[row], mine)
    else:
        terms, square = [sc.Num(float(functions.constant[row]))], {}
        for j, c in linear_terms(functions, row):
            terms.append(sc.mul(sc.Num(c), sc.Col(j)))
        for i, j, c in quadratic_terms(functions, row):
            if i in mine and j in mine:
                square[i, j] = c
            elif i in mine or j in mine:
                terms.append(sc.mul(sc.Num(c), sc.Col(i), sc.Col(j)))
            # A product of others alone is the same for every choice of the follower.
    text = write.tree(sc.add(*terms), span)
    if not square:
        return text
    used = sorted({j for pair in square for j in pair})
    place = {j: k for k, j in enumerate(used)}
    matrix = np.zeros((len(used), len(used)))
    for (i, j), c in square.items():
        matrix[place[i], place[j]] += sign * c / 2
        matrix[place[j], place[i]] += sign * c / 2
    vector = f"cp.hstack([{', '.join(write.names[j] for j in used)}])"
    form = f"cp.quad_form({vector}, cp.psd_wrap(np.array({matrix.tolist()})))"
    return f"{text} + {form}" if sign > 0 else f"{text} - {form}"


def _monomials(
    tree: sc.Scalar, own: set[int]
) -> tuple[list[sc.Scalar], dict[tuple[int, int], float]]:
    """The terms of a sum that are no products of two own columns, and the coefficients of these."""
    whole = tree.arguments if isinstance(tree, sc.Call) and tree.function == "add" else (tree,)
    terms: list[sc.Scalar] = []
    square: dict[tuple[int, int], float] = {}
    for term in whole:
        factors = (
            term.arguments if isinstance(term, sc.Call) and term.function == "mul" else (term,)
        )
        scale = factors[0].value if isinstance(factors[0], sc.Num) else 1.0
        read: list[int] = []
        for factor in factors[1:] if isinstance(factors[0], sc.Num) else factors:
            match factor:
                case sc.Col(index):
                    read.append(index)
                case sc.Call("pow", (sc.Col(index), sc.Num(2.0))):
                    read += [index, index]
                case _:
                    read += [-1, -1, -1]
        if len(read) == 2 and set(read) <= own:
            pair = (min(read), max(read))
            square[pair] = square.get(pair, 0.0) + scale
        else:
            terms.append(_smooth(term))
    return terms, square


def _smooth(tree: sc.Scalar) -> sc.Scalar:
    """``log(1 + exp(a))`` by the one function that is known to be convex."""
    made: dict[int, sc.Scalar] = {}
    for node in sc.postorder(tree):
        if not isinstance(node, sc.Call):
            made[id(node)] = node
            continue
        match node:
            case sc.Call("log", (sc.Call("add", (sc.Call("exp", (inner,)), sc.Num(1.0))),)):
                made[id(node)] = sc.Call("softplus", (made[id(inner)],))
            case _:
                made[id(node)] = sc.Call(node.function, tuple(made[id(a)] for a in node.arguments))
    return made[id(tree)]


def _disciplined(found: System, write: Writer, lower: list[str]) -> None:
    """Refuse a follower that CVXPY does not know to be convex whatever the leader chooses."""
    import cvxpy as cp

    space: dict[str, Any] = {"cp": cp, "np": np}
    for j, name in enumerate(write.names):
        kind: Any = cp.Variable if found.columns.owner[j] else cp.Parameter
        space[name] = kind(**({"nonneg": True} if found.columns.lower[j] >= 0 else {}))
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
