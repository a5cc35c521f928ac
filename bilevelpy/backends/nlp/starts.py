"""Where the reduced form begins: a coarse grid over x, and when further starts say nothing new."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bilevelpy.reductions.columns import Columns

Array = np.ndarray[Any, np.dtype[Any]]

# Points of a coarse grid, and the blocks of upper variables up to which there is one.
POINTS, BLOCKS = 64, 4
# Positive ranges with ends farther apart than this are divided by ratios.
RATIO = 30.0
# So many starts that lead to the same point are enough; the same: this close.
AGREE, SAME = 3, 1e-6


def coarse_grid(columns: Columns, chosen: Array, start: Array) -> list[Array]:
    """Points that cover the ranges of the columns ``chosen``: variables that are declared together
    move together, as in a search by hand. Empty where there are many blocks or no ends.
    """
    blocks = []
    for block in columns.blocks:
        own = np.intersect1d(np.arange(block.offset, block.offset + block.size), chosen)
        if block.level == "upper" and own.size:
            blocks.append(own)
    low, high = columns.lower[chosen], columns.upper[chosen]
    if not 1 <= len(blocks) <= BLOCKS or not np.isfinite(high - low).all():
        return []
    each = max(2, round(POINTS ** (1 / len(blocks))))
    points = []
    for shares in itertools.product(np.linspace(0.0, 1.0, each), repeat=len(blocks)):
        v = start.copy()
        for own, share in zip(blocks, shares, strict=True):
            v[own] = between(columns.lower[own], columns.upper[own], float(share))
        points.append(v)
    return points


def somewhere(columns: Columns, rng: np.random.Generator) -> Array:
    """A random start: between finite bounds, about the given one elsewhere."""
    low, high = columns.lower, columns.upper
    size = 10.0 ** rng.uniform(-1, 1)
    at = columns.start + rng.standard_normal(low.size) * size
    inside = np.isfinite(low) & np.isfinite(high)
    at[inside] = low[inside] + (high - low)[inside] * rng.random(int(inside.sum()))
    return np.asarray(np.clip(at, low, high))


def between(low: Array, high: Array, share: float) -> Array:
    """The point at a share of the way between the ends of every variable, by ratios where these
    are positive and far apart.
    """
    wide = (low > 0) & (high > RATIO * low)
    safe = np.where(wide, low, 1.0)
    ratio = safe * (np.where(wide, high, 1.0) / safe) ** share
    return np.where(wide, ratio, low + share * (high - low))


def agree(ends: list[tuple[Array, float]], chosen: Array) -> bool:
    """Whether the last starts have all led to the same point."""
    if len(ends) < AGREE:
        return False
    (v, F), others = ends[-1], ends[-AGREE:-1]
    size = max(1.0, float(np.abs(v[chosen]).max(initial=0.0)))
    return all(
        abs(F - g) <= SAME * max(1.0, abs(F))
        and float(np.abs(v[chosen] - w[chosen]).max(initial=0.0)) <= 1e-2 * size
        for w, g in others
    )
