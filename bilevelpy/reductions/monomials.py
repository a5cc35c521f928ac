"""Polynomials of degree two as coefficients of monomials, and functions and rows made of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions.tables import Functions, Rows, free_rows, without_constants

Terms = dict[tuple[int, ...], float]
"""Coefficients of monomials: (), (i,) and (i, j) with i <= j."""


def functions_of(terms: Sequence[Terms], width: int) -> Functions:
    """One function of ``width`` columns for each polynomial."""
    constant = np.zeros(len(terms))
    entries: list[tuple[int, int, float]] = []
    quadratic = {}
    for r, row in enumerate(terms):
        squares: list[tuple[int, int, float]] = []
        for key, c in row.items():
            if not key:
                constant[r] += c
            elif len(key) == 1:
                entries.append((r, key[0], c))
            else:
                # v' Q v / 2 holds a square with half of the diagonal entry, a product once.
                i, j = key
                squares += [(i, i, 2 * c)] if i == j else [(i, j, c), (j, i, c)]
        if squares:
            i_, j_, c_ = (list(part) for part in zip(*squares, strict=True))
            quadratic[r] = sp.csr_array((c_, (i_, j_)), shape=(width, width))
    places = ([e[2] for e in entries], ([e[0] for e in entries], [e[1] for e in entries]))
    matrix = sp.csr_array(places, shape=(len(terms), width), dtype=float)
    return Functions(constant, matrix, quadratic)


def terms_rows(
    names: Sequence[str],
    terms: Sequence[Terms],
    low: Sequence[float],
    high: Sequence[float],
    width: int,
) -> Rows:
    """Rows ``low <= terms <= high``; a constant among the terms moves into the ends."""
    ends = np.array(low, dtype=float), np.array(high, dtype=float)
    return without_constants(free_rows(names, functions_of(terms, width), *ends))
