"""MPS or LP with AUX as a model: what the AUX file lists is the follower's."""

from __future__ import annotations

from pathlib import Path

from bilevelpy.importers import blv_text as blv
from bilevelpy.importers.aux_file import read_aux
from bilevelpy.importers.faults import Text
from bilevelpy.importers.interdiction import interdiction_text
from bilevelpy.importers.matrix_text import objective_text, places, row_texts
from bilevelpy.importers.mps_file import read_matrix


def mps_aux_text(path: str | Path, aux: str | Path) -> str:
    """The text of the model in an MPS (or LP) and an AUX file."""
    split = read_aux(Text(aux))
    matrix = read_matrix(path)
    if split.interdiction is not None:
        return interdiction_text(split, matrix, path, aux)
    columns = places(split, split.columns, matrix.names, "column")
    rows = set(places(split, split.rows, matrix.row_names, "row"))
    below = set(columns)
    names = blv.names(matrix.names, ["follower"])
    row_names = blv.names(matrix.row_names, names.values())
    shown = [names[n] for n in matrix.names]
    name = next(iter(blv.names([split.name or Path(path).name.split(".")[0]], shown).values()))
    comments = [
        f"imported from {Path(path).name} and {Path(aux).name}",
        *blv.renamed(names, "column"),
        *blv.renamed(row_names, "row"),
    ]
    whole = [shown[j] for j in columns if matrix.integer[j]]
    if whole:
        comments.append(f"whole numbers of the follower: {', '.join(whole[:5])}")
    lines = blv.header(name, "", comments)
    upper_rows: list[str] = []
    lower_rows: list[str] = []
    for r, text in row_texts(matrix, row_names, shown).items():
        (lower_rows if r in rows else upper_rows).append(text)
    variables = [
        shown[j]
        + blv.domain(float(matrix.lower[j]), float(matrix.upper[j]), bool(matrix.integer[j]))
        for j in range(len(shown))
    ]
    sense = "maximize" if matrix.maximize else "minimize"
    lines += blv.level(
        "upper",
        [v for j, v in enumerate(variables) if j not in below],
        f"{sense} {objective_text(matrix, shown)}",
        upper_rows,
    )
    costs = blv.linear([(shown[j], e.cost) for j, e in zip(columns, split.columns, strict=True)])
    sense = "maximize" if split.maximize else "minimize"
    own = [variables[j] for j in sorted(below)]
    lines += ["", *blv.level("lower follower", own, f"{sense} {costs}", lower_rows)]
    return "\n".join(lines) + "\n"
