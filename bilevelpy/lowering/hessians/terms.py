"""Second derivatives of an objective in y, written out: blocks of products of factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.analysis.forms.linear_terms import Factors, linear_terms, owned
from bilevelpy.ir import expr as ir
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.programs.derive import derivatives
from bilevelpy.lowering.programs.straight import inner

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder
    from bilevelpy.ir.types import Axis
    from bilevelpy.lowering.programs.compiled import Programs

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Block:
    """One linear term of ``f_yy v``: rows of y, columns of v, coefficients over labels."""

    rows: ir.VarRef
    columns: ir.VarRef
    row_labels: tuple[int, ...]
    column_labels: tuple[int, ...]
    factors: Factors
    axis_of: dict[int, Axis]

    @property
    def is_diagonal(self) -> bool:
        """Whether each entry of y meets itself alone."""
        return self.columns is self.rows and self.column_labels == self.row_labels

    @property
    def output(self) -> tuple[int, ...]:
        """The labels of the coefficients: those of the rows, then further ones of the columns."""
        return tuple(dict.fromkeys((*self.row_labels, *self.column_labels)))

    def product(self, builder: Builder) -> Expr:
        """The coefficients as an expression over :attr:`output`."""
        return builder.product(self.factors, self.output, self.axis_of)

    def add(self, H: Array, places: dict[tuple[str, str], torch.Tensor], value: Array) -> None:
        """Add the coefficients to the matrix."""
        rows = places[self.rows.level, self.rows.name].numpy()
        if self.is_diagonal:
            H[rows.reshape(-1), rows.reshape(-1)] += value.reshape(-1)
            return
        columns = places[self.columns.level, self.columns.name].numpy()
        output = self.output
        if len(output) == len(self.row_labels) + len(self.column_labels):
            # Variables lie in one piece each, so the block is a rectangle of the matrix.
            part = value.reshape(rows.size, columns.size)
            low, left = int(rows.flat[0]), int(columns.flat[0])
            H[low : low + rows.size, left : left + columns.size] += part
            return
        at, to = self.entries(places, value.shape)
        np.add.at(H, (at.reshape(-1), to.reshape(-1)), value.reshape(-1))

    def entries(
        self, places: dict[tuple[str, str], torch.Tensor], shape: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the coefficients, which have this shape, in the matrix."""
        output = self.output
        sizes = dict(zip(output, shape, strict=True))
        rows = places[self.rows.level, self.rows.name].numpy()
        columns = places[self.columns.level, self.columns.name].numpy()
        return (
            _spread(rows, self.row_labels, output, sizes),
            _spread(columns, self.column_labels, output, sizes),
        )


def second_blocks(oracle: Programs, objective: Expr) -> list[Block] | None:
    """The blocks of an objective's second derivative in y; None where it has another form."""
    builder = oracle.bound.program.builder
    first = derivatives(builder, objective, oracle.ys)
    if first is None:
        return None
    along = tuple(builder.var("along", f"{v.level}.{v.name}", v.axes) for v in oracle.ys)
    slope = builder.add([inner(builder, g, v) for g, v in zip(first, along, strict=True)])
    second = derivatives(builder, slope, oracle.ys)
    if second is None:
        return None
    blocks: list[Block] = []
    for y, root in zip(oracle.ys, second, strict=True):
        depends = _depends(root, frozenset(along))
        if not depends[root]:
            continue
        if not _is_linear(root, depends):
            return None
        labels = tuple(range(y.rank))
        terms = linear_terms(root, labels, depends, [y.rank])
        if terms is None:
            return None
        for found, v, v_labels in terms:
            factors = owned(builder, found)
            if len(set(v_labels)) < len(v_labels):
                return None
            axis_of = dict(zip(labels, y.axes, strict=True))
            axis_of |= dict(zip(v_labels, v.axes, strict=True))
            for node, ls in factors:
                axis_of |= dict(zip(ls, node.axes, strict=True))
            column = oracle.ys[along.index(v)]
            blocks.append(Block(y, column, labels, v_labels, factors, axis_of))
    return blocks


def _depends(root: Expr, along: frozenset[ir.VarRef]) -> dict[Expr, bool]:
    found: dict[Expr, bool] = {}
    for node in postorder(root):
        found[node] = node in along or any(found[c] for c in node.children)
    return found


def _is_linear(root: Expr, depends: dict[Expr, bool]) -> bool:
    """Whether the root is a sum of products with one direction each."""
    for node in postorder(root):
        if not depends[node] or isinstance(node, ir.VarRef | ir.Align):
            continue
        count = sum(depends[c] for c in node.children)
        if isinstance(node, ir.Apply):
            if node.function not in ("add", "neg") or count < len(node.operands):
                return False
        elif isinstance(node, ir.Einsum):
            if count != 1:
                return False
        elif not (isinstance(node, ir.Reduce) and node.function == "sum"):
            return False
    return True


def _spread(
    index: np.ndarray, labels: tuple[int, ...], output: tuple[int, ...], sizes: dict[int, int]
) -> np.ndarray:
    """Positions over the labels of a variable, repeated over those of a block."""
    order = [labels.index(s) for s in output if s in labels]
    moved = np.transpose(index, order)
    shape = [sizes[s] if s in labels else 1 for s in output]
    return np.broadcast_to(moved.reshape(shape), [sizes[s] for s in output])
