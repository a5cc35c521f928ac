"""Large BLVPY programs: loops over tables, square parts of followers as entries of matrices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.exporters.loops import loops
from bilevelpy.exporters.parts import FOLLOWER, OBJECTIVE, Part, Parts
from bilevelpy.exporters.python.blvpy_forms import Square, parameters, split
from bilevelpy.exporters.python.python_script import PYTHON, TABLES, members, table_range
from bilevelpy.reductions.rows import Functions, join_rows
from bilevelpy.reductions.trees import tree_of

if TYPE_CHECKING:
    from bilevelpy.exporters.conditions import Writer
    from bilevelpy.exporters.loops import Loop
    from bilevelpy.reductions.columns import Columns
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]
# One sum of many terms is one node for CVXPY, and not a chain of them.
CVXPY = replace(
    PYTHON,
    total=lambda body, inner, table, index: (
        f"total({body} for {inner} in {table_range(table, index)})"
    ),
)
HELPERS = """\
def total(parts):
    \"\"\"The sum of expressions.\"\"\"
    return cp.sum(cp.hstack([*parts, 0.0]))


def form(k):
    \"\"\"A quadratic form, convex by its matrix (concave where its sign is -1).\"\"\"
    entries = range(t.form[k], t.form[k + 1])
    used = sorted({j for e in entries for j in (t.form_i[e], t.form_j[e])})
    place = {j: p for p, j in enumerate(used)}
    matrix = np.zeros((len(used), len(used)))
    for e in entries:
        i, j = place[t.form_i[e]], place[t.form_j[e]]
        matrix[i, j] += t.form_sign[k] * t.form_value[e] / 2
        matrix[j, i] += t.form_sign[k] * t.form_value[e] / 2
    vector = cp.hstack([v[j] for j in used])
    return t.form_sign[k] * cp.quad_form(vector, cp.psd_wrap(matrix))


def between(expression, low, high):
    \"\"\"low <= expression <= high; infinite ends are open.\"\"\"
    if low == high:
        return [expression == high]
    made = [expression >= low] if low > -np.inf else []
    return made + ([expression <= high] if high < np.inf else [])


