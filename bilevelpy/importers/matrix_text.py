"""What the readers of matrices with AUX files share."""

from __future__ import annotations

import math

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


def row_texts(matrix: Matrix, names: dict[str, str], shown: list[str]) -> dict[int, str]:
    """The rows of a matrix that bound anything, by their number, in the names of the model."""
    found: dict[int, str] = {}
    for r, name in enumerate(matrix.row_names):
        low, high = float(matrix.row_lower[r]), float(matrix.row_upper[r])
        if low > -math.inf or high < math.inf:
            body = blv.linear([(shown[j], c) for j, c in matrix.rows[r]])
            found[r] = blv.row(names[name], body, low, high)
    return found
