"""Both objectives quadratic in x and y together: their second derivatives as matrices of data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.lowering.programs.derive import derivatives
from bilevelpy.lowering.programs.splitting import several
from bilevelpy.lowering.programs.straight import Product, inner

if TYPE_CHECKING:
    from bilevelpy.ir.expr import Expr, VarRef
    from bilevelpy.lowering.programs.compiled import Programs

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class JointQuadratic:
    """``f_yx`` (m, n), and of F the second derivatives ``xx`` (n, n), ``xy`` (n, m), ``yy`` (m, m),
    the same everywhere.
    """

    f_yx: Array
    xx: Array
    xy: Array
    yy: Array
    is_crossed: bool  # whether ``xy`` has an entry

    def reduced(self, R: Array) -> Array:
        """``Phi'' = F_xx + F_xy R + R'F_yx + R'F_yy R`` with ``R = dy/dx`` (m, n)."""
        xy, yy = self.xy, self.yy
        if np.count_nonzero(R[:, 0]) < len(R):
            moving = R.any(1)
            if np.count_nonzero(moving) < len(R):  # bounds hold the others
                R, xy, yy = R[moving], xy[:, moving], yy[moving][:, moving]
        found: Array = self.xx + R.T @ (yy @ R)
        if self.is_crossed:
            across = xy @ R
            found += across
            found += across.T
        return found


def are_jointly_quadratic(oracle: Programs) -> bool:
    """Whether f_yy, f_yx and F'' are the same everywhere, as far as rules for derivatives tell."""
    z = (*oracle.xs, *oracle.ys)
    lower = second_product(oracle, oracle.f_expr, oracle.ys, z)
    upper = second_product(oracle, oracle.F_expr, z, z)
    return all(p is not None and p.is_constant for p in (lower, upper))


def joint_quadratic(oracle: Programs) -> JointQuadratic | None:
    """The matrices, from a product with each unit direction; None where the objectives are not of
    this kind.
    """
    xs, ys, z = oracle.xs, oracle.ys, (*oracle.xs, *oracle.ys)
    mixed = second_product(oracle, oracle.f_expr, xs, ys)
    own = second_product(oracle, oracle.F_expr, z, z)
    if mixed is None or own is None or not (mixed.is_constant and own.is_constant):
        return None
    n, m, count = oracle.n, oracle.m, len(xs)
    zero, nothing = torch.zeros(n, dtype=oracle.dtype), torch.zeros(m, dtype=oracle.dtype)
    f_yx, F = np.empty((m, n), order="F"), np.empty((n + m, n + m))
    f_product, F_product = mixed.at([]), own.at([])
    for k, unit in enumerate(torch.eye(n, dtype=oracle.dtype)):
        parts = f_product(oracle.along_x(unit))
        f_yx[:, k] = oracle.joined(oracle.lower, parts, nothing).numpy()
    for k, unit in enumerate(torch.eye(n + m, dtype=oracle.dtype)):
        parts = F_product(oracle.parts(unit[:n], unit[n:]))
        F[:n, k] = oracle.joined(oracle.upper, parts[:count], zero).numpy()
        F[n:, k] = oracle.joined(oracle.lower, parts[count:], nothing).numpy()
    xx, xy, yy = (np.ascontiguousarray(part) for part in (F[:n, :n], F[:n, n:], F[n:, n:]))
    return JointQuadratic(f_yx, xx, xy, yy, bool(xy.any()))


def second_product(
    oracle: Programs,
    objective: Expr,
    by: Sequence[VarRef],
    of: Sequence[VarRef],
    beside: Sequence[VarRef] = (),
) -> Product | None:
    """``v -> d/d(of) <d objective/d(by), v>`` at values of the program's variables, and of those
    ``beside`` them; None where there is no rule.
    """
    builder = oracle.bound.program.builder
    first = derivatives(builder, objective, by)
    if first is None:
        return None
    along = tuple(builder.var("along", f"{v.level}.{v.name}", v.axes) for v in by)
    slope = builder.add([inner(builder, g, v) for g, v in zip(first, along, strict=True)])
    second = derivatives(builder, slope, of)
    if second is None:
        return None

    def point(kept: tuple[Expr, ...]) -> Callable[..., list[Any]]:
        return several(builder, oracle.program, kept, (*oracle.program_variables, *beside))

    return Product(builder, oracle.program, second, point, along)
