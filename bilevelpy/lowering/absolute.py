"""Lower objectives ``f(x, y) = s(x, y) + sum_j w_j(x) |y_j|`` with s smooth: the two parts, and the
same problem in positive and negative parts of y, where it is smooth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bilevelpy.errors import BackendError
from bilevelpy.ir import expr as ir
from bilevelpy.ir.atoms import ELEMENTWISE, REDUCTIONS
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.differentiate import gradient
from bilevelpy.lowering.domains import Block, ProductSet

Vec = Tensor

# Agreement of the kinked terms with weights times absolute values at random points.
SAME = 1e-10


def _has_kink(node: ir.Expr) -> bool:
    if isinstance(node, ir.Apply):
        return not ELEMENTWISE[node.function].smooth
    return isinstance(node, ir.Reduce) and not REDUCTIONS[node.function].smooth


class AbsoluteParts:
    """The parts of the lower objective of an oracle that has an expression for it."""

    def __init__(self, oracle: Any, smooth: ir.Expr, kinked: ir.Expr) -> None:
        self.oracle = oracle
        self._smooth, self._kinked = oracle.function((smooth,)), oracle.function((kinked,))

    def smooth(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """s and its gradient in y."""
        o = self.oracle
        o.counts.f += 1
        o.counts.grad_f += 1
        ys = o.lower.leaves(y)
        value = self._smooth(*o.upper.split(x), *ys)
        return value.item(), o.lower.join(gradient(value, ys), y)

    def kinked(self, x: Vec, y: Vec) -> float:
        """``sum w_j |y_j|``."""
        o = self.oracle
        value: Tensor = self._kinked(*o.upper.split(x), *o.lower.split(y))
        return value.item()

    def weights(self, x: Vec) -> Vec:
        """w: the slope of the kinked terms where every y is positive."""
        o = self.oracle
        ones = torch.ones(o.m, dtype=torch.float64)
        ys = o.lower.leaves(ones)
        found: Vec = o.lower.join(gradient(self._kinked(*o.upper.split(x), *ys), ys), ones)
        return found

    def check(self, x: Vec, rng: torch.Generator) -> bool:
        """Whether the kinked terms are what this class takes them for, with weights >= 0."""
        w = self.weights(x)
        if not bool((w >= 0).all()):
            return False
        for _ in range(2):
            y = torch.randn(self.oracle.m, generator=rng, dtype=torch.float64)
            expected = float(w @ y.abs())
            if not abs(self.kinked(x, y) - expected) <= SAME * max(abs(expected), 1e-300):
                return False
        return True


def absolute_parts(oracle: Any, x: Vec, rng: torch.Generator) -> AbsoluteParts | None:
    """The parts, or None where the lower objective has no kinks that show in its text.

    Raises
    ------
    BackendError
        Where there are kinks of another form.
    """
    root = getattr(oracle, "f_expr", None)
    if root is None:
        return None
    added = isinstance(root, ir.Apply) and root.function == "add"
    terms = list(root.operands) if added else [root]
    kinked = [t for t in terms if any(_has_kink(n) for n in postorder([t]))]
    if not kinked:
        return None
    builder = oracle.bound.program.builder
    smooth = builder.add([t for t in terms if t not in kinked] or [builder.const(0.0)])
    parts = AbsoluteParts(oracle, smooth, builder.add(kinked))
    if not oracle.domain_y.is_box or not parts.check(x, rng):
        raise BackendError(
            "the kinks of the lower objective must be terms `weight * abs(y)` of single lower "
            "variables in boxes, with weights >= 0 that depend on data and upper variables only"
        )
    return parts


class SplitOracle:
    """The problem in ``(p, q) >= 0`` with ``y = p - q``: smooth, ``w'(p + q)`` for ``w'|y|``.

    At a minimiser one of ``p_j``, ``q_j`` is 0 wherever ``w_j > 0``.
    """

    def __init__(self, parts: AbsoluteParts) -> None:
        o = parts.oracle
        self.parts, self.oracle = parts, o
        self.n, self.m, self.x0 = o.n, 2 * o.m, o.x0
        self.y0 = self.split(o.y0)
        self.domain_x, self.counts = o.domain_x, o.counts
        self.F_sign, self.f_sign = o.F_sign, o.f_sign
        high = torch.full((o.m,), math.inf, dtype=torch.float64)
        up = torch.where(o.domain_y.upper < math.inf, o.domain_y.upper.clamp(min=0.0), high)
        down = torch.where(o.domain_y.lower > -math.inf, (-o.domain_y.lower).clamp(min=0.0), high)
        zero = torch.zeros(2 * o.m, dtype=torch.float64)
        low = torch.cat([o.domain_y.lower.clamp(min=0.0), (-o.domain_y.upper).clamp(min=0.0)])
        block = Block("box", 0, 1, 2 * o.m, torch.maximum(zero, low), torch.cat([up, down]))
        self.domain_y = ProductSet([replace(block)], 2 * o.m)

    def split(self, y: Vec) -> Vec:
        """``(p, q)`` of y."""
        return torch.cat([y.clamp(min=0.0), (-y).clamp(min=0.0)])

    def join(self, z: Vec) -> Vec:
        """y of ``(p, q)``."""
        return z[: self.oracle.m] - z[self.oracle.m :]

    def F(self, x: Vec, z: Vec) -> float:
        """The upper objective."""
        value: float = self.oracle.F(x, self.join(z))
        return value

    def f(self, x: Vec, z: Vec) -> float:
        """The lower objective."""
        return self.value_grad_f(x, z)[0]

    def value_grad_F(self, x: Vec, z: Vec) -> tuple[float, Vec, Vec]:
        """F, dF/dx and dF/dz."""
        F, F_x, F_y = self.oracle.value_grad_F(x, self.join(z))
        return F, F_x, torch.cat([F_y, -F_y])

    def grad_F(self, x: Vec, z: Vec) -> tuple[Vec, Vec]:
        """(dF/dx, dF/dz)."""
        return self.value_grad_F(x, z)[1:]

    def value_grad_f(self, x: Vec, z: Vec) -> tuple[float, Vec]:
        """f and df/dz."""
        s, s_y = self.parts.smooth(x, self.join(z))
        w = self.parts.weights(x)
        size = z[: self.oracle.m] + z[self.oracle.m :]
        return s + float(w @ size), torch.cat([s_y + w, w - s_y])

    def grad_f(self, x: Vec, z: Vec) -> Vec:
        """df/dz."""
        return self.value_grad_f(x, z)[1]

    def grad_f_x(self, x: Vec, z: Vec) -> Vec:
        """df/dx: of s at y, and of the weights at ``p + q``."""
        y, m = self.join(z), self.oracle.m
        at_y: Vec = self.oracle.grad_f_x(x, y)
        slack = z[:m] + z[m:] - y.abs()
        if not bool(slack.any()):
            return at_y
        return at_y + self.slope_of_weights(x)(slack)

    def slope_of_weights(self, x: Vec) -> Callable[[Vec], Vec]:
        """``a -> d(w(x)'a)/dx`` for ``a >= 0``."""
        o = self.oracle

        def product(a: Vec) -> Vec:
            xs = o.upper.leaves(x)
            value = self.parts._kinked(*xs, *o.lower.split(a))
            found: Vec = o.upper.join(gradient(value, xs), x)
            return found

        return product
