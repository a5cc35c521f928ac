"""From tensor nodes to coefficients of columns: forms of degree two where possible, else trees.

The walk is exact: linear operations are sparse matrices read off the bound data, products are kept
apart, and only what is neither becomes a tree for every entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.ir import expr as ir
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.ir.walk import place, postorder
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.expand.forms import FORMS
from bilevelpy.reductions.expand.trees import TREES
from bilevelpy.reductions.polynomial import (
    Form,
    Oversized,
    Products,
    Sparse,
    fixed,
    hessians,
)
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.tables import Functions
from bilevelpy.reductions.trees import quadratic_terms
from bilevelpy.system.deadline import check
from bilevelpy.system.memory import in_words, machine_memory

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.program import BoundProgram

Array = np.ndarray[Any, np.dtype[Any]]
Key = tuple[str, str]

# Nodes of all scalar trees together.
TREE_LIMIT = 200_000
COLLECTED = 100
"""Coefficients in the products of one entry from which on they are multiplied out and added up."""


class Expander:
    """Coefficients of the expressions of one bound program, each shared node once.

    Parameters
    ----------
    offsets
        (level, variable) and (level, constraint) of a shadow price -> its first column.
    width
        The number of columns.
    """

    def __init__(self, bound: BoundProgram, offsets: Mapping[Key, int], width: int) -> None:
        self.bound = bound
        self.offsets = offsets
        self.width = width
        self.interpreter = Interpreter(bound.data, externs=bound.program.externs)
        self._is_data = bound.program.builder.is_data
        self._forms: dict[ir.Expr, Form | None] = {}
        self._trees: dict[ir.Expr, list[sc.Scalar]] = {}
        self._spent = 0

    def size(self, node: ir.Expr) -> int:
        """The number of entries of a tensor."""
        return int(np.prod(self.interpreter.shape(node), dtype=np.int64))

    def form(self, root: ir.Expr) -> Form | None:
        """Its coefficients, or None where it is no polynomial of degree two."""
        check()
        self._walk(root)
        return self._forms[root]

    def quadratic(self, form: Form, span: Span | None) -> dict[int, Sparse]:
        """The quadratic parts of a form, which is written at ``span``.

        Raises
        ------
        Refused
            BLV0603, where their coefficients do not fit into memory.
        """
        try:
            return hessians(form)
        except Oversized as error:
            raise refuse(
                self.bound.program,
                "BLV0603",
                span,
                error.what,
                hint="a backend that takes steps evaluates it as it is written",
                size=in_words(error.size),
                memory=in_words(machine_memory()),
            ) from None

    def trees(self, root: ir.Expr) -> list[sc.Scalar]:
        """A scalar tree for every entry, row by row."""
        self._walk(root)
        for node in self._moving(root, self._trees):
            check()
            if self._forms[node] is None:
                self._trees[node] = TREES[type(node)](self, node)
        return self.operand(root)

    def operand(self, node: ir.Expr, count: int | None = None) -> list[sc.Scalar]:
        """Trees of an operand, a scalar repeated ``count`` times."""
        if self._is_data(node):
            found: list[sc.Scalar] = [sc.Num(float(v)) for v in self._values(node).reshape(-1)]
        elif node in self._trees:
            found = self._trees[node]
        else:
            form = self._forms[node]
            assert form is not None  # otherwise the walk has made its trees before
            found = [form_tree(form, k) for k in range(form.rows)]
            self.spend(node, form.rows + form.linear.nnz)
            self._trees[node] = found
        return found * count if count is not None and len(found) == 1 and count != 1 else found

    def spend(self, node: ir.Expr, count: int) -> None:
        """Count nodes of scalar trees; a model that needs too many is refused."""
        self._spent += count
        if self._spent > TREE_LIMIT:
            raise refuse(
                self.bound.program,
                "BLV0706",
                place(node),
                "has to be written entry by entry",
                hint="formats that keep tensors (json, latex) take the model as it is",
                count=f"{self._spent:,}",
                limit=f"{TREE_LIMIT:,}",
            )

    def _moving(self, root: ir.Expr, done: Mapping[ir.Expr, Any]) -> Iterator[ir.Expr]:
        """What has to be written out below a root: rows may share most of what they read."""
        return (n for n in postorder(root, done) if not self._is_data(n))

    def _walk(self, root: ir.Expr) -> None:
        if root in self._forms:
            return
        if self._is_data(root):
            self._forms[root] = fixed(self._values(root), self.width)
            return
        for node in self._moving(root, self._forms):
            check()
            made = FORMS.get(type(node))
            self._forms[node] = None if made is None else made(self, node)

    def _values(self, node: ir.Expr) -> Array:
        return np.asarray(self.interpreter.value(node))

    def known(self, node: ir.Expr) -> Any:
        """The value of a data node, sparse where it is."""
        self.interpreter.run([node])
        return self.interpreter.known(node)

    def part(self, node: ir.Expr) -> Form | None:
        """The form of an operand."""
        if self._is_data(node) and node not in self._forms:
            self._forms[node] = fixed(self._values(node), self.width)
        return self._forms[node]

    def parts(self, nodes: tuple[ir.Expr, ...]) -> list[Form] | None:
        """The forms of all operands, or None."""
        found = [self.part(n) for n in nodes]
        return None if any(f is None for f in found) else [f for f in found if f is not None]

    def constant_of(self, node: ir.Expr) -> Array | None:
        """The values of a node that no column moves, else None."""
        if self._is_data(node):
            return self._values(node)
        form = self._forms[node]
        if form is None or not form.is_constant:
            return None
        return form.constant.reshape(self.interpreter.shape(node))

    def positions(self, node: ir.Expr, size: int, user: ir.Expr) -> Array:
        """Values of an index expression."""
        self.interpreter.run([node])
        return self.interpreter.positions(node, size, user)


def form_tree(form: Form, row: int) -> sc.Scalar:
    """One entry of a form as a tree: products as they were made, or collected where there are many.

    Squared residuals of m rows over n columns have m n coefficients, their sum has n (n + 1) / 2.
    """
    check()
    terms: list[sc.Scalar] = list(_linear_terms(form.linear, row))
    constant = sc.Num(float(form.constant[row]))
    made = sum(_coefficients(p, row) for p in form.products)
    if made > COLLECTED:
        collected = quadratic_terms(Functions(form.constant, form.linear, hessians(form, row)), row)
        if 2 * len(collected) < made:
            for i, j, c in collected:
                both = sc.power(sc.Col(i), sc.Num(2.0)) if i == j else sc.mul(sc.Col(i), sc.Col(j))
                terms.append(sc.mul(sc.Num(c), both))
            return sc.add(*terms, constant)
    for p in form.products:
        span = slice(p.outer.indptr[row], p.outer.indptr[row + 1])
        for entry, weight in zip(p.outer.indices[span], p.outer.data[span], strict=True):
            left = sc.add(*_linear_terms(p.left, entry))
            right = sc.add(*_linear_terms(p.right, entry))
            factors = [sc.power(left, sc.Num(2.0))] if left == right else [left, right]
            terms.append(sc.mul(sc.Num(float(weight)), *factors))
    return sc.add(*terms, constant)


def _coefficients(products: Products, row: int) -> int:
    """The coefficients of the factors that stand in one entry."""
    outer = products.outer
    places = outer.indices[outer.indptr[row] : outer.indptr[row + 1]]
    return int(
        np.diff(products.left.indptr)[places].sum() + np.diff(products.right.indptr)[places].sum()
    )


def _linear_terms(matrix: Any, row: int) -> list[sc.Scalar]:
    span = slice(matrix.indptr[row], matrix.indptr[row + 1])
    pairs = zip(matrix.indices[span], matrix.data[span], strict=True)
    return [sc.mul(sc.Num(float(c)), sc.Col(int(j))) for j, c in pairs]
