"""Ranges of scalar trees from ranges of columns, and ranges of columns from rows of one column."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.trees import linear_terms

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]
Range = tuple[float, float]

ANY: Range = (-math.inf, math.inf)
# Ends of linear programs that are 0, relative to coefficients.
ZERO = 1e-9
# Passes over the rows; each carries a bound one row further.
PASSES = 5


def column_ranges(system: System, leader: bool = True) -> tuple[Array, Array]:
    """Bounds of all columns, with those that rows of a single column imply; without ``leader``,
    rows of the followers only: what restricts responses.
    """
    low, high = system.columns.lower.copy(), system.columns.upper.copy()
    for rows in (system.upper_rows, system.lower_rows) if leader else (system.lower_rows,):
        f = rows.functions
        for r in np.flatnonzero(np.diff(f.linear.indptr) == 1).tolist():
            if r in f.quadratic or r in f.trees:
                continue
            j, c = linear_terms(f, r)[0]
            ends = sorted((rows.lower[r] / c, rows.upper[r] / c))
            low[j], high[j] = max(low[j], ends[0]), min(high[j], ends[1])
    return low, high


def affine_range(system: System, terms: dict[tuple[int, ...], float]) -> tuple[float, float]:
    """The range of an affine function where all linear rows and bounds of both levels hold;
    ends that are 0 but for rounding are.
    """
    columns, cost = system.columns, np.zeros(system.columns.count)
    for key, c in terms.items():
        if key:
            cost[key[0]] += c
    blocks: list[Any] = []
    ends: list[Array] = []
    for rows in (system.upper_rows, system.lower_rows):
        f = rows.functions
        linear = [r for r in range(rows.count) if r not in f.quadratic and r not in f.trees]
        matrix = sp.csr_array(f.linear[linear])
        for sign, end in ((1.0, rows.upper[linear]), (-1.0, -rows.lower[linear])):
            kept = np.flatnonzero(np.isfinite(end))
            blocks.append(sign * matrix[kept])
            ends.append(end[kept])
    bounds = np.stack([columns.lower, columns.upper], axis=1)
    found = []
    for sign in (1.0, -1.0):
        done = linprog(sign * cost, sp.vstack(blocks), np.concatenate(ends), bounds=bounds)
        found.append(sign * done.fun if done.status == 0 else -sign * math.inf)
    constant = terms.get((), 0.0)
    size = ZERO * max(1.0, abs(constant), float(np.abs(cost).max(initial=0.0)))
    low, high = (0.0 if abs(constant + end) <= size else constant + end for end in found)
    return low, high


def propagated(system: System) -> tuple[Array, Array]:
    """Bounds of all columns that linear rows of both levels imply, by a few passes over them: where
    points of the program can lie.
    """
    low, high = column_ranges(system)
    for _ in range(PASSES):
        before = (low.copy(), high.copy())
        for rows in (system.upper_rows, system.lower_rows):
            for r in range(rows.count):
                if r not in rows.functions.quadratic and r not in rows.functions.trees:
                    terms = linear_terms(rows.functions, r)
                    _tighten(terms, float(rows.upper[r]), low, high)
                    minus = [(j, -c) for j, c in terms]
                    _tighten(minus, -float(rows.lower[r]), low, high)
        if np.array_equal(before[0], low) and np.array_equal(before[1], high):
            break
    return low, high


def _tighten(terms: list[tuple[int, float]], end: float, low: Array, high: Array) -> None:
    """Bounds from ``sum c_j v_j <= end``; contradictory ones are left as they are."""
    if not math.isfinite(end):
        return
    least = [c * (low[j] if c > 0 else high[j]) for j, c in terms]
    infinite = [n for n, v in enumerate(least) if not math.isfinite(v)]
    if len(infinite) > 1:
        return
    total = sum(v for v in least if math.isfinite(v))
    for n, (j, c) in enumerate(terms):
        if infinite and infinite[0] != n:
            continue
        rest = total if infinite else total - least[n]
        bound = (end - rest) / c
        if c > 0 and low[j] <= bound < high[j]:
            high[j] = bound
        elif c < 0 and low[j] < bound <= high[j]:
            low[j] = bound


def tree_range(root: sc.Scalar, low: Array, high: Array) -> dict[int, Range]:
    """A range (perhaps too wide) of every node below the root, by identity."""
    known: dict[int, Range] = {}
    for node in sc.postorder(root):
        if isinstance(node, sc.Num):
            known[id(node)] = (node.value, node.value)
        elif isinstance(node, sc.Col):
            known[id(node)] = (float(low[node.index]), float(high[node.index]))
        else:
            known[id(node)] = _call(node.function, [known[id(a)] for a in node.arguments])
    return known


def _call(function: str, args: list[Range]) -> Range:
    a = args[0]
    match function:
        case "add":
            return sum(r[0] for r in args), sum(r[1] for r in args)
        case "mul":
            product = a
            for b in args[1:]:
                product = _times(product, b)
            return product
        case "div":
            b = args[1]
            return _times(a, (1.0 / b[1], 1.0 / b[0])) if b[0] > 0 and b[1] > 0 else ANY
        case "pow":
            return _power(a, args[1])
        case "exp":
            return _monotone(math.exp, a, 0.0)
        case "log":
            return _monotone(math.log, a, -math.inf) if a[0] > 0 else ANY
        case "sin" | "cos":
            return -1.0, 1.0
        case "tanh" | "atan":
            f = math.tanh if function == "tanh" else math.atan
            return f(a[0]), f(a[1])
        case "sqrt":
            return (math.sqrt(max(a[0], 0.0)), math.sqrt(a[1]) if a[1] > 0 else 0.0)
        case "abs":
            return max(a[0], -a[1], 0.0), max(-a[0], a[1])
        case "max":
            return max(r[0] for r in args), max(r[1] for r in args)
        case "min":
            return min(r[0] for r in args), min(r[1] for r in args)
    return ANY


def _times(a: Range, b: Range) -> Range:
    ends = [0.0 if 0.0 in (p, q) else p * q for p in a for q in b]
    return min(ends), max(ends)


def _power(a: Range, b: Range) -> Range:
    if b[0] != b[1]:
        return ANY
    if b[0] == 2.0 and a[0] <= 0:
        # An end above leads objectives that are sums of squares to other searches, which took
        # longer on a model with norms in rows (7 s, with it 11 or 55 s).
        return 0.0, math.inf
    even = b[0] > 0 and b[0] % 2 == 0
    if even:  # a power of the absolute value
        a = max(a[0], -a[1], 0.0), max(-a[0], a[1])
    odd = b[0] > 0 and b[0] % 2 == 1
    if a[0] > 0 or (a[0] == 0 and b[0] > 0) or odd:
        ends = sorted(_one_power(x, b[0]) for x in a)
        return ends[0], ends[1]
    return ANY


def _one_power(x: float, exponent: float) -> float:
    try:
        return math.pow(x, exponent)
    except OverflowError:
        return math.inf if x > 0 else -math.inf


def _monotone(function: Any, a: Range, least: float) -> Range:
    def at(x: float) -> float:
        if x == -math.inf:
            return least
        try:
            return float(function(x)) if x < math.inf else math.inf
        except OverflowError:
            return math.inf

    return at(a[0]), at(a[1])
