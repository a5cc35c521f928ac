"""Norms in conditions of optimality: a variable in their place, and a subgradient.

A norm has no derivative where its argument vanishes, and that is where followers with norms often
end. With two kinds of further columns its conditions are polynomials that hold there too::

    |v(x, y)|    ->    t,    v = t z,    t = z'v,    z'z <= 1

so that t is the norm and z one of its subgradients: ``v / t``, and any point of the ball where v is
0. The derivative of ``h(y, |v|)`` is ``h_y + h_t (dv/dy)' z``. For h that grows with t and v affine
in y these are all subgradients (Clarke 1983, theorem 2.3.9); else they are among others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.rewriting.fixing import fix, polynomial
from bilevelpy.reductions.rewriting.intervals import propagated, tree_range
from bilevelpy.reductions.rows import Functions, Rows, without_constants

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from bilevelpy.reductions.rows import System

Array = np.ndarray[Any, np.dtype[Any]]

# Eigenvalues of what stands under a root above this fraction of the largest below 0 are rounding.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Norm:
    """One norm: the column of its value, the entries of its argument, those of its subgradient."""

    height: int
    parts: tuple[sc.Scalar, ...]
    slope: tuple[int, ...]


@dataclass(slots=True)
class Norms:
    """The norms of a system's followers; ``first`` is the index of the first further column.

    ``names``, ``low`` and ``high`` describe these columns, ``made`` holds the norms so far.
    ``regular`` says whether everything so far grows with its norms: then the conditions hold at no
    other points than without them.
    """

    system: System
    first: int
    names: list[str] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    regular: bool = True
    made: list[Norm] = field(default_factory=list)
    _opened: dict[int, tuple[sc.Scalar, list[Norm]]] = field(default_factory=dict)
    _ranges: tuple[Array, Array] | None = None

    def opened(self, tree: sc.Scalar, k: int) -> sc.Scalar:
        """A tree of follower k (from 1) with columns in place of its norms."""
        if id(tree) not in self._opened:
            found: list[Norm] = []
            self._opened[id(tree)] = (self._replaced(tree, k, found), found)
        return self._opened[id(tree)][0]

    def gradient(
        self, tree: sc.Scalar, k: int, wanted: Collection[int]
    ) -> dict[int, sc.Scalar | None]:
        """Derivatives of a tree of follower k, with subgradients of its norms."""
        inner = self.opened(tree, k)
        norms = self._opened[id(tree)][1]
        slopes = sc.gradient(inner, {*wanted, *(n.height for n in norms)})
        for norm in norms:
            weight = slopes.pop(norm.height, sc.ZERO)
            parts = [sc.gradient(v, wanted) for v in norm.parts]
            for j in sorted(set().union(*parts)):
                if weight is None or slopes.get(j, sc.ZERO) is None:
                    slopes[j] = None
                    continue
                steps = [
                    sc.mul(sc.Col(z), d)
                    for z, part in zip(norm.slope, parts, strict=True)
                    if (d := part.get(j)) is not None
                ]
                slopes[j] = sc.add(slopes.get(j) or sc.ZERO, sc.mul(weight, sc.add(*steps)))
        return slopes

    def watch(self, tree: sc.Scalar, k: int, sign: float) -> None:
        """Take note where ``sign * tree`` does not grow with a norm, or is not known to."""
        inner = self.opened(tree, k)
        for norm in self._opened[id(tree)][1]:
            low, high = self._bounds()
            low, high = np.concatenate([low, self.low]), np.concatenate([high, self.high])
            self.regular = self.regular and _grows(inner, norm.height, sign, low, high)

    def read(self, functions: Functions, owner: Array) -> Functions:
        """Functions of followers with columns in place of norms."""
        trees = {r: self.opened(t, int(owner[r])) for r, t in functions.trees.items()}
        return _polynomials(functions, trees, functions.linear.shape[1])

    def rows(self, width: int) -> Rows:
        """``v = t z``, ``t = z'v`` and ``z'z <= 1`` of every norm."""
        names: list[str] = []
        trees: list[sc.Scalar] = []
        low: list[float] = []
        for norm in self.made:
            own = self.names[norm.height - self.first]
            height, minus = sc.Col(norm.height), sc.Num(-1.0)
            z = [sc.Col(j) for j in norm.slope]
            for n, (v, s) in enumerate(zip(norm.parts, z, strict=True)):
                trees.append(sc.add(v, sc.mul(minus, height, s)))
                names.append(f"{own}.part.{n + 1}")
            along = sc.add(*(sc.mul(s, v) for s, v in zip(z, norm.parts, strict=True)))
            trees += [
                sc.add(along, sc.mul(minus, height)),
                sc.add(*(sc.power(s, sc.Num(2.0)) for s in z), minus),
            ]
            names += [f"{own}.along", f"{own}.ball"]
            low += [0.0] * (len(z) + 1) + [-math.inf]
        count = len(trees)
        empty = Functions(np.zeros(count), sp.csr_array((count, width)), {}, {})
        made = _polynomials(empty, dict(enumerate(trees)), width)
        none = (None,) * count
        rows = Rows(
            tuple(names), made, np.array(low), np.zeros(count), np.zeros(count, dtype=np.int64),
            none, none,
        )  # fmt: skip
        return without_constants(rows)

    def _bounds(self) -> tuple[Array, Array]:
        if self._ranges is None:
            self._ranges = propagated(self.system)
        return self._ranges

    def _replaced(self, tree: sc.Scalar, k: int, found: list[Norm]) -> sc.Scalar:
        own = set(np.flatnonzero(self.system.columns.owner == k).tolist())

        def column(node: sc.Call) -> sc.Scalar | None:
            parts = norm_parts(node, own)
            if parts is None:
                return None
            made = self._norm(node, parts)
            found.append(made)
            return sc.Col(made.height)

        return _exchanged(tree, column)

    def _norm(self, node: sc.Call, parts: tuple[sc.Scalar, ...]) -> Norm:
        most = tree_range(node, *self._bounds())[id(node)][1]
        number, place = len(self.made) + 1, self.first + len(self.names)
        self.names.append(f"norm.{number}")
        self.names += [f"slope.{number}.{n + 1}" for n in range(len(parts))]
        self.low += [0.0] + [-1.0] * len(parts)
        self.high += [most] + [1.0] * len(parts)
        made = Norm(place, parts, tuple(range(place + 1, place + 1 + len(parts))))
        self.made.append(made)
        return made


def epigraphs(
    tree: sc.Scalar, sign: float, low: Array, high: Array
) -> tuple[sc.Scalar, list[tuple[sc.Scalar, ...]]]:
    """A tree with columns from ``low.size`` on in place of norms, and the arguments of these: of
    those with which ``sign * tree`` grows for columns in these ranges. The least of it, and points
    with it below an end, are then the same with ``t >= |v|``.
    """
    chosen = sc.columns([tree])
    parts_of = {
        id(n): parts for n in sc.postorder(tree) if (parts := norm_parts(n, chosen)) is not None
    }
    found: list[int] = []

    def height(node: sc.Call) -> sc.Scalar | None:
        if id(node) not in parts_of:
            return None
        found.append(id(node))
        return sc.Col(low.size + len(found) - 1)

    while True:
        found.clear()
        inner = _exchanged(tree, height)
        wide = np.concatenate([low, np.zeros(len(found))])
        tall = np.concatenate([high, np.full(len(found), np.inf)])
        falling = [
            place
            for n, place in enumerate(found)
            if not _grows(inner, low.size + n, sign, wide, tall)
        ]
        if not falling:
            return inner, [parts_of[place] for place in found]
        for place in falling:
            del parts_of[place]


def _grows(tree: sc.Scalar, column: int, sign: float, low: Array, high: Array) -> bool:
    """Whether ``sign * tree`` is known to grow with a column."""
    slope = sc.derivative(tree, column)
    if slope is None:
        return False
    least, most = tree_range(slope, low, high)[id(slope)]
    return (least if sign > 0 else -most) >= 0.0


def _exchanged(tree: sc.Scalar, by: Callable[[sc.Call], sc.Scalar | None]) -> sc.Scalar:
    """The tree with other nodes where ``by`` has some."""
    known: dict[int, sc.Scalar] = {}
    for node in sc.postorder(tree):
        known[id(node)] = node
        if not isinstance(node, sc.Call):
            continue
        made = by(node)
        if made is not None:
            known[id(node)] = made
            continue
        args = tuple(known[id(a)] for a in node.arguments)
        if any(a is not b for a, b in zip(args, node.arguments, strict=True)):
            known[id(node)] = sc.Call(node.function, args)
    return known[id(tree)]


def norm_parts(node: sc.Scalar, own: Collection[int]) -> tuple[sc.Scalar, ...] | None:
    """The entries v of a node ``sqrt(v'v)`` that reads ``own`` columns, each affine in them; None
    for any other node.
    """
    if not isinstance(node, sc.Call) or node.function != "sqrt":
        return None
    inner = node.arguments[0]
    chosen = set(own)
    if not sc.columns([inner]) & chosen:
        return None
    parts = _squares(inner)
    if parts is None:
        parts = _factors(inner)
    if parts is None:
        return None
    for part in parts:
        for slope in sc.gradient(part, chosen).values():
            if slope is None or sc.columns([slope]) & chosen:
                return None
    return parts


def _squares(inner: sc.Scalar) -> tuple[sc.Scalar, ...] | None:
    """The bases of a sum of squares (and of numbers that are not negative)."""
    summed = isinstance(inner, sc.Call) and inner.function == "add"
    terms = inner.arguments if summed and isinstance(inner, sc.Call) else (inner,)
    parts: list[sc.Scalar] = []
    for term in terms:
        if isinstance(term, sc.Num) and term.value >= 0.0:
            parts.append(sc.Num(math.sqrt(term.value)))
        elif (
            isinstance(term, sc.Call)
            and term.function == "pow"
            and term.arguments[1] == sc.Num(2.0)
        ):
            parts.append(term.arguments[0])
        else:
            return None
    return tuple(parts)


def _factors(inner: sc.Scalar) -> tuple[sc.Scalar, ...] | None:
    """Affine functions whose squares add up to a polynomial of degree two, where it has such."""
    terms = polynomial(inner)
    if terms is None:
        return None
    used = sorted({j for key in terms for j in key})
    place = {j: n for n, j in enumerate(used)}
    one = len(used)
    matrix = np.zeros((one + 1, one + 1))
    for key, value in terms.items():
        i, j = (place[key[0]], place[key[1]]) if len(key) == 2 else (one, one)
        if len(key) == 1:
            i = place[key[0]]
        matrix[i, j] += 0.5 * value
        matrix[j, i] += 0.5 * value
    values, vectors = np.linalg.eigh(matrix)
    if values[0] < -ROUNDING * max(float(np.abs(values).max()), 0.0):
        return None
    found: list[sc.Scalar] = []
    for value, vector in zip(values, vectors.T, strict=True):
        if value <= ROUNDING * values[-1]:
            continue
        weights = math.sqrt(value) * vector
        entries = [
            sc.mul(sc.Num(float(c)), sc.Col(j))
            for j, c in zip(used, weights[:one], strict=True)
            if c
        ]
        found.append(sc.add(*entries, sc.Num(float(weights[one]))))
    return tuple(found) or None


def _polynomials(functions: Functions, trees: dict[int, sc.Scalar], width: int) -> Functions:
    """The functions with these trees, as coefficients where that is possible."""
    made = Functions(functions.constant, functions.linear, functions.quadratic, trees)
    return fix(made.widened(width), np.arange(width), np.zeros(width))
