"""BASBLib's AMPL files as models: the conventions that tell the two levels apart.

``outer_obj`` is the upper objective; the equation ``inner_obj: f = 0`` holds the lower one; rows
called ``outer...`` and ``inner...`` belong to their levels. Variables that begin with ``x`` are the
leader's, those with ``y`` the follower's. Rows called ``stationarity...`` and
``complementarity...`` are optimality conditions that the library adds for its own solver: they and
their multipliers follow from the model and are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lark

from bilevelpy.importers import blv_text as blv
from bilevelpy.importers.ampl_declared import File, Row, Variable
from bilevelpy.importers.ampl_expressions import (
    Names,
    index_of,
    number_of,
    range_of,
    show,
    used,
    value,
)
from bilevelpy.importers.ampl_file import Range, line_of, parse
from bilevelpy.importers.faults import Text
from bilevelpy.system.storage import open_text

Tree = lark.Tree[Any]
DERIVED = ("stationarity", "complementarity")


def ampl_text(path: str | Path) -> str:
    """The text of the model in a file of BASBLib's kind.

    Raises
    ------
    ModelError
        With the line of what is malformed, or cannot be taken over.
    """
    # Line ends of all systems are those that comments and messages know.
    content = open_text(path, "file").replace("\r\n", "\n").replace("\r", "\n")
    text = Text(path, content)
    found = _declared(text, parse(text))
    kept = [r for r in found.rows if not r.name.lower().startswith(DERIVED)]
    lower = [r for r in kept if r.name.lower().startswith("inner_obj")]
    if found.objective is None:
        raise text.bad(1, "there is no objective (minimize outer_obj: ...;)")
    if len(lower) != 1:
        line = lower[1].line if lower else 1
        raise text.bad(line, "one row called `inner_obj` holds the lower objective")
    _is_objective(found, lower[0])
    kept.remove(lower[0])
    parts = [found.objective[1], *lower[0].terms, *(t for r in kept for t in r.terms)]
    reads = set().union(*(used(p) for p in parts))
    levels = _levels(found, reads)
    return _written(found, path, kept, lower[0], levels)


def _declared(text: Text, tree: Tree) -> File:
    found = File(text)
    for statement in tree.children:
        parts = statement.children if statement.data == "statement" else [statement]
        for part in parts:
            if isinstance(part, lark.Tree):
                _declare(found, part)
    for name, (members, values) in found.tables.items():
        missing = [m for m in members.members if m not in values]
        if missing:
            raise text.bad(1, f"param `{name}` has no value for {missing[0]}")
    return found


def _declare(found: File, tree: Tree) -> None:
    text, line = found.text, line_of(tree)
    match str(tree.data):
        case "set":
            found.sets[str(tree.children[0])] = range_of(found, tree.children[1], line)
        case "param":
            _param(found, tree, line)
        case "var":
            name, members, _, rest = _head(found, tree)
            if name in found.variables:
                raise text.bad(line, f"`{name}` is declared twice")
            found.variables[name] = Variable(name, members, rest, line)
        case "objective":
            if found.objective is not None:
                raise text.bad(line, "a second objective")
            found.objective = (str(tree.children[0]), tree.children[2], line)
        case "constraint":
            name, members, binder, rest = _head(found, tree)
            if any(row.name == name for row in found.rows):
                raise text.bad(line, f"row `{name}` is listed twice")
            relations = [str(r.children[0]) for r in rest[1::2]]
            pair = None
            if members is not None:
                if binder is None:
                    raise text.bad(line, f"the rows `{name}` need a name for their index")
                pair = (binder, members)
            found.rows.append(Row(name, rest[::2], relations, line, pair))
        case "data":
            for table in tree.children:
                if table.data == "table":
                    _table(found, table)


def _head(found: File, tree: Tree) -> tuple[str, Range | None, str | None, list[Any]]:
    """Name, index set, name of the index, and what follows."""
    name, rest = str(tree.children[0]), list(tree.children[1:])
    if rest and isinstance(rest[0], lark.Tree) and rest[0].data == "index":
        members, binder = index_of(found, rest.pop(0))
        return name, members, binder, rest
    return name, None, None, rest


def _param(found: File, tree: Tree, line: int) -> None:
    name, members, _, rest = _head(found, tree)
    given = [a.children[0] for a in rest if a.data == "equals"]
    if members is not None:
        if given:
            raise found.text.bad(line, "a table stands in the data section")
        found.tables[name] = (members, {})
    elif given:
        found.params[name] = value(found, given[0], line)
    else:
        found.params[name] = float("nan")


def _table(found: File, tree: Tree) -> None:
    name, numbers = str(tree.children[0]), [number_of(n) for n in tree.children[1:]]
    line = line_of(tree)
    if name in found.params and len(numbers) == 1:
        found.params[name] = numbers[0]
        return
    if name not in found.tables:
        raise found.text.bad(line, f"there is no param `{name}` with an index")
    if len(numbers) % 2:
        raise found.text.bad(line, "positions and values take turns")
    members, values = found.tables[name]
    for key, number in zip(numbers[::2], numbers[1::2], strict=True):
        if key not in members.members:
            raise found.text.bad(line, f"`{name}` has no element {key:g}")
        values[int(key)] = number


def _is_objective(found: File, row: Row) -> None:
    if row.relations not in (["="], ["=="]) or row.binder is not None:
        raise found.text.bad(row.line, "`inner_obj` is an equation with the objective on its left")
    if used(row.terms[1]) & found.variables.keys() or value(found, row.terms[1], row.line) != 0:
        raise found.text.bad(row.line, "the right side of `inner_obj` is 0")


def _levels(found: File, reads: set[str]) -> dict[str, str]:
    """Variable -> ``x`` or ``y``; those that only optimality conditions read are left out."""
    levels: dict[str, str] = {}
    for name, variable in found.variables.items():
        first = name[0].lower()
        if first in "xy":
            levels[name] = first
        elif name in reads:
            reason = f"`{name}` begins with neither x (upper) nor y (lower)"
            raise found.text.bad(variable.line, reason)
    return levels


def _written(
    found: File, path: str | Path, rows: list[Row], lower: Row, levels: dict[str, str]
) -> str:
    assert found.objective is not None
    renamed = blv.names([*found.variables, *found.params, *found.tables], ["follower"])
    row_names = blv.names([r.name for r in rows], renamed.values())
    names = Names(found, renamed)
    called = Path(path).name.split(".")[0]
    title = next(iter(blv.names([called], [*renamed.values(), *row_names.values()]).values()))
    derived = sum(r.name.lower().startswith(DERIVED) for r in found.rows)
    comments = [f"imported from {Path(path).name}"]
    if derived:
        comments.append(f"left out: {derived} rows of optimality conditions and their multipliers")
    comments += blv.renamed({n: renamed[n] for n in levels}, "variable")
    comments += blv.renamed(row_names, "row")
    for name in used_params(found, rows, lower):
        names.declare(name)
    parts: dict[str, list[str]] = {"x": [], "y": []}
    for name, level in levels.items():
        parts[level].append(names.variable(found.variables[name]))
    texts: dict[str, list[str]] = {"x": [], "y": []}
    for row in rows:
        kind = row.name.lower()
        level = "x" if kind.startswith("outer") else "y" if kind.startswith("inner") else ""
        if not level:
            reason = f"`{row.name}` begins with neither outer nor inner"
            raise found.text.bad(row.line, reason)
        texts[level].append(names.row(row, row_names[row.name]))
    sense, tree, line = found.objective
    out = blv.header(title, "", comments)
    out += [*names.declared, ""] if names.declared else []
    out += blv.level("upper", parts["x"], f"{sense} {show(names, tree, line)}", texts["x"])
    objective = show(names, lower.terms[0], lower.line)
    out += ["", *blv.level("lower follower", parts["y"], f"minimize {objective}", texts["y"])]
    return "\n".join(out) + "\n"


def used_params(found: File, rows: list[Row], lower: Row) -> list[str]:
    """Params that expressions read, in declared order."""
    assert found.objective is not None
    trees = [found.objective[1], *lower.terms, *(t for r in rows for t in r.terms)]
    reads = set().union(*(used(t) for t in trees))
    return [n for n in (*found.params, *found.tables) if n in reads]