"""


@dataclass(frozen=True, slots=True)
class Program:
    """The lines of a program, part by part, and its tables."""

    head: list[str]
    common: list[str]
    upper: list[str]
    lower: list[str]
    ranges: list[str]
    tables: dict[str, Array]


def start_range(columns: Columns, j: int) -> tuple[float, float, float]:
    """Finite ends for random starts, and the start."""
    low, high, start = (float(v[j]) for v in (columns.lower, columns.upper, columns.start))
    return max(low, min(start, high) - 10.0), min(high, max(start, low) + 10.0), start


def looped(found: System, write: Writer) -> Program | None:
    """The program in loops over tables where it is large, else None."""
    own, program = found.lower_columns, found.bound.program
    squares: list[tuple[float, Square]] = [(1.0, {})]
    objectives = [Part(OBJECTIVE, tree_of(found.objective, 0), program.upper.objective.span)]
    for k, follower in enumerate(found.followers):
        tree, square = split(found.lower_objectives, k, own, False)
        for pair, c in square.items():
            squares[0][1][pair] = squares[0][1].get(pair, 0.0) + c
        objectives.append(Part(FOLLOWER, tree, program.level(follower.level).objective.span))
    parts, form_of = _parts(found, objectives, squares)
    made = loops(parts, write, CVXPY)
    if made is None:
        return None
    columns = found.columns
    tables = made.tables | _forms(squares) | {"owner": columns.owner}
    ranges = [start_range(columns, int(j)) for j in found.upper_columns]
    tables["begin"] = np.array(ranges).reshape(-1, 3)
    head = ["import pathlib", "import sys", "import types", "", "import blvpy as bp",
            "import cvxpy as cp", "import numpy as np", "", *TABLES, "",
            f"SIGN = {int(found.sign)}  # of the model's objective",
            "v = [cp.Variable(name=n, nonneg=low >= 0) for n, low in zip(t.name, t.low)]",
            ""]  # fmt: skip
    common = HELPERS.splitlines()
    common += [f"{z.label} = [{members(z)[1:-1]}]" for z in made.definitions]
    upper = [f"F = {made.objective.body}", "upper_constraints = []"]
    every = ", ".join(f"*{members(f)}" for f in made.followers)
    curved = " + form(0)" if squares[0][1] else ""
    lower = [f"f = total([{every}]){curved}", "lower_constraints = []"]
    for r in made.rows:
        target, name = (upper, "upper") if r.kind == "upper" else (lower, "lower")
        target += _rows(r, name, form_of, tables)
    for lines, name, mark in ((upper, "upper", "=="), (lower, "lower", "!=")):
        lines += ["for variable, low, high, owner in zip(v, t.low, t.high, t.owner):",
                  f"    if owner {mark} 0:",
                  f"        {name}_constraints += between(variable, low, high)"]  # fmt: skip
    first = found.upper_rows.count
    theirs = [r for r in range(found.lower_rows.count) if parts.kinds[first + r] != "upper"]
    tables["parameter"] = np.array(parameters(found, theirs), dtype=np.int64)
    tail = [
        "parameters = [v[j] for j in t.parameter]",
        "leading = [variable for variable, owner in zip(v, t.owner) if owner == 0]",
        "# (variable, low, high, start): where solutions are looked for",
        "ranges = [(variable, *ends) for variable, ends in zip(leading, t.begin)]",
    ]
    return Program(head, common, upper, lower, tail, tables)


def _parts(
    found: System, objectives: list[Part], squares: list[tuple[float, Square]]
) -> tuple[Parts, dict[int, int]]:
    """Rows of both levels, those of followers without their square parts; row -> its form."""
    own, lower = found.lower_columns, found.lower_rows
    mine, first = {int(j) for j in own}, found.upper_rows.count
    trees = dict(lower.functions.trees)
    form_of: dict[int, int] = {}
    for r in lower.functions.quadratic:
        trees[r], square = split(lower.functions, r, own, True)
        if square:
            form_of[first + r] = len(squares)
            squares.append((1.0 if np.isfinite(lower.upper[r]) else -1.0, square))
    linear = lower.functions.linear.tolil()
    linear[list(lower.functions.quadratic)] = 0.0
    flat = Functions(lower.functions.constant, linear.tocsr(), {}, trees)
    plain = replace(lower, functions=flat)
    rows = join_rows([found.upper_rows, plain], found.columns.count)
    kinds = ["upper"] * first
    for r in range(lower.count):
        reads = mine & lower.functions.reads(r)
        curved = " curved" if first + r in form_of else ""
        kinds.append(f"lower{curved}" if reads else "upper")
    whole = join_rows([found.upper_rows, lower], found.columns.count)
    return Parts(found.columns, tuple(objectives), rows, tuple(kinds), whole=whole), form_of


def _rows(r: Loop, name: str, form_of: dict[int, int], tables: dict[str, Array]) -> list[str]:
    """The rows of a loop, each with its form where it has one."""
    ends = f"t.{r.label}_low, t.{r.label}_high"
    if not r.kind.endswith("curved"):
        return [
            f"for body, low, high in zip({members(r)}, {ends}):",
            f"    {name}_constraints += between(body, low, high)",
        ]
    tables[f"{r.label}_form"] = np.array([form_of[k] for k in r.places])
    return [
        f"for body, k, low, high in zip({members(r)}, t.{r.label}_form, {ends}):",
        f"    {name}_constraints += between(body + form(k), low, high)",
    ]


def _forms(squares: list[tuple[float, Square]]) -> dict[str, Array]:
    """The entries of all forms, one after another."""
    entries = [(i, j, c) for _, square in squares for (i, j), c in square.items()]
    sizes = [len(square) for _, square in squares]
    return {
        "form": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        "form_sign": np.array([sign for sign, _ in squares]),
        "form_i": np.array([i for i, _, _ in entries], dtype=np.int64),
        "form_j": np.array([j for _, j, _ in entries], dtype=np.int64),
        "form_value": np.array([c for _, _, c in entries], dtype=float),
    }
