"""What the readers of matrices with AUX files share."""

from __future__ import annotations

from bilevelpy.importers import blv_text as blv
from bilevelpy.importers.aux_file import Aux, Entry
from bilevelpy.importers.mps_file import Matrix


def places(split: Aux, entries: tuple[Entry, ...], known: tuple[str, ...], what: str) -> list[int]:
    """The positions of columns or rows that an AUX file names, in its order."""
    place = {name: k for k, name in enumerate(known)}
    found: dict[int, None] = {}
    for entry in entries:
        k = entry.key if isinstance(entry.key, int) else place.get(entry.key, -1)
        if not 0 <= k < len(known):
            raise split.text.bad(entry.line, f"the other file has no {what} `{entry.key}`")
        if k in found:
            raise split.text.bad(entry.line, f"{what} `{entry.key}` is listed twice")
        found[k] = None
    return list(found)


def objective_text(matrix: Matrix, shown: list[str]) -> str:
    """The objective of a matrix in the names of the model."""
    terms = [(shown[j], float(c)) for j, c in enumerate(matrix.cost)]
    terms += [
        (f"{shown[i]}^2" if i == j else f"{shown[i]}*{shown[j]}", c) for i, j, c in matrix.hessian
    ]
    return blv.linear(terms, matrix.offset)
