"""Upper variables that are the strengths of penalties, each lower variable having at most one.

Then one product with f_yx has all of its entries, whatever the numbers of variables, and the
diagonal of f_yy says how strong the penalties are beside the rest of f::

    s_i(x_i) = h_i  at  x_i = c_i,    h = the rest of the diagonal
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.lowering.hessians.penalties import growth
from bilevelpy.lowering.hessians.sparsity import linear_map

if TYPE_CHECKING:
    from bilevelpy.lowering.hessians.structured import StructuredHessian
    from bilevelpy.lowering.programs.compiled import Programs
    from bilevelpy.lowering.programs.straight import Product

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[np.float64]]
# At ``(x, y)``, for each lower variable that has a penalty.
Entries = Callable[[Vec, Vec], Array]

# What is left of the diagonal without penalties counts at least as this part of its mean: the data
# of a variable may be zeros.
LEAST = 1e-3


class SinglePenalties:
    """The rates of growth of the penalties, (n,), and where they are as strong as the rest of f."""

    def __init__(
        self, f_yx: Entries, f_yy: Entries, places: tuple[Array, Array], rates: Array
    ) -> None:
        self.rates = rates
        self._f_yx, self._f_yy = f_yx, f_yy
        self._rows, self._owner = places

    @classmethod
    def of(
        cls, oracle: Programs, mixed: Product, hessian: StructuredHessian
    ) -> SinglePenalties | None:
        """By the product f_yx; None where some upper variable is no penalty, or two of them meet in
        a lower one.
        """
        o = oracle
        builder, data = o.bound.program.builder, o.bound.data
        pattern = linear_map(builder, data, mixed.roots, mixed.along, values=False)
        if pattern is None or int(np.diff(pattern.indptr).max(initial=0)) > 1:
            return None
        rows, owner = pattern.nonzero()
        every = torch.ones(o.n, dtype=torch.float64)

        def f_yx(x: Vec, y: Vec) -> Array:
            o.counts.jvp += 1
            found = mixed.at(o.parts(x, y))(o.along_x(every))
            entries: Array = o.joined(o.lower, found, y).numpy()[rows]
            return entries

        def f_yy(x: Vec, y: Vec) -> Array:
            diagonal: Array = hessian.diagonal(x, y).numpy()[rows]
            return diagonal

        rates = growth(f_yx, owner, o.x0, o.m)
        return None if np.isnan(rates).any() else cls(f_yx, f_yy, (rows, owner), rates)

    def beside(self, x: Vec, y: Vec) -> tuple[Array, Array]:
        """``c`` and ``y'hy``, (n,) both, by the second derivatives at a point: one pass over the
        data.
        """
        at, rate, owner, n = x.numpy(), self.rates, self._owner, len(self.rates)
        with np.errstate(divide="ignore", invalid="ignore"):
            # f_yx at y = 1 is s'(x), which is the rate times s, or s / x where s is linear.
            slopes = self._f_yx(x, torch.ones_like(y))
            grown = np.where(rate == 0.0, at, 1.0 / rate)
            rest = np.maximum(self._f_yy(x, y) - slopes * grown[owner], 0.0)
            rest = np.maximum(rest, LEAST * float(rest.mean()))
            h, unit = (np.bincount(owner, v, n) for v in (rest, slopes))
            centre = np.where(rate == 0.0, h / unit, at + np.log(h / (unit * grown)) / rate)
            size = np.bincount(owner, rest * y.numpy()[self._rows] ** 2, n)
        return centre, size.astype(np.float64)
