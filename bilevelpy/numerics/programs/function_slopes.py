"""Values and derivatives of scalar functions, prepared for many points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from bilevelpy.reductions.rows import Functions

Array = np.ndarray[Any, np.dtype[Any]]


class FunctionSlopes:
    """Functions and their derivatives by the ``free`` columns, those of trees by the chain rule."""

    def __init__(self, functions: Functions, free: Array) -> None:
        self.functions, self.free = functions, free
        self.linear = functions.linear[:, free].toarray()
        self.quadratic = {r: sp.csr_array(q[free]) for r, q in functions.quadratic.items()}
        # Whether there are no kinks, which have no derivative.
        self.is_smooth = not any(
            functions.tree(r).has_kinks(free.tolist()) for r in functions.trees
        )

    def value(self, v: Array) -> Array:
        """The values at a point; errors of arithmetic where one has none."""
        return self.functions.value(v)

    def jacobian(self, v: Array) -> Array:
        """The derivatives of all functions by the free columns, one row each."""
        total = np.array(self.linear)
        for r, q in self.quadratic.items():
            total[r] += q @ v
        for r in self.functions.trees:
            total[r] += self.functions.tree(r).gradient(v)[self.free]
        return total
