"""Large AMPL models with ``complements``: loops in the model, numbers in a data file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.exporters.loops import subscripted
from bilevelpy.exporters.naming import number

if TYPE_CHECKING:
    from bilevelpy.exporters.loops import Loops

Array = np.ndarray[Any, np.dtype[Any]]


def _range(table: str, index: str) -> str:
    after = "1" if index == "0" else f"{index}+1"
    return f"{table}[{index}]..{table}[{after}]-1"


AMPL = subscripted(
    lambda body, inner, table, index: f"(sum{{{inner} in {_range(table, index)}}} ({body}))",
)


def looped(made: Loops, stem: str, shown: int) -> list[str]:
    """The model; the first ``shown`` variables are those of the levels."""
    count = made.tables["name"].size
    out = [f"param {_declared(name, table)};" for name, table in _tables(made).items()]
    out += [f"var v{{j in 0..{count - 1}}} >= low[j], <= high[j], := start[j];"]
    if made.tables["whole"].any():
        out += [
            f"set WHOLE := {{j in 0..{count - 1}: whole[j] = 1}};",
            "var w{j in WHOLE} integer, >= low[j], <= high[j];",
            "subject to is_whole{j in WHOLE}: v[j] = w[j];",
        ]
    out += [f"var {z.label}{{i in 0..{z.count - 1}}} = {z.body};" for z in made.definitions]
    out += ["", f"minimize F: {made.objective.body};"]
    for r in made.rows:
        ends = f"{r.label}_low[i] <= {r.body} <= {r.label}_high[i]"
        out.append(f"subject to {r.label}{{i in 0..{r.count - 1}}}: {ends};")
    for p in made.pairs:
        both = f"0 <= {p.body} complements v[{p.label}_multiplier[i]] >= 0"
        out.append(f"subject to {p.label}{{i in 0..{p.count - 1}}}: {both};")
    out += ["", f"data '{stem}.dat';", "solve;", "display F;"]
    return [*out, f"display {{j in 0..{shown - 1}}} (name[j], v[j]);", "end;"]


def looped_data(made: Loops) -> str:
    """The numbers and names."""
    lines = ["data;"]
    for name, table in _tables(made).items():
        lines.append(f"param {name} :=")
        lines += [f"  {k} {_entry(value)}" for k, value in enumerate(table.tolist())]
        lines.append(";")
    return "\n".join([*lines, "end;"]) + "\n"


def _tables(made: Loops) -> dict[str, Array]:
    """Those that the text reads."""
    idle = set() if made.tables["whole"].any() else {"whole"}
    return {name: table for name, table in made.tables.items() if name not in idle}


def _declared(name: str, table: Array) -> str:
    kind = " symbolic" if table.dtype.kind == "U" else ""
    return f"{name}{{0..{table.size - 1}}}{kind}"


def _entry(value: Any) -> str:
    if isinstance(value, str):
        shown = "".join(c if c.isprintable() else " " for c in value).replace("'", "''")
        return f"'{shown}'"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return number(value)
