"""Large Julia programs of both levels: loops over tables that stand in a file beside the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.exporters.loops import from_one, subscripted
from bilevelpy.exporters.naming import number

if TYPE_CHECKING:
    from bilevelpy.exporters.loops import Loops

Array = np.ndarray[Any, np.dtype[Any]]


def _lines(table: str, index: str) -> str:
    after = str(int(index) + 2) if index.isdigit() else f"{index}+1"
    return f"{table}[{from_one(index)}]:{table}[{after}]-1"


JULIA = subscripted(
    lambda body, inner, table, index: f"sum({body} for {inner} in {_lines(table, index)})",
    at=from_one,
    share=False,
)
READ = """\
# every number and name of the model: a table each line, between tabs
const t = Dict(w[1] => w[2:end] for w in split.(eachline(joinpath(@__DIR__, "{file}")), '\\t'))
numbers(name) = parse.(Float64, t[name])
places(name) = parse.(Int, t[name])
"""
MODEL = """\
model = BilevelModel(SCIP.Optimizer, mode = BilevelJuMP.SOS1Mode())
v = Vector{Any}(undef, length(low))
for j in eachindex(low)
    level = owner[j] == 0 ? Upper(model) : Lower(model)
    v[j] = @variable(level, base_name = String(t["name"][j]))
    isfinite(low[j]) && set_lower_bound(v[j], low[j])
    isfinite(high[j]) && set_upper_bound(v[j], high[j])
    whole[j] == 1 && set_integer(v[j])
end

# low <= body <= high under its name in the model; infinite ends are open
function between(level, name, body, low, high)
    if low == high
        @constraint(level, body == high, base_name = String(name))
    else
        isfinite(low) && @constraint(level, body >= low, base_name = String(name))
        isfinite(high) && @constraint(level, body <= high, base_name = String(name))
    end
end
"""


def looped(made: Loops, stem: str) -> list[str]:
    """The program; its tables are read from ``stem.dat``."""
    out = ["using BilevelJuMP, JuMP, SCIP", "", *READ.format(file=f"{stem}.dat").splitlines()]
    for name, sort in {"owner": "place", **made.sorts}.items():
        if sort != "name":
            out.append(f'{name} = {"numbers" if sort == "number" else "places"}("{name}")')
    out += ["", *MODEL.splitlines(), ""]
    # There is one follower, whose objective is one member.
    lower = made.followers[0].body
    out += ["i = 1", f"@objective(Lower(model), Min, {lower})"]
    out += [f"@objective(Upper(model), Min, {made.objective.body})"]
    for r in made.rows:
        level = "Upper" if r.kind == "upper" else "Lower"
        ends = f"{r.label}_low[i], {r.label}_high[i]"
        out += [
            f"for i in 1:{r.count}",
            f'    between({level}(model), t["{r.label}_name"][i], {r.body}, {ends})',
            "end",
        ]
    return out


def looped_data(made: Loops, owner: Array) -> str:
    """The tables, a line each; positions count from 1."""
    lines = ["\t".join(["owner", *map(str, owner.tolist())])]
    for name, table in made.tables.items():
        if made.sorts[name] == "name":
            entries = [" ".join(str(n).split()) or "_" for n in table.tolist()]
        elif made.sorts[name] == "number":
            entries = [_entry(float(v)) for v in table.tolist()]
        else:
            entries = [str(v + 1) for v in table.tolist()]
        lines.append("\t".join([name, *entries]))
    return "\n".join(lines) + "\n"


def _entry(value: float) -> str:
    if value in (float("inf"), float("-inf")):
        return "Inf" if value > 0 else "-Inf"
    return number(value)
