"""Hessians from their terms, where these read variables: ``Z(x)'D(x, y)Z(x)`` of linear models on
features that the upper level makes, kernel matrices ``K(x)``.

The second derivative of f along a direction is a sum of terms that are linear in it; without the
direction each is a block of f_yy, a product of few factors. That is one matrix product for a block,
where products with f_yy, one for each lower variable, pass over the same factors again and again.
Factors that no variable moves are multiplied once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.ir.walk import variables
from bilevelpy.lowering.hessians.curvature import FLOPS, OVERHEAD, STREAM
from bilevelpy.lowering.hessians.terms import Block
from bilevelpy.lowering.programs.memory import widest
from bilevelpy.lowering.programs.slots import sparse_node
from bilevelpy.lowering.programs.splitting import several

if TYPE_CHECKING:
    from bilevelpy.ir.expr import Expr
    from bilevelpy.lowering.programs.compiled import Programs

Array = np.ndarray[Any, np.dtype[np.float64]]

# Lower variables up to which the matrix is made, and blocks that are worth a program each.
LARGEST, BLOCKS = 3_000, 40


class AssembledHessian:
    """f_yy as the sum of its blocks."""

    def __init__(self, oracle: Programs, blocks: list[Block], roots: tuple[Expr, ...]) -> None:
        self._oracle, self._blocks, self._places = oracle, blocks, oracle.lower.positions()
        builder = oracle.bound.program.builder
        self._fixed = [k for k, root in enumerate(roots) if builder.is_data(root)]
        self._moving = [k for k in range(len(roots)) if k not in self._fixed]
        self._kept, self._program = (
            several(
                builder, oracle.program, tuple(roots[k] for k in which), oracle.program_variables
            )
            for which in (self._fixed, self._moving)
        )
        self._constant: Array | None = None
        # Whether the matrix moves with y: f is a quadratic in y otherwise.
        lower = {(v.level, v.name) for v in oracle.ys}
        self.reads_y = bool(variables(roots) & lower)
        m, width = oracle.m, widest(oracle.bound, (oracle.f_expr,))[0]
        made = OVERHEAD * len(self._moving) + 2.0 * max(width, m) * m / FLOPS
        # Rough seconds of a gradient and of a dense Hessian with its factor, by their sizes.
        self.work = OVERHEAD + 4.0 * width / STREAM, OVERHEAD + made + m**3 / 3 / FLOPS

    def dense(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The matrix at a point."""
        parts = self._oracle.parts(x, y)
        if self._constant is None:
            self._constant = np.zeros(self._shape())
            self._add(self._constant, self._fixed, self._kept(*parts))
        H = self._constant.copy()
        self._add(H, self._moving, self._program(*parts))
        return torch.from_numpy(0.5 * (H + H.swapaxes(-1, -2)))

    def _shape(self) -> tuple[int, ...]:
        return self._oracle.m, self._oracle.m

    def _add(self, H: Array, which: list[int], values: list[Any]) -> None:
        sizes = self._oracle.bound.data.sizes
        for k, value in zip(which, values, strict=True):
            block = self._blocks[k]
            shape = [sizes[block.axis_of[s]] for s in block.output]
            self._put(H, k, np.broadcast_to(np.asarray(value), shape))

    def _put(self, H: Array, k: int, value: Array) -> None:
        """Add the coefficients of one block."""
        self._blocks[k].add(H, self._places, value)


class MovingQuadratic:
    """``f = c(x) + b(x)'y + y'H(x)y / 2``: what a solver of quadratic programs asks for."""

    def __init__(self, oracle: Any, hessian: AssembledHessian) -> None:
        self._oracle, self._hessian = oracle, hessian

    def program(self, x: torch.Tensor) -> tuple[float, Array, Array, None]:
        """c, b, H and no diagonal beside it at x."""
        zero = torch.zeros_like(self._oracle.y0)
        c, b = self._oracle.value_grad_f(x, zero)
        return c, b.numpy(), self._hessian.dense(x, zero).numpy(), None


def assembled_hessian(oracle: Programs, blocks: list[Block]) -> AssembledHessian | None:
    """None where there are many lower variables or blocks, data are sparse or elsewhere, or an
    array on the way is larger than those of f and than the matrix.
    """
    if oracle.m > LARGEST or oracle.device.type != "cpu" or oracle.dtype is not torch.float64:
        return None
    if not 0 < len(blocks) <= BLOCKS:
        return None
    if any(sparse_node(node, oracle.tensors.sparse) for b in blocks for node, _ in b.factors):
        return None
    roots = tuple(block.product(oracle.bound.program.builder) for block in blocks)
    own = widest(oracle.bound, (oracle.f_expr,))[0]
    if widest(oracle.bound, roots)[0] > max(own, oracle.m**2):
        return None
    return AssembledHessian(oracle, blocks, roots)
