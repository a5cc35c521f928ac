"""Large GMPL models: the text says what is minimised, a data file holds the numbers.

Columns and rows are members of sets there, and keep the names that they have in the model
(``flow.balance[Rome]``), which identifiers could not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.exporters.naming import Namer
from bilevelpy.exporters.naming import number as plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bilevelpy.reductions.linearization.mixed import Mixed

GMPL = """\
set COLUMN;
set WHOLE within COLUMN default {};
set ABOVE default {};
set BELOW default {};
set EQUAL default {};
set FROM within COLUMN default {};
set UPTO within COLUMN default {};
set ENTRY dimen 2;
param coefficient{ENTRY};
param cost{COLUMN} default 0;
param constant default 0;
param low{FROM};
param high{UPTO};
param least{ABOVE};
param most{BELOW};
param exact{EQUAL};
var v{COLUMN diff WHOLE};
var w{WHOLE} integer;

minimize F: constant + sum{j in COLUMN diff WHOLE} cost[j]*v[j] + sum{j in WHOLE} cost[j]*w[j];
subject to from_v{j in FROM diff WHOLE}: v[j] >= low[j];
subject to from_w{j in FROM inter WHOLE}: w[j] >= low[j];
subject to upto_v{j in UPTO diff WHOLE}: v[j] <= high[j];
subject to upto_w{j in UPTO inter WHOLE}: w[j] <= high[j];
subject to above{r in ABOVE}:
  sum{(r, j) in ENTRY: j not in WHOLE} coefficient[r, j]*v[j]
  + sum{(r, j) in ENTRY: j in WHOLE} coefficient[r, j]*w[j] >= least[r];
subject to below{r in BELOW}:
  sum{(r, j) in ENTRY: j not in WHOLE} coefficient[r, j]*v[j]
  + sum{(r, j) in ENTRY: j in WHOLE} coefficient[r, j]*w[j] <= most[r];
subject to equal{r in EQUAL}:
  sum{(r, j) in ENTRY: j not in WHOLE} coefficient[r, j]*v[j]
  + sum{(r, j) in ENTRY: j in WHOLE} coefficient[r, j]*w[j] = exact[r];

solve;
display F;
end;
"""


def tabled_model(head: list[str]) -> str:
    """The text of every such model; ``head`` is its comment."""
    return "\n".join(head) + "\n" + GMPL


def tabled_data(mixed: Mixed) -> str:
    """The numbers of a mixed-integer linear program."""
    columns, rows = mixed.columns, mixed.rows
    # Names stand in quotes; those that are no ASCII, or too long, are changed.
    made = Namer(" !#-&(-~", limit=100, brackets=("[", "]"))
    names = [f"'{n}'" for n in made.names(columns.names)]
    row_names = [f"'{n}'" for n in made.names(rows.names)]
    matrix = rows.functions.linear.tocsr()
    out = ["data;", _set("COLUMN", names)]
    out.append(_set("WHOLE", (names[j] for j in np.flatnonzero(columns.integer))))
    equal = rows.lower == rows.upper
    above = np.flatnonzero(np.isfinite(rows.lower) & ~equal)
    below = np.flatnonzero(np.isfinite(rows.upper) & ~equal)
    low = np.flatnonzero(np.isfinite(columns.lower))
    high = np.flatnonzero(np.isfinite(columns.upper))
    same = np.flatnonzero(equal)
    for title, chosen, of in (
        ("ABOVE", above, row_names),
        ("BELOW", below, row_names),
        ("EQUAL", same, row_names),
        ("FROM", low, names),
        ("UPTO", high, names),
    ):
        out.append(_set(title, (of[k] for k in chosen)))
    entries = [
        (row_names[r], names[int(matrix.indices[p])], float(matrix.data[p]))
        for r in range(rows.count)
        for p in range(matrix.indptr[r], matrix.indptr[r + 1])
    ]
    out.append(_set("ENTRY", (f"({r},{j})" for r, j, _ in entries)))
    out.append(_param("coefficient", (f"{r} {j} {plain(c)}" for r, j, c in entries)))
    objective = mixed.objective.linear.toarray()[0]
    out.append(
        _param("cost", (f"{names[j]} {plain(objective[j])}" for j in np.flatnonzero(objective)))
    )
    out.append(f"param constant := {plain(float(mixed.objective.constant[0]))};")
    for title, chosen, of, ends in (
        ("low", low, names, columns.lower),
        ("high", high, names, columns.upper),
        ("least", above, row_names, rows.lower),
        ("most", below, row_names, rows.upper),
        ("exact", same, row_names, rows.upper),
    ):
        out.append(_param(title, (f"{of[k]} {plain(float(ends[k]))}" for k in chosen)))
    return "\n".join(part for part in [*out, "end;"] if part) + "\n"


def _set(name: str, members: Iterable[str]) -> str:
    lines = "\n  ".join(members)
    return f"set {name} :=\n  {lines};" if lines else ""


def _param(name: str, members: Iterable[str]) -> str:
    lines = "\n  ".join(members)
    return f"param {name} :=\n  {lines};" if lines else ""
