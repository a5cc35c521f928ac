"""Functions with some columns at fixed values, or at ones that move with others: trees that become
polynomials of degree two are read back into coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rows import Functions
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from bilevelpy.reductions.polynomial import Sparse

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(slots=True)
class _Poly:
    """Monomials (sorted tuples of at most two columns) -> coefficients."""

    terms: dict[tuple[int, ...], float] = field(default_factory=dict)

    @classmethod
    def total(cls, parts: Sequence[_Poly]) -> _Poly:
        out = dict(parts[0].terms)
        for part in parts[1:]:
            for key, value in part.terms.items():
                out[key] = out.get(key, 0.0) + value
        return cls(out)

    def times(self, other: _Poly) -> _Poly | None:
        out: dict[tuple[int, ...], float] = {}
        for a, va in self.terms.items():
            for b, vb in other.terms.items():
                if len(a) + len(b) > 2:
                    return None
                key = b + a if a and b and b[0] < a[0] else a + b
                out[key] = out.get(key, 0.0) + va * vb
        return _Poly(out)


def substitute(root: sc.Scalar, free: Collection[int], at: Array) -> sc.Scalar:
    """The tree with every column outside ``free`` replaced by its value."""
    return mapped(root, lambda c: c if c.index in free else sc.Num(float(at[c.index])))


def multiplied(root: sc.Scalar, chosen: Collection[int], by: Array) -> sc.Scalar:
    """The tree with every column of ``chosen`` times its number."""
    return mapped(root, lambda c: sc.mul(sc.Num(float(by[c.index])), c) if c.index in chosen else c)


def mapped(root: sc.Scalar, leaf: Callable[[sc.Col], sc.Scalar]) -> sc.Scalar:
    """The tree with other leaves in place of its columns."""
    known: dict[int, sc.Scalar] = {}
    for node in sc.postorder(root):
        check()
        if isinstance(node, sc.Num):
            known[id(node)] = node
        elif isinstance(node, sc.Col):
            known[id(node)] = leaf(node)
        else:
            known[id(node)] = _call(node.function, [known[id(a)] for a in node.arguments])
    return known[id(root)]


def _call(function: str, args: list[sc.Scalar]) -> sc.Scalar:
    match function:
        case "add":
            return sc.add(*args)
        case "mul":
            return sc.mul(*args)
        case "div":
            return sc.div(args[0], args[1])
        case "pow":
            return sc.power(args[0], args[1])
        case _:
            return sc.call(function, *args)


def polynomial(root: sc.Scalar) -> dict[tuple[int, ...], float] | None:
    """Monomials of a tree, or None where it is no polynomial of degree two."""
    known: dict[int, _Poly] = {}
    for node in sc.postorder(root):
        check()
        if isinstance(node, sc.Num):
            made: _Poly | None = _Poly({(): node.value})
        elif isinstance(node, sc.Col):
            made = _Poly({(node.index,): 1.0})
        else:
            made = _combine(node, [known[id(a)] for a in node.arguments])
        if made is None:
            return None
        known[id(node)] = made
    return known[id(root)].terms


def _combine(node: sc.Call, args: list[_Poly]) -> _Poly | None:
    out: _Poly | None = args[0]
    if node.function == "add":
        return _Poly.total(args)
    if node.function == "mul":
        for a in args[1:]:
            out = out.times(a) if out is not None else None
        return out
    if node.function == "pow" and set(args[1].terms) <= {()}:
        exponent = args[1].terms.get((), 0.0)
        if exponent == 2.0:
            return args[0].times(args[0])
    return None


def fix(functions: Functions, free: Array, at: Array) -> Functions:
    """The functions of the free columns, the others at their values: trees become coefficients
    where that is possible.
    """
    if not functions.trees:
        return functions
    width = functions.linear.shape[1]
    chosen = {int(j) for j in free}
    constant = functions.constant.copy()
    linear = functions.linear.tolil(copy=True)
    quadratic, trees = dict(functions.quadratic), {}
    for row, tree in functions.trees.items():
        small = substitute(tree, chosen, at)
        terms = polynomial(small)
        if terms is None:
            trees[row] = small
            continue
        entries: list[tuple[int, int, float]] = []
        for key, value in terms.items():
            if not key:
                constant[row] += value
            elif len(key) == 1:
                linear[row, key[0]] += value
            else:
                entries += [(key[0], key[1], value), (key[1], key[0], value)]
        if entries:
            i, j, c = zip(*entries, strict=True)
            quadratic[row] = sp.csr_array((c, (i, j)), shape=(width, width))
    return Functions(constant, sp.csr_array(linear), quadratic, trees)


def fix_products(functions: Functions, fixed: Mapping[int, float]) -> Functions:
    """With the numbers of fixed columns in quadratic terms: products with them are linear."""
    if not fixed or not functions.quadratic:
        return functions
    v = np.zeros(functions.linear.shape[1])
    v[list(fixed)] = list(fixed.values())
    free = np.ones(v.size)
    free[list(fixed)] = 0.0
    constant, linear, quadratic = functions.constant.copy(), functions.linear, {}
    for row, q in functions.quadratic.items():
        slope = q @ v
        constant[row] += 0.5 * float(v @ slope)
        place = np.flatnonzero(free * slope)
        entries = (slope[place], (np.full(place.size, row), place))
        linear = linear + sp.csr_array(entries, shape=linear.shape)
        left = sp.csr_array(sp.diags_array(free) @ q @ sp.diags_array(free))
        left.eliminate_zeros()
        if left.nnz:
            quadratic[row] = left
    return Functions(constant, sp.csr_array(linear), quadratic, functions.trees)


def placed(
    functions: Functions, own: Array, response: Array, slopes: Sparse | None = None
) -> Functions:
    """The functions with a follower's own columns at ``response + slopes @ v``; only the others
    still move.
    """
    width = own.size
    move = sp.diags_array(np.where(own, 0.0, 1.0)).tocsr()
    base = np.where(own, response, 0.0)
    if slopes is not None:
        move = sp.csr_array(move + slopes)
        functions = _moved(functions, response, slopes)
    fixed = fix(functions, np.flatnonzero(~own), response)
    constant = fixed.constant + fixed.linear @ base
    linear = sp.csr_array(fixed.linear @ move).tolil()
    quadratic = {}
    for r, q in fixed.quadratic.items():
        constant[r] += 0.5 * float(base @ (q @ base))
        linear[[r], :] = linear[[r], :].toarray() + (move.T @ (q @ base)).reshape(1, width)
        kept = sp.csr_array(move.T @ q @ move)
        kept.eliminate_zeros()
        if kept.nnz:
            quadratic[r] = kept
    rows = linear.tocsr()
    rows.eliminate_zeros()
    return Functions(constant, rows, quadratic, fixed.trees)


def _moved(functions: Functions, response: Array, slopes: Sparse) -> Functions:
    """Trees with the response, as it moves, in place of the columns that move."""
    moves: dict[int, sc.Scalar] = {}
    for j in np.flatnonzero(np.diff(slopes.indptr)):
        span = slice(slopes.indptr[j], slopes.indptr[j + 1])
        terms = zip(slopes.indices[span], slopes.data[span], strict=True)
        parts = [sc.mul(sc.Num(float(c)), sc.Col(int(i))) for i, c in terms]
        moves[int(j)] = sc.add(*parts, sc.Num(float(response[j])))
    trees = {
        r: mapped(tree, lambda c: moves.get(c.index, c)) for r, tree in functions.trees.items()
    }
    return Functions(functions.constant, functions.linear, functions.quadratic, trees)
