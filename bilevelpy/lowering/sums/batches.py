"""Partitions of an axis into batches, and the rows of data that a batch holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.ir.expr import ParamRef
from bilevelpy.ir.mapped import is_mapped, release, rows_of
from bilevelpy.ir.program import Data
from bilevelpy.ir.sparse import is_sparse
from bilevelpy.lowering.sums.sampling import Sampled

Positions = slice | np.ndarray[Any, Any]

# Rows of files are read in runs of at least so many bytes.
RUN = 1 << 18


class Partition:
    """An axis of ``size`` elements cut into ``count`` batches of (almost) equal size.

    Parameters
    ----------
    size, batch
        Elements of the axis, and of a batch.
    run
        Elements that stay together: 1 in memory, more where single rows are dear to read.
    rng
        Shuffles the runs; None leaves them in order.
    """

    def __init__(
        self, size: int, batch: int, *, run: int = 1, rng: torch.Generator | None = None
    ) -> None:
        self.size, self.run = size, max(1, min(run, batch))
        runs = -(-size // self.run)
        self.count = max(1, min(round(size / max(1, batch)), runs))
        self._order = np.arange(runs)
        if rng is not None:
            self._order = torch.randperm(runs, generator=rng).numpy()
        self._ends = np.linspace(0, runs, self.count + 1).round().astype(np.int64)

    def __len__(self) -> int:
        return self.count

    def rows(self, j: int) -> Positions:
        """The positions of batch ``j``, in order; a slice where they are one stretch."""
        runs = np.sort(self._order[self._ends[j] : self._ends[j + 1]])
        if len(runs) and runs[-1] - runs[0] == len(runs) - 1:
            return slice(int(runs[0]) * self.run, min(int(runs[-1] + 1) * self.run, self.size))
        if self.run == 1:
            return runs
        found = (runs[:, None] * self.run + np.arange(self.run)).reshape(-1)
        return found[found < self.size]

    def share(self, j: int) -> float:
        """The fraction of the axis that batch ``j`` holds."""
        return length(self.rows(j)) / self.size


def length(rows: Positions) -> int:
    """How many positions there are."""
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)


class RowSource:
    """The data of a sampled sum, and its part for the rows of a batch."""

    def __init__(self, sampled: Sampled, data: Data, constants: Mapping[str, Any]) -> None:
        self.sampled = sampled
        whole = Data(
            data.sizes,
            data.labels,
            data.members,
            {**data.arrays, **constants},
            data.externs,
            data.origins,
        )
        self.arrays: dict[str, Any] = {}
        run: Interpreter | None = None
        for held in sampled.rows.values():
            if isinstance(held.source, ParamRef) and held.source.name in data.arrays:
                array = data.arrays[held.source.name]
            else:
                run = run or Interpreter(whole)
                array = run.value(held.source)
            if is_sparse(array):
                # Columns are cut out of a matrix that is stored column by column.
                array = array.tocsc() if held.dim == 1 else array.tocsr()
            self.arrays[held.name] = array
        self.whole = whole
        self.mapped = any(is_mapped(a) for a in self.arrays.values())

    @property
    def row_bytes(self) -> int:
        """Bytes of an element of the axis, in float64."""
        size = max(1, self.whole.sizes[self.sampled.axis])
        entries = sum(int(a.nnz if is_sparse(a) else a.size) for a in self.arrays.values())
        return max(1, 8 * entries // size)

    @property
    def stored_row_bytes(self) -> int:
        """Bytes of an element of the axis as they lie in files; 0 where nothing does."""
        size = max(1, self.whole.sizes[self.sampled.axis])
        return sum(int(a.nbytes) for a in self.arrays.values() if is_mapped(a)) // size

    def data(self, rows: Positions) -> Data:
        """The data with the rows of a batch in the place of the axis."""
        arrays = dict(self.whole.arrays)
        for name, array in self.arrays.items():
            arrays[name] = self._taken(array, self.sampled.rows[name].dim, rows)
        index = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        arrays[self.sampled.index] = index
        sizes = {**self.whole.sizes, self.sampled.batch: len(index)}
        w = self.whole
        return Data(sizes, w.labels, w.members, arrays, w.externs, w.origins)

    def _taken(self, array: Any, dim: int, rows: Positions) -> Any:
        if is_sparse(array):
            return array[rows] if dim == 0 else array[:, rows].tocsr()
        if is_mapped(array) and dim == 0:
            return rows_of(array, rows)
        taken = array[(*(slice(None) for _ in range(dim)), rows)]
        if is_mapped(array):
            taken = np.array(taken)
            release(array)
        return taken
