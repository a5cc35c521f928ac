"""The reference interpreter: every node of the IR in plain NumPy, float64.

It is independent of the compiled path and serves three needs: folding of data at binding,
evaluation of index expressions and conditions, and the yardstick of the compiled programs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bilevelpy.ir import expr as ir
from bilevelpy.ir.meanings import MEANING, EvaluationError
from bilevelpy.ir.program import Data, Extern
from bilevelpy.ir.sparse import DENSE_LIMIT, is_sparse
from bilevelpy.ir.walk import postorder

Array = np.ndarray[Any, np.dtype[Any]]


def evaluate(
    expr: ir.Expr,
    data: Data,
    env: Mapping[tuple[str, str], Any] | None = None,
    externs: Mapping[str, Extern] | None = None,
) -> Array:
    """The value of ``expr``.

    Parameters
    ----------
    expr
        Any expression of the program that ``data`` was bound to.
    data
        Sizes, labels, members and arrays.
    env
        ``(level, name)`` -> array of a variable; ``(level, constraint)`` -> array of a dual.
    externs
        Declarations of extern functions, needed where a call is repeated along iterators.

    Returns
    -------
    ndarray
        Of the sizes of ``expr.axes``: float64, integers for index nodes, booleans for comparisons.
    """
    return Interpreter(data, env, externs).value(expr)


class Interpreter:
    """Evaluates expressions over fixed data and variables, each shared node once."""

    def __init__(
        self,
        data: Data,
        env: Mapping[tuple[str, str], Any] | None = None,
        externs: Mapping[str, Extern] | None = None,
    ) -> None:
        self.data = data
        self.env = env or {}
        self.externs = externs or {}
        self._known: dict[ir.Expr, Any] = {}

    def value(self, expr: ir.Expr) -> Array:
        """The value of one expression, dense."""
        self.run([expr])
        return self._dense(expr, self._known[expr])

    def run(self, roots: Iterable[ir.Expr]) -> None:
        """Evaluate every node below the roots."""
        with np.errstate(all="ignore"):
            for node in postorder(roots):
                if node not in self._known:
                    self._known[node] = MEANING[type(node)](self, node)

    def known(self, node: ir.Expr) -> Any:
        """The value of a node that was evaluated before (possibly sparse)."""
        return self._known[node]

    # --- access ---------------------------------------------------------------------------------

    def size(self, axis: Any) -> int:
        """Length of an axis."""
        return self.data.sizes[axis]

    def shape(self, node: ir.Expr) -> tuple[int, ...]:
        """Sizes of a node's axes."""
        return tuple(self.data.sizes[a] for a in node.axes)

    def _dense(self, node: ir.Expr, value: Any) -> Array:
        if not is_sparse(value):
            return np.asarray(value)
        rows, columns = value.shape
        if rows * columns > DENSE_LIMIT:
            raise EvaluationError(
                node, f"a sparse matrix of {rows} x {columns} would have to be expanded here"
            )
        return np.asarray(value.toarray())

    def dense(self, node: ir.Expr) -> Array:
        """The dense value of an operand."""
        return self._dense(node, self._known[node])

    def real(self, node: ir.Expr) -> Array:
        """The dense value of an operand as float64."""
        return self.dense(node).astype(np.float64, copy=False)

    def positions(self, node: ir.Expr, size: int, user: ir.Expr) -> Array:
        """Values of an index expression as integers, checked to lie within ``size``."""
        raw = self.dense(node)
        index = raw.astype(np.int64)
        wrong = (index < 0) | (index >= size) | (index != raw)
        if wrong.any():
            place = tuple(int(k) for k in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
            raise EvaluationError(user, "index out of range", place, raw[place])
        return index
