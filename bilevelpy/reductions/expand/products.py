"""The terms of a product of tensors, entry by entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.ir import expr as ir
from bilevelpy.ir.sparse import is_sparse
from bilevelpy.ir.walk import place
from bilevelpy.reductions.refusal import refuse

if TYPE_CHECKING:
    from bilevelpy.reductions.expand.expander import Expander

Array = np.ndarray[Any, np.dtype[Any]]

# Entries of a product that are looked at one by one; the memory is some 100 bytes each.
ENTRY_LIMIT = 20_000_000


class Entries:
    """The terms of a product: for each, its value and where its labels stand."""

    def __init__(self, run: Expander, node: ir.Einsum) -> None:
        self.run, self.node = run, node
        self.sizes: dict[int, int] = {}
        for operand, labels in zip(node.operands, node.subscripts, strict=True):
            self.sizes.update(zip(labels, run.interpreter.shape(operand), strict=True))
        self.values: Array = np.ones(1)
        self.place: dict[int, Array] = {}

    def multiply(self, value: Any, labels: tuple[int, ...]) -> None:
        """Multiply by data; terms that become zero are dropped."""
        if is_sparse(value) and not self.place:
            coo = value.tocoo()
            keep = coo.row == coo.col if labels[0] == labels[1] else np.ones(coo.nnz, dtype=bool)
            self.values = self.values[0] * coo.data[keep]
            self.place = {labels[0]: coo.row[keep].astype(np.int64)}
            self.place[labels[1]] = coo.col[keep].astype(np.int64)
            return
        dense = np.asarray(value.toarray() if is_sparse(value) else value, dtype=np.float64)
        self.extend(labels)
        index = tuple(self.place[s] for s in labels)
        self.values = self.values * (dense[index] if labels else float(dense))
        keep = self.values != 0.0
        if not keep.all():
            self.values = self.values[keep]
            self.place = {s: p[keep] for s, p in self.place.items()}

    def extend(self, labels: tuple[int, ...]) -> None:
        """Let every term run over labels that it does not have yet."""
        for label in dict.fromkeys(labels):
            if label in self.place:
                continue
            old, size = self.values.size, self.sizes[label]
            if old * size > ENTRY_LIMIT:
                raise refuse(
                    self.run.bound.program,
                    "BLV0706",
                    place(self.node),
                    "this product",
                    hint="formats that keep tensors (json, latex) take the model as it is",
                    count=f"{old * size:,}",
                    limit=f"{ENTRY_LIMIT:,}",
                )
            self.values = np.repeat(self.values, size)
            self.place = {s: np.repeat(p, size) for s, p in self.place.items()}
            self.place[label] = np.tile(np.arange(size), old)

    def position(self, labels: tuple[int, ...]) -> Array:
        """Where each term stands in a tensor with these labels, row by row."""
        position = np.zeros(self.values.size, dtype=np.int64)
        for label in labels:
            position = position * self.sizes[label] + self.place[label]
        return position


def entries_of(run: Expander, node: ir.Einsum) -> tuple[Entries, list[int]]:
    """The terms of a product and the operands that columns move."""
    entries = Entries(run, node)
    moving: list[int] = []
    given: list[tuple[Any, tuple[int, ...]]] = []
    for k, (operand, labels) in enumerate(zip(node.operands, node.subscripts, strict=True)):
        if run.bound.program.builder.is_data(operand):
            given.append((run.known(operand), labels))
            continue
        constant = run.constant_of(operand)
        if constant is None:
            moving.append(k)
        else:
            given.append((constant, labels))
    for value, labels in sorted(given, key=lambda g: not is_sparse(g[0])):
        entries.multiply(value, labels)
    for k in moving:
        entries.extend(node.subscripts[k])
    entries.extend(node.output)
    return entries, moving
