"""Interdiction files: the matrix is the follower, the leader takes some of its columns away.

As MibS reads an AUX file with ``IC`` and ``IB``: for every column ``y_j`` of the matrix there is a
binary ``x_j`` of the leader with ::

    sum_j IC_j x_j <= IB           (upper level)
    y_j + U_j x_j <= U_j           (lower level, U_j the upper bound of the column)

and the leader minimises the negative of the matrix's objective, because these files hold the
follower's objective in its place.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bilevelpy.importers import blv_text as blv
from bilevelpy.importers.aux_file import Aux
from bilevelpy.importers.matrix_text import objective_text, places, row_texts
from bilevelpy.importers.mps_file import Matrix


def interdiction_text(split: Aux, matrix: Matrix, path: str | Path, aux: str | Path) -> str:
    """The text of the model.

    Raises
    ------
    ModelError
        Where a column of the matrix is not the follower's, has no upper bound, or may be negative.
    """
    assert split.interdiction is not None
    columns = places(split, split.columns, matrix.names, "column")
    places(split, split.rows, matrix.row_names, "row")
    line = split.interdiction.line
    if len(columns) != len(matrix.names):
        raise split.text.bad(
            line, f"an interdiction lists every column: {len(columns)} of {len(matrix.names)}"
        )
    for j, (_, at) in enumerate(split.interdiction.costs):
        if not np.isfinite(matrix.upper[j]):
            name = matrix.names[j]
            raise split.text.bad(at, f"column `{name}` has no upper bound: it cannot be taken away")
        if matrix.lower[j] > 0:
            raise split.text.bad(at, f"column `{matrix.names[j]}` has a positive lower bound")
    names = blv.names(matrix.names, ["follower", "budget"])
    taken = {*names.values(), "follower", "budget"}
    cut = list(blv.names([f"cut_{names[n]}" for n in matrix.names], taken).values())
    row_names = blv.names(matrix.row_names, {*taken, *cut})
    limits = list(blv.names([f"open_{names[n]}" for n in matrix.names],
                            {*taken, *cut, *row_names.values()}).values())  # fmt: skip
    shown = [names[n] for n in matrix.names]
    called = split.name or Path(path).name.split(".")[0]
    name = next(iter(blv.names([called], [*shown, *cut]).values()))
    lines = blv.header(
        name,
        "",
        [
            f"imported from {Path(path).name} and {Path(aux).name}: an interdiction",
            *blv.renamed(names, "column"),
            *blv.renamed(row_names, "row"),
            *_against(split, matrix, columns),
        ],
    )
    prices = [(cut[j], c) for j, (c, _) in enumerate(split.interdiction.costs)]
    budget = blv.row("budget", blv.linear(prices), -np.inf, split.interdiction.budget)
    sense = "minimize" if matrix.maximize else "maximize"
    lines += blv.level(
        "upper",
        [f"{c} in binary" for c in cut],
        f"{sense} {objective_text(matrix, shown)}",
        [budget],
    )
    rows = list(row_texts(matrix, row_names, shown).values())
    for j, y in enumerate(shown):
        top = float(matrix.upper[j])
        rows.append(blv.row(limits[j], blv.linear([(y, 1.0), (cut[j], top)]), -np.inf, top))
    variables = [
        y + blv.domain(float(matrix.lower[j]), float(matrix.upper[j]), bool(matrix.integer[j]))
        for j, y in enumerate(shown)
    ]
    costs = blv.linear([(shown[j], e.cost) for j, e in zip(columns, split.columns, strict=True)])
    sense = "maximize" if split.maximize else "minimize"
    lines += ["", *blv.level("lower follower", variables, f"{sense} {costs}", rows)]
    return "\n".join(lines) + "\n"


def _against(split: Aux, matrix: Matrix, columns: list[int]) -> list[str]:
    """A remark where leader and follower do not want the opposite of each other."""
    follower = np.zeros(len(matrix.names))
    follower[columns] = [-e.cost if split.maximize else e.cost for e in split.columns]
    given = -matrix.cost if matrix.maximize else matrix.cost
    if np.allclose(follower, given):
        return []
    return ["the objective of the matrix is not that of the follower: the two are not opposite"]
