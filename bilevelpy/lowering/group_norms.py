"""Lower objectives ``f(x, y) = s(x, y) + sum_g w_g(x) |y_g|_2 + sum_j l_j(x) |y_j|`` with s smooth.

The kinks are cut out of the expression: with a variable u in the place of every norm and absolute
value, f is affine in u, s is f at ``u = 0``, and the weights are its slopes. Groups are read off
the sparse matrices of what the norms are taken of. They must not share variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevelpy.errors import BackendError
from bilevelpy.ir import expr as ir
from bilevelpy.ir.substitute import substitute
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.hessians.sparsity import linear_map
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.programs.derive import derivatives
from bilevelpy.lowering.programs.differentiate import gradient

Vec = Tensor
Array = np.ndarray[Any, np.dtype[Any]]

# Agreement of norms with those of the groups that were read off.
SAME = 1e-10
OTHERS = frozenset({"relu", "maximum", "minimum", "max", "min", "spectral_norm"})
# Where an oracle keeps its parts.
KEPT = "group_parts"
FORM = (
    "the kinks of the lower objective must be terms `weight * norm2(group)` and `weight * abs(y)` "
    "of free lower variables, with weights >= 0 that depend on data and upper variables only; "
)


@dataclass(frozen=True, slots=True)
class Members:
    """The nonzero entries of a linear map from y to the elements that norms are taken of: entry k
    adds ``factor[k] y[position[k]]`` to the norm number ``element[k]``.
    """

    element: Array
    position: Array
    factor: Array


class SmoothPart(TorchOracle):
    """The oracle of a program with an expression in the place of its lower objective; it counts
    for the oracle of the whole.
    """

    def __init__(self, whole: TorchOracle, smooth: ir.Expr) -> None:
        super().__init__(whole.bound)
        self.counts, self.f_expr = whole.counts, smooth
        self._df = self.straight(smooth)
        self._f = self._df.value()


class GroupParts:
    """The parts of the lower objective of an oracle.

    ``group`` (m,) holds the number of the group of every entry, ``count`` for those in none.
    """

    def __init__(
        self, oracle: TorchOracle, norms: Sequence[ir.Expr], absolutes: Sequence[ir.Expr]
    ) -> None:
        self.oracle = oracle
        builder, nodes = oracle.bound.program.builder, [*norms, *absolutes]
        cuts = {node: builder.var("kink", str(k), node.axes) for k, node in enumerate(nodes)}
        smooth = substitute(
            builder, oracle.f_expr, {node: builder.fill(0.0, node.axes) for node in nodes}
        )
        lower = frozenset(oracle.ys) | frozenset(cuts.values())
        slopes = derivatives(
            builder, substitute(builder, oracle.f_expr, dict(cuts)), tuple(cuts.values())
        )
        if slopes is None or any(n in lower for n in postorder(slopes)):
            raise BackendError(FORM + "here a weight depends on lower variables")
        self.smooth = SmoothPart(oracle, smooth)
        self._slopes = oracle.function(slopes)
        self._at: tuple[Vec, Vec, Vec] | None = None
        self._read(norms, absolutes)

    def _read(self, norms: Sequence[ir.Expr], absolutes: Sequence[ir.Expr]) -> None:
        """Find the groups, and which weight belongs to which entry."""
        m, base, self.count = self.oracle.m, 0, 0
        group, sources, factors = np.full(m, -1), list[int](), list[float]()
        single: list[tuple[Array, Array, Array]] = []
        for node in norms:
            found = self._members(node)
            if (
                np.bincount(found.position, minlength=m).max(initial=0) > 1
                or (group[found.position] >= 0).any()
            ):
                raise BackendError(FORM + "here two groups share a variable")
            elements, number = np.unique(found.element, return_inverse=True)
            factor = np.zeros(elements.size)
            factor[number] = np.abs(found.factor)
            if not np.allclose(factor[number], np.abs(found.factor), rtol=1e-12, atol=0.0):
                raise BackendError(FORM + "here the variables of a group have different factors")
            group[found.position] = self.count + number
            sources += (base + elements).tolist()
            factors += factor.tolist()
            self.count += elements.size
            base += self._size(node)
        for node in absolutes:
            found = self._members(node)
            single.append((base + found.element, found.position, np.abs(found.factor)))
            base += self._size(node)
        self.group = torch.from_numpy(np.where(group < 0, self.count, group))
        self._source = torch.tensor(sources, dtype=torch.int64)
        self._factor = torch.tensor(factors, dtype=torch.float64)
        source, position, size = (
            np.concatenate([s[k] for s in single]) if single else np.zeros(0) for k in range(3)
        )
        self._single = torch.from_numpy(source.astype(np.int64))
        self._position = torch.from_numpy(position.astype(np.int64))
        self._size_of = torch.from_numpy(size.astype(np.float64))
        self._elements = base
        self._agree(norms, absolutes)

    def _size(self, node: ir.Expr) -> int:
        return prod(self.oracle.bound.data.sizes[a] for a in node.axes)

    def _members(self, node: ir.Expr) -> Members:
        """What a norm or an absolute value is taken of."""
        o = self.oracle
        builder, data = o.bound.program.builder, o.bound.data
        root = node.children[0]
        root_of_sum = isinstance(node, ir.Apply) and node.function == "sqrt"
        if root_of_sum:
            squares = {n: n.children[0] for n in postorder(root) if _is_square(n)}
            root = substitute(builder, root, squares)
        along = linear_map(builder, data, (root,), o.ys, values=True)
        if along is None:
            raise BackendError(FORM + "here a norm is taken of too many expressions")
        found = along.tocoo()
        rows, columns, values = found.row, found.col, found.data
        kept = values != 0.0
        rows, columns, values = rows[kept], columns[kept], values[kept]
        if not root_of_sum and np.bincount(rows, minlength=1).max() > 1:
            raise BackendError(FORM + "here one is taken of sums of variables")
        if isinstance(node, ir.Reduce):
            shape = tuple(data.sizes[a] for a in root.axes)
            index = np.unravel_index(rows, shape)
            stay = [d for d in range(len(shape)) if d not in node.dims]
            rows = (
                np.ravel_multi_index([index[d] for d in stay], [shape[d] for d in stay])
                if stay
                else np.zeros_like(rows)
            )
        elif root_of_sum:
            values = np.sqrt(np.abs(values))
        return Members(rows.astype(np.int64), columns.astype(np.int64), values)

    def _agree(self, norms: Sequence[ir.Expr], absolutes: Sequence[ir.Expr]) -> None:
        """Compare the norms of the program with those of the groups at a random point."""
        o = self.oracle
        y = torch.randn(o.m, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        found = o.function((*norms, *absolutes))(*o.upper.split(o.x0), *o.lower.split(y))
        parts = found if isinstance(found, tuple) else (found,)
        theirs = torch.cat([p.reshape(-1) for p in parts])
        if not torch.allclose(theirs, self._spread(self.norms(y), y.abs()), rtol=SAME, atol=SAME):
            raise BackendError(FORM + "here a norm is taken of something else")

    def _spread(self, a: Vec, b: Vec) -> Vec:
        """One number per kink of the program, from numbers ``a`` of groups and ``b`` of entries."""
        out = torch.zeros(self._elements, dtype=torch.float64)
        out[self._source] = self._factor * a
        return out.index_add(0, self._single, self._size_of * b[self._position])

    def norms(self, y: Vec) -> Vec:
        """``|y_g|`` of every group."""
        return self.totals(y * y).sqrt()

    def totals(self, v: Vec) -> Vec:
        """Sums over the entries of every group."""
        return torch.zeros(self.count + 1, dtype=v.dtype).index_add(0, self.group, v)[:-1]

    def spread(self, a: Vec) -> Vec:
        """One number per entry from one per group; 0 for entries in none."""
        return torch.cat([a, a.new_zeros(1)])[self.group]

    def weights(self, x: Vec) -> tuple[Vec, Vec]:
        """The weights of the groups (count,), and of the absolute values of the entries (m,); the
        last ones are kept.
        """
        if self._at is None or not torch.equal(self._at[0], x):
            o = self.oracle
            slopes = self._values(o.upper.split(x)).detach()
            single = torch.zeros(o.m, dtype=torch.float64)
            single.index_add_(0, self._position, self._size_of * slopes[self._single])
            if bool((slopes < 0.0).any()):
                raise BackendError(FORM + "here a weight is negative")
            self._at = (x.clone(), self._factor * slopes[self._source], single)
        return self._at[1:]

    def slope_of_weights(self, x: Vec, a: Vec, b: Vec) -> Vec:
        """``d(w(x)'a + l(x)'b)/dx``."""
        o = self.oracle
        xs = o.upper.leaves(x)
        return o.upper.join(gradient(self._values(xs) @ self._spread(a, b), xs), x)

    def _values(self, xs: Sequence[Tensor]) -> Vec:
        """The weights of all kinks, in the order of the program."""
        found = self._slopes(*xs, *self.oracle.lower.split(self.oracle.y0))
        parts = found if isinstance(found, tuple) else (found,)
        return torch.cat([torch.as_tensor(p).reshape(-1) for p in parts])


def group_parts(oracle: Any) -> GroupParts | None:
    """The parts, found once for an oracle; None where the lower objective has no kinks that show
    in its text, and where it has no norms and its kinks are of another form.

    Raises
    ------
    BackendError
        Where there are norms, and kinks of another form beside or inside them.
    """
    whole = getattr(oracle, "_oracle", oracle)  # one that watches the time
    if type(whole) is not TorchOracle:
        return None
    kept = whole.__dict__
    if KEPT not in kept:
        kept[KEPT] = _found(whole)
    found: GroupParts | None = kept[KEPT]
    return found


def _found(oracle: TorchOracle) -> GroupParts | None:
    nodes = list(postorder([oracle.f_expr]))
    lower = set(oracle.ys)
    moving: set[ir.Expr] = set()
    for node in nodes:
        if node in lower or any(c in moving for c in node.children):
            moving.add(node)
    users: dict[ir.Expr, list[ir.Expr]] = {}
    for node in nodes:
        for child in node.children:
            users.setdefault(child, []).append(node)
    kinked = [n for n in nodes if n in moving and not _are_squares(users.get(n, ()))]
    norms = [n for n in kinked if is_norm(n)]
    absolutes = [n for n in kinked if isinstance(n, ir.Apply) and n.function == "abs"]
    if not norms and not absolutes:
        return None
    try:
        inside = set(postorder([c for n in (*norms, *absolutes) for c in n.children]))
        if any(n in inside for n in (*norms, *absolutes)):
            raise BackendError(FORM + "here one lies inside another")
        if any(getattr(n, "function", "") in OTHERS for n in kinked):
            raise BackendError(FORM + "here are kinks of another form")
        if not oracle.domain_y.is_free or oracle.dtype is not torch.float64:
            raise BackendError(FORM + "here are bounds or other domains of lower variables")
        return GroupParts(oracle, norms, absolutes)
    except BackendError:
        if norms:
            raise
        return None


def is_norm(node: ir.Expr) -> bool:
    """Whether a node is a Euclidean norm, or the root of a sum of squares."""
    if isinstance(node, ir.Reduce):
        return node.function == "norm2"
    if not (isinstance(node, ir.Apply) and node.function == "sqrt"):
        return False
    below = node.operands[0]
    while isinstance(below, ir.Reduce | ir.ScatterSum | ir.Align):
        if isinstance(below, ir.Reduce) and below.function != "sum":
            return False
        below = below.children[0]
    return _is_square(below)


def _is_square(node: ir.Expr) -> bool:
    return isinstance(node, ir.Apply) and node.function == "square"


def _are_squares(users: Sequence[ir.Expr]) -> bool:
    """Whether a norm with these users occurs under a square only, where it is smooth."""
    return bool(users) and all(map(_is_square, users))
