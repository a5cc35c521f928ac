"""Lower objectives ``f(x, y) = s(x, y) + sum_j w_j(x) |y_j|`` with s smooth: the two parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from bilevelpy.errors import BackendError
from bilevelpy.ir import expr as ir
from bilevelpy.ir.atoms import ELEMENTWISE, REDUCTIONS
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.programs.differentiate import gradient

Vec = Tensor

# Agreement of the kinked terms with weights times absolute values at random points.
SAME = 1e-10


@lru_cache(maxsize=128)
def _parted(root: ir.Expr) -> tuple[list[ir.Expr], list[ir.Expr]]:
    """The terms of an objective without kinks, and those with some; every run asks."""
    terms: Sequence[ir.Expr] = [root]
    if isinstance(root, ir.Apply) and root.function == "add":
        terms = root.operands
    kinked = [t for t in terms if shows_kinks(t)]
    return [t for t in terms if t not in kinked], kinked


def shows_kinks(term: ir.Expr) -> bool:
    """Whether an expression has atoms with kinks; squares of hinges have one derivative."""
    nodes = list(postorder([term]))
    squared = {n.operands[0] for n in nodes if isinstance(n, ir.Apply) and _is_square(n)}
    return any(_has_kink(n) and n not in squared for n in nodes)


def _is_square(node: ir.Apply) -> bool:
    if node.function == "pow":
        return isinstance(node.operands[1], ir.Const) and node.operands[1].value >= 2
    return node.function == "square"


def _has_kink(node: ir.Expr) -> bool:
    if isinstance(node, ir.Apply):
        return not ELEMENTWISE[node.function].smooth
    return isinstance(node, ir.Reduce) and not REDUCTIONS[node.function].smooth


class AbsoluteParts:
    """The parts of the lower objective of an oracle that has an expression for it."""

    def __init__(self, oracle: Any, smooth: ir.Expr, kinked: ir.Expr) -> None:
        self.oracle = oracle
        self._smooth, self._kinked = oracle.function((smooth,)), oracle.function((kinked,))
        self._at: tuple[Vec, Vec] | None = None

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
        """w: the slope of the kinked terms where every y is positive; the last one is kept."""
        if self._at is not None and torch.equal(self._at[0], x):
            return self._at[1]
        o = self.oracle
        ones = torch.ones(o.m, dtype=torch.float64)
        ys = o.lower.leaves(ones)
        found: Vec = o.lower.join(gradient(self._kinked(*o.upper.split(x), *ys), ys), ones)
        self._at = (x.clone(), found)
        return found

    def slope_of_weights(self, x: Vec, a: Vec) -> Vec:
        """``d(w(x)'a)/dx``."""
        o = self.oracle
        out = torch.zeros_like(x)
        for sign in (1.0, -1.0):
            part = (sign * a).clamp(min=0.0)
            if bool(part.any()):
                xs = o.upper.leaves(x)
                value = self._kinked(*xs, *o.lower.split(part))
                out = out + sign * o.upper.join(gradient(value, xs), x)
        return out

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
    if not isinstance(root, ir.Expr):
        return None
    smooth, kinked = _parted(root)
    if not kinked:
        return None
    builder = oracle.bound.program.builder
    smooth = builder.add(smooth or [builder.const(0.0)])
    parts = AbsoluteParts(oracle, smooth, builder.add(kinked))
    if not oracle.domain_y.is_box or not parts.check(x, rng):
        raise BackendError(
            "the kinks of the lower objective must be terms `weight * abs(y)` of single lower "
            "variables in boxes, with weights >= 0 that depend on data and upper variables only"
        )
    return parts
