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

from bilevelpy.numerics.cones.nearest_feasible import derivatives
from bilevelpy.numerics.cones.sequential_rows import Within
from bilevelpy.numerics.qp.rows import Held, Rows, Sides
from bilevelpy.numerics.qp.saddle import saddle

if TYPE_CHECKING:
    from bilevelpy.numerics.rows.response import ConstrainedLower

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

# Newton's steps to the response beyond an end, and the one at which it counts as found.
CORRECTIONS, CORRECTED = 6, 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """``R = dy/dx`` (m, n) and ``S = dl/dx`` on the piece of ``sides``, its ends, and what crosses
    each: a member (rows first, bounds behind) that changes to the side ``after``.
    """

    R: Array
    S: Array
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
    slopes = [
        -(A_x + rows.A @ R)[open_rows], S[held_rows], R[low], -R[high],
        push[:, None] * pulls[stuck],
    ]  # fmt: skip
    member = [open_rows, held_rows, count + low, count + high, count + stuck]
    after = [
        np.ones(open_rows.size), np.zeros(held_rows.size), -np.ones(low.size), np.ones(high.size),
        np.zeros(stuck.size),
    ]  # fmt: skip
    both, behind = np.concatenate(member), np.concatenate(after)
    ahead = _ahead(sides, both, behind, rows, values.numpy(), held)
    return Piece(R, S, sides, Within(ahead, np.concatenate(slopes)), both, behind)


def _ahead(
    sides: Sides, member: Array, after: Array, rows: Rows, values: Array, held: Held
) -> Array:
    """How far the ends are away: slacks of open rows and of free variables, what the others push
    with. ``values`` are those of the rows of the model.
    """
    count, found = len(rows.low), np.zeros(len(member))
    open_rows, held_rows = (member < count) & (after != 0), (member < count) & (after == 0)
    low, high = (member >= count) & (after < 0), (member >= count) & (after > 0)
    stuck = (member >= count) & (after == 0)
    column = member - count
    found[open_rows] = -values[member[open_rows]]
    found[held_rows] = held.rows[member[held_rows]]
    found[low] = (held.y - rows.floor)[column[low]]
    found[high] = (rows.roof - held.y)[column[high]]
    found[stuck] = (sides.bounds * held.bounds)[column[stuck]]
    return found


def ahead_at(solver: ConstrainedLower, piece: Piece, held: Held, move: Vec, x: Vec) -> Array | None:
    """How far the ends of a piece are away at x, ``move`` from the response of ``held``, with what
    holds it there: beyond an end it goes on as if there were none. None where that has no solution.
    """
    o, sides, rows = solver.oracle, piece.sides, solver.rows(x)
    d = move.numpy()
    y, prices = held.y + piece.R @ d, held.rows + piece.S @ d
    free = np.flatnonzero(sides.bounds == 0)
    active = np.flatnonzero((sides.rows != 0) | rows.equal)
    size = float(np.abs(held.y).max(initial=0.0))
    for _ in range(CORRECTIONS):
        at = torch.from_numpy(y)
        pull = o.value_grad_f(x, at)[1].numpy() + rows.A.T @ prices
        off = (rows.A @ y - rows.high)[active]
        if not np.isfinite(pull).all():
            return None
        solved = saddle(solver.hessian(x, at), rows.A, free, active, -pull[free], -off)
        if solved is None:
            return None
        y, prices = y.copy(), prices.copy()
        y[free] += solved[0]
        prices[active] += solved[1]
        if float(np.abs(solved[0]).max(initial=0.0)) <= CORRECTED * size:
            break
    at = torch.from_numpy(y)
    pull = o.value_grad_f(x, at)[1].numpy() + rows.A.T @ prices
    moved = Held(y, prices, -pull, held.sides)
    return _ahead(sides, piece.member, piece.after, rows, o.g.values(x, at).numpy(), moved)


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
