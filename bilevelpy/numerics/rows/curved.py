"""A lower level with rows and an added curvature: its response moves smoothly where that of a
nearly linear objective jumps from vertex to vertex::

    y_c(x) = argmin f(x, y) + c/2 |y - y0|^2,    c -> 0
"""

from __future__ import annotations

from typing import Any

import torch

Vec = torch.Tensor


class CurvedOracle:
    """``oracle`` with ``c/2 |y - y0|^2`` added to f; everything else is forwarded.

    Derivatives in x, and products of mixed ones, are those of f: the term does not read x. It is
    for :class:`~bilevelpy.numerics.rows.response.ConstrainedLower` and what is built on that, which
    ask for values, gradients, Hessians and mixed products alone.
    """

    def __init__(self, oracle: Any, strength: float, centre: Vec) -> None:
        self._oracle, self._strength, self._centre = oracle, strength, centre

    def __getattr__(self, name: str) -> Any:
        return getattr(self._oracle, name)

    def f(self, x: Vec, y: Vec) -> float:
        """The lower objective with the term."""
        d = y - self._centre
        return float(self._oracle.f(x, y)) + 0.5 * self._strength * float(d @ d)

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """The same, and its gradient in y."""
        f, g = self._oracle.value_grad_f(x, y)
        d = y - self._centre
        return f + 0.5 * self._strength * float(d @ d), g + self._strength * d

    def hessian(self, x: Vec, y: Vec) -> Vec:
        """f_yy + c I."""
        found: Vec = self._oracle.hessian(x, y).clone()
        found.diagonal().add_(self._strength)
        return found
