"""Large reformulations as .blv text: families of rows over params that stand in a file beside it.

Every family of expressions has a dim, and its tables are params of that dim (and of one more for
the terms of each sum); ``v[r1_b[i]]`` is the variable whose number the param holds.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.exporters.loops import from_one, subscripted
from bilevelpy.importers import blv_text

if TYPE_CHECKING:
    from bilevelpy.exporters.loops import Loop, Loops
    from bilevelpy.reductions.optimality.conditions import KKT

Array = np.ndarray[Any, np.dtype[Any]]
TITLES = {
    "upper": "upper level",
    "lower": "feasibility of the followers",
    "stationarity": "gradient of each follower's Lagrangian",
    "price": "shadow prices from multipliers",
}
LEAST, MOST = "in [-inf, 1e300]", "in [-1e300, inf]"
"""Domains of params that hold lower and upper ends."""


# The objective is the only member of its family: its index is a whole number.
BLV = subscripted(
    lambda body, inner, table, index: f"sum({body} for {inner} in {table}_terms)",
    at=from_one,
    even=True,
)


def looped(found: KKT, made: Loops, epsilon: float) -> list[str]:
    """What follows the head of the model."""
    tables = _tables(made)
    sizes = {"columns": made.tables["name"].size, **_dims(made)}
    out = ["# names of the variables, in the order of v", "set COLUMN;", "param number[COLUMN];"]
    out.append(blv_text.wrapped(f"dim {', '.join(sizes)};"))
    out += [f"param {n}[{', '.join(axes)}]{kind};" for n, (axes, kind, _) in tables.items()]
    whole = made.tables["whole"]
    chosen = np.flatnonzero(whole)
    variables = ["v[columns] in [low, high] start begin"]
    if chosen.size:
        out += ["dim wholes;", "param whole[wholes];"]
        out += [f"param whole_low[wholes] {LEAST}, whole_high[wholes] {MOST};"]
        variables.append("w[wholes] in integers(whole_low, whole_high)")
    sign = "minimize" if found.system.sign > 0 else "maximize"
    objective = made.objective.body if found.system.sign > 0 else f"-({made.objective.body})"
    shared = [f"  let {z.label}[i in {z.label}_members] = {z.body};" for z in made.definitions]
    rows = ["whole_numbers[i in wholes]: v[whole[i]] == w[i];"] if chosen.size else []
    kind = ""
    for r in made.rows:
        if r.kind != kind:
            kind = r.kind
            rows.append(f"# {TITLES[kind]}")
        rows += _rows(r, made)
    if made.pairs:
        rows.append("# slack * multiplier, both from 0 on")
    for p in made.pairs:
        product = f"({p.body})*v[{p.label}_multiplier[i]]"
        members = f"i in {p.label}_members"
        rows.append(f"{p.label}[{members}]: {product} <= {blv_text.number(epsilon)};")
    level = blv_text.level("upper", variables, f"{sign} {objective}", rows)
    at = next(k for k, line in enumerate(level) if line.startswith(f"  {sign} "))
    return [*out, "", *level[:at], *shared, *level[at:]]


def _rows(r: Loop, made: Loops) -> list[str]:
    """A family of rows; where it has both ends, each may be open."""
    low, high = made.tables[f"{r.label}_low"], made.tables[f"{r.label}_high"]
    head, ends = f"{r.label}[i in {r.label}_members]", (f"{r.label}_low[i]", f"{r.label}_high[i]")
    if (low == high).all():
        return [f"{head}: {r.body} == {ends[1]};"]
    if np.isfinite(high).all() and not np.isfinite(low).any():
        return [f"{head}: {r.body} <= {ends[1]};"]
    if np.isfinite(low).all() and not np.isfinite(high).any():
        return [f"{head}: {r.body} >= {ends[0]};"]
    return [f"{head}: {ends[0]} <= {r.body} <= {ends[1]};"]


def _loops(made: Loops) -> list[Loop]:
    return [*made.definitions, made.objective, *made.rows, *made.pairs]


def _dims(made: Loops) -> dict[str, int]:
    """The dims of families, and those of the terms of their sums."""
    sizes = {f"{loop.label}_members": loop.count for loop in _loops(made)}
    for name, sort in made.sorts.items():
        if sort == "lines":
            sizes[f"{name}_terms"] = int(made.tables[name][1])
    return sizes


def _tables(made: Loops) -> dict[str, tuple[list[str], str, Array]]:
    """Name of a param -> its axes, its domain, and its values."""
    labels = sorted((loop.label for loop in _loops(made)), key=len, reverse=True)
    found: dict[str, tuple[list[str], str, Array]] = {
        "low": (["columns"], f" {LEAST}", made.tables["low"]),
        "high": (["columns"], f" {MOST}", made.tables["high"]),
        "begin": (["columns"], "", made.tables["start"]),
    }
    for name, table in made.tables.items():
        label = next((x for x in labels if name.startswith(f"{x}_")), None)
        if label is None or made.sorts[name] in ("name", "lines"):
            continue
        axes = [f"{label}_members", *_around(name, label, made)]
        kind = {f"{label}_low": f" {LEAST}", f"{label}_high": f" {MOST}"}.get(name, "")
        place = made.sorts[name] == "place"
        found[name] = (axes, kind, table.astype(float) + (1.0 if place else 0.0))
    return found


def _around(name: str, label: str, made: Loops) -> list[str]:
    """The dims of the sums that a table stands in: those whose name its own begins with."""
    parts = name.removeprefix(f"{label}_").split("_")
    inside = ["_".join([label, *parts[: k + 1]]) for k in range(len(parts) - 1)]
    return [f"{table}_terms" for table in inside if made.sorts.get(table) == "lines"]


def looped_data(made: Loops) -> dict[str, str | bytes]:
    """Arrays as ``.data.npz``, names as ``.data.json``."""
    names = made.tables["name"].tolist()
    arrays = {name: values for name, (_, _, values) in _tables(made).items()}
    arrays["number"] = np.arange(1.0, len(names) + 1)
    chosen = np.flatnonzero(made.tables["whole"])
    if chosen.size:
        arrays |= {
            "whole": chosen + 1.0,
            "whole_low": made.tables["low"][chosen],
            "whole_high": made.tables["high"][chosen],
        }
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    sizes = {"columns": len(names), **_dims(made)}
    text = json.dumps({"COLUMN": names, **sizes}, ensure_ascii=False)
    return {".data.npz": stream.getvalue(), ".data.json": text + "\n"}
