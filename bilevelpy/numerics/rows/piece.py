"""The piece of the response on which what holds it stays the same, and the moves of x that end it.

With the rows A that hold the response y(x), the variables F that no bound holds, multipliers l and
``L = f + l'c``, the response moves along

    [ H_FF  A_F' ] [R]     [ L_yx ]
    [ A_F    0   ] [S] = - [ A_x  ]        R = dy/dx,  S = dl/dx,

as long as free variables and open rows keep away from their ends, and what holds keeps pushing:
rows ``ahead + slopes d >= 0`` in the move d of x. Where f is quadratic in both levels together, and
the rows affine, they are the critical region of parametric quadratic programming (A. Bemporad, M.
Morari, V. Dua and E. N. Pistikopoulos, Automatica 38, 2002), and F is smooth within it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.numerics.cones.meeting import derivatives
from bilevelpy.numerics.cones.sequential_rows import Within
from bilevelpy.numerics.qp.rows import Held, Sides
from bilevelpy.numerics.qp.saddle import saddle

if TYPE_CHECKING:
    from bilevelpy.numerics.rows.response import ConstrainedLower

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """``R = dy/dx`` (m, n) on the piece of ``sides``, its ends, and what crosses each: a member
    (rows first, bounds behind) that changes to the side ``after``.
    """

    R: Array
    sides: Sides
    within: Within
    member: Array
    after: Array

    def crossed(self, ends: Array) -> Sides:
        """What holds the response beyond some of the ends (their places)."""
        both = np.concatenate([self.sides.rows, self.sides.bounds])
        both[self.member[ends]] = self.after[ends]
        count = len(self.sides.rows)
        return Sides(both[:count], both[count:])


def piece_of(
    solver: ConstrainedLower, x: Vec, held: Held, H: Array, sides: Sides | None = None
) -> Piece | None:
    """The piece at a response, of what holds it or, at a kink, of other ``sides`` that hold it as
    well; None where these leave the response open.
    """
    o, sides = solver.oracle, held.sides if sides is None else sides
    y, rows = torch.from_numpy(held.y), solver.rows(x)
    prices = torch.from_numpy(held.rows[: o.g.size].copy())
    mixed = _mixed(solver, x, y, prices)
    values, c_x, _ = derivatives(o.g, x, y)
    A_x = np.concatenate([c_x.numpy(), np.zeros((len(rows.low) - o.g.size, o.n))])
    free = np.flatnonzero(sides.bounds == 0)
    active = np.flatnonzero((sides.rows != 0) | rows.equal)
    solved = saddle(H, rows.A, free, active, -mixed[free], -A_x[active])
    if solved is None:
        return None
    R, S = np.zeros((o.m, o.n)), np.zeros((len(rows.low), o.n))
    R[free], S[active] = solved
    pulls = -(H @ R + mixed + rows.A[active].T @ S[active])
    count = len(rows.low)
    open_rows = np.setdiff1d(np.arange(count), active)
    held_rows = np.flatnonzero((sides.rows != 0) & ~rows.equal)
    low = free[np.isfinite(rows.floor[free])]
    high = free[np.isfinite(rows.roof[free])]
    stuck = np.flatnonzero((sides.bounds != 0) & (rows.floor < rows.roof))
    push = sides.bounds[stuck]
    at = held.y
    ahead = [
        -values.numpy()[open_rows], held.rows[held_rows], at[low] - rows.floor[low],
        rows.roof[high] - at[high], push * held.bounds[stuck],
    ]  # fmt: skip
    slopes = [
        -(A_x + rows.A @ R)[open_rows], S[held_rows], R[low], -R[high],
        push[:, None] * pulls[stuck],
    ]  # fmt: skip
    member = [open_rows, held_rows, count + low, count + high, count + stuck]
    after = [
        np.ones(open_rows.size), np.zeros(held_rows.size), -np.ones(low.size), np.ones(high.size),
        np.zeros(stuck.size),
    ]  # fmt: skip
    within = Within(np.concatenate(ahead), np.concatenate(slopes))
    return Piece(R, sides, within, np.concatenate(member), np.concatenate(after))


def _mixed(solver: ConstrainedLower, x: Vec, y: Vec, prices: Vec) -> Array:
    """``L_yx`` (m, n)."""
    o = solver.oracle
    both, second = getattr(o, "joint_quadratic", None), getattr(o, "second_order", None)
    check = getattr(o, "check_deadline", lambda: None)
    at = None if second is None else second.at(x, y, torch.zeros_like(y), check)
    if both is not None:
        found: Array = both.f_yx
    elif at is not None:
        found = at.f_yx()
    else:
        cross, eye = o.cross(x, y), torch.eye(o.m, dtype=torch.float64)
        found = torch.stack([cross(e) for e in eye]).numpy()
    if o.g.size and solver.rows_move:
        twice = o.g.twice(x, y, prices)
        found = found + torch.stack([twice(e) for e in torch.eye(o.m, dtype=torch.float64)]).numpy()
    return found
