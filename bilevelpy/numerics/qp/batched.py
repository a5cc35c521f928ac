"""Many small strictly convex quadratic programs at once.

Program k of B, with equations and two-sided rows (infinite ends hold nothing)::

    min_y  y' H_k y / 2 + c_k' y   s.t.  A_k y = b_k,   l_k <= G_k y <= u_k

First the rows that held the last solution are tried as equations: where that solves the conditions
of optimality the program is done, which is the usual case for parameters that move a little. The
others go through Mehrotra's predictor-corrector method (S. Mehrotra, SIAM J. Optim. 2, 1992) until
it tells which rows hold its limit; those as equations give the last digits. Where it told some of
them wrongly, rows with multipliers of the wrong sign leave and broken ones enter (the primal-dual
active set method: M. Hintermueller, K. Ito and K. Kunisch, SIAM J. Optim. 13, 2002).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# Steps of the interior method, and changes of what holds a solution after it, at most.
ITERATIONS, CHANGES = 60, 15
# Residuals of the conditions, relative to the sizes of their terms: of the interior method, and of
# what counts as solved.
LOOSE, TIGHT = 1e-7, 1e-9
# On the diagonal of systems with equations: dependent ones do not stop them.
RIDGE = 1e-12
# The part of the way to the boundary that a step may take.
BACK = 0.995


@dataclass(frozen=True, slots=True)
class Programs:
    """H (B, q, q), A (B, p, q) and b (B, p), G (B, m, q), low and high (B, m)."""

    H: Array
    c: Array
    A: Array
    b: Array
    G: Array
    low: Array
    high: Array

    def take(self, chosen: Array) -> Programs:
        """Some of the programs."""
        parts = (self.H, self.c, self.A, self.b, self.G, self.low, self.high)
        return Programs(*(part[chosen] for part in parts))


@dataclass(slots=True)
class Solutions:
    """y (B, q), multipliers of equations (B, p) and of rows (B, m): positive at an upper end,
    negative at a lower one. ``solved`` (B,) says where the conditions hold.
    """

    y: Array
    equations: Array
    rows: Array
    solved: Array

    def put(self, chosen: Array, other: Solutions) -> None:
        """Replace some."""
        for name in ("y", "equations", "rows", "solved"):
            getattr(self, name)[chosen] = getattr(other, name)


def solve(programs: Programs, guess: Array | None = None) -> Solutions:
    """Solve all programs; ``guess`` (B, m) holds -1, 0, 1: the end at which a row was tight."""
    count, q = programs.c.shape
    p, m = programs.A.shape[1], programs.G.shape[1]
    out = Solutions(
        np.zeros((count, q)),
        np.zeros((count, p)),
        np.zeros((count, m)),
        np.zeros(count, dtype=bool),
    )
    if guess is not None:
        out.put(np.arange(count), with_tight(programs, guess))
    left = np.flatnonzero(~out.solved)
    if not left.size:
        return out
    ends = _interior(programs.take(left))
    for _ in range(CHANGES):
        rest = programs.take(left)
        found = with_tight(rest, ends)
        out.put(left, found)
        wrong = np.flatnonzero(~found.solved)
        if not wrong.size:
            break
        ends = _other_ends(rest.take(wrong), ends[wrong], found.y[wrong], found.rows[wrong])
        left = left[wrong]
    return out


def _other_ends(programs: Programs, ends: Array, y: Array, multipliers: Array) -> Array:
    """Tight rows keep their end where their multiplier has its sign; broken ones become tight."""
    value = _times(programs.G, y)
    room = TIGHT * (1.0 + np.abs(value))
    kept = np.where(ends * multipliers > 0, ends, 0)
    fixed = programs.low == programs.high
    kept = np.where(fixed & (ends != 0), ends, kept)
    broken = np.where(value > programs.high + room, 1, np.where(value < programs.low - room, -1, 0))
    return np.asarray(np.where(kept != 0, kept, broken))


def with_tight(programs: Programs, ends: Array) -> Solutions:
    """The solutions with the rows marked in ``ends`` (-1, 1) as equations, and whether they solve
    the programs.
    """
    count, q = programs.c.shape
    p, m = programs.A.shape[1], programs.G.shape[1]
    most = int(np.abs(ends).sum(1).max(initial=0))
    # The marked rows of every program first, padded with others that are switched off.
    order = np.argsort(-np.abs(ends), axis=1, kind="stable")[:, :most]
    on = np.take_along_axis(ends, order, 1)
    rows = np.take_along_axis(programs.G, order[:, :, None], 1) * (on != 0)[:, :, None]
    both = np.take_along_axis(np.where(ends > 0, programs.high, programs.low), order, 1)
    C = np.concatenate([programs.A, rows], 1)
    rhs = np.concatenate([-programs.c, programs.b, np.where(on != 0, both, 0.0)], 1)
    solved = saddle(programs.H, C, rhs)
    y = solved[:, :q]
    multipliers = np.zeros((count, m))
    np.put_along_axis(multipliers, order, solved[:, q + p :] * (on != 0), 1)
    out = Solutions(y, solved[:, q : q + p], multipliers, np.zeros(count, dtype=bool))
    signs = np.where(ends > 0, multipliers, np.where(ends < 0, -multipliers, 0.0))
    size = np.abs(programs.c).max(1, initial=0.0) + np.abs(multipliers).max(1, initial=0.0) + 1e-300
    right = (signs >= -TIGHT * size[:, None]).all(1)
    out.solved = right & _holds(programs, out, TIGHT)
    return out


def saddle(H: Array, C: Array, rhs: Array) -> Array:
    """Solutions of ``[H C'; C 0] z = rhs``, refined; rows of zeros give 0. ``rhs`` is (B, q + k) or
    (B, q + k, columns).
    """
    if rhs.ndim == 2:
        return np.asarray(saddle(H, C, rhs[:, :, None])[:, :, 0])
    count, q = H.shape[:2]
    k = C.shape[1]
    size = np.maximum(np.abs(H).max((1, 2)), 1e-300)
    system = np.zeros((count, q + k, q + k))
    system[:, :q, :q] = H
    system[:, q:, :q] = C
    system[:, :q, q:] = C.transpose(0, 2, 1)
    exact = system.copy()
    ridge = RIDGE * size
    places = np.arange(q, q + k)
    norms = (C**2).sum(2)
    # A row of zeros gets a one, so that nothing is divided by the ridge alone.
    system[:, places, places] = np.where(norms > 0, -RIDGE * norms / size[:, None], -1.0)
    system[:, np.arange(q), np.arange(q)] += ridge[:, None]
    inverse = np.linalg.inv(system)
    z = inverse @ rhs
    for _ in range(2):
        z += inverse @ (rhs - exact @ z)
    return np.asarray(z)


def _holds(programs: Programs, s: Solutions, tol: float) -> Array:
    """Whether stationarity and rows hold, relative to the sizes of their terms."""
    Hy = _times(programs.H, s.y)
    forces = _back(programs.A, s.equations) + _back(programs.G, s.rows)
    rest = np.abs(Hy + programs.c + forces).max(1, initial=0.0)
    size = 1e-300 + np.maximum(
        np.abs(Hy).max(1, initial=0.0), np.abs(programs.c).max(1, initial=0.0)
    )
    value = _times(programs.G, s.y)
    reach = 1.0 + np.abs(s.y).max(1, initial=0.0)
    scale = np.abs(programs.G).max((1, 2), initial=0.0) * reach + 1e-300
    off = np.maximum(value - programs.high, programs.low - value).max(1, initial=0.0)
    scale_equation = np.abs(programs.A).max((1, 2), initial=0.0) * reach + 1e-300
    away = np.abs(_times(programs.A, s.y) - programs.b).max(1, initial=0.0)
    fine = (rest <= tol * size) & (off <= tol * scale) & (away <= tol * scale_equation)
    return np.asarray(fine & np.isfinite(s.y).all(1))


@dataclass(slots=True)
class _State:
    y: Array
    nu: Array
    up: Array
    down: Array
    z_up: Array
    z_down: Array


def _interior(programs: Programs) -> Array:
    """The ends (-1, 0, 1) at which the limits of Mehrotra's method hold the rows."""
    H, c, A, G = programs.H, programs.c, programs.A, programs.G
    has_up, has_down = np.isfinite(programs.high), np.isfinite(programs.low)
    high = np.where(has_up, programs.high, 0.0)
    low = np.where(has_down, programs.low, 0.0)
    pairs = np.maximum(has_up.sum(1) + has_down.sum(1), 1)
    s = _first(programs, has_up, has_down, high, low)
    q, p = c.shape[1], A.shape[1]
    done = np.zeros(c.shape[0], dtype=bool)
    for _ in range(ITERATIONS):
        value = _times(G, s.y)
        stationary = _times(H, s.y) + c + _back(A, s.nu) + _back(G, s.z_up - s.z_down)
        r_up = np.where(has_up, high - value - s.up, 0.0)
        r_down = np.where(has_down, low - value + s.down, 0.0)
        r_eq = programs.b - _times(A, s.y)
        mu = ((s.up * s.z_up).sum(1) + (s.down * s.z_down).sum(1)) / pairs
        done = _done(programs, s, stationary, r_up, r_down, r_eq, mu)
        # What is not finite (no solution) is told by the conditions in the end.
        done |= ~np.isfinite(mu)
        if done.all():
            break
        weight = s.z_up / s.up + s.z_down / s.down
        matrix = np.zeros((c.shape[0], q + p, q + p))
        matrix[:, :q, :q] = H + G.transpose(0, 2, 1) @ (weight[:, :, None] * G)
        matrix[:, q:, :q] = A
        matrix[:, :q, q:] = A.transpose(0, 2, 1)
        places = np.arange(q, q + p)
        norms = (A**2).sum(2)
        matrix[:, places, places] = np.where(norms > 0, -RIDGE * norms, -1.0)
        matrix[done] = np.eye(q + p)
        inverse = np.linalg.inv(matrix)

        def direction(
            c_up: Array, c_down: Array, inverse: Array = inverse, s: _State = s,
            residuals: tuple[Array, ...] = (stationary, r_up, r_down, r_eq),
        ) -> tuple[Array, ...]:  # fmt: skip
            rest, up, down, equal = residuals
            push = (c_up - s.z_up * up) / s.up - (c_down + s.z_down * down) / s.down
            rhs = np.concatenate([-rest - _back(G, push), equal], 1)
            step = (inverse @ rhs[:, :, None])[:, :, 0]
            dy, dnu = step[:, :q], step[:, q:]
            moved = _times(G, dy)
            d_up = np.where(has_up, up - moved, 0.0)
            d_down = np.where(has_down, moved - down, 0.0)
            dz_up = np.where(has_up, (c_up - s.z_up * d_up) / s.up, 0.0)
            dz_down = np.where(has_down, (c_down - s.z_down * d_down) / s.down, 0.0)
            return dy, dnu, d_up, d_down, dz_up, dz_down

        first = direction(-s.up * s.z_up, -s.down * s.z_down)
        t = _reach(s, first)[:, None]
        after = (
            ((s.up + t * first[2]) * (s.z_up + t * first[4]) * has_up).sum(1)
            + ((s.down + t * first[3]) * (s.z_down + t * first[5]) * has_down).sum(1)
        ) / pairs
        center = (np.clip(after / np.maximum(mu, 1e-300), 0.0, 1.0) ** 3 * mu)[:, None]
        step = direction(
            np.where(has_up, center - s.up * s.z_up - first[2] * first[4], 0.0),
            np.where(has_down, center - s.down * s.z_down - first[3] * first[5], 0.0),
        )
        t = np.where(done, 0.0, np.minimum(1.0, BACK * _reach(s, step, cap=10.0)))[:, None]
        s.y, s.nu = s.y + t * step[0], s.nu + t * step[1]
        s.up, s.down = s.up + t * step[2], s.down + t * step[3]
        s.z_up, s.z_down = s.z_up + t * step[4], s.z_down + t * step[5]
    ends = np.where(has_up & (s.z_up > s.up), 1, 0)
    return np.where(has_down & (s.z_down > s.down) & (s.z_down >= s.z_up), -1, ends)


def _first(programs: Programs, has_up: Array, has_down: Array, high: Array, low: Array) -> _State:
    """A start away from the boundary, on the scale of the data; what has no end has slack 1 and
    multiplier 0.
    """
    count, q = programs.c.shape
    middle = np.where(has_up & has_down, 0.5 * (high + low), np.where(has_up, high, low))
    room = np.where(has_up & has_down, 0.5 * (high - low), 1.0 + np.abs(middle))
    size = np.maximum(np.abs(room).max(1, initial=0.0), 1.0)[:, None]
    slack = np.maximum(room, 1e-2 * size)
    price = np.maximum(np.abs(programs.c).max(1, initial=0.0), 1.0)[:, None]
    return _State(
        np.zeros((count, q)),
        np.zeros((count, programs.A.shape[1])),
        np.where(has_up, slack, 1.0),
        np.where(has_down, slack, 1.0),
        np.where(has_up, price, 0.0),
        np.where(has_down, price, 0.0),
    )


def _done(
    programs: Programs, s: _State, stationary: Array, r_up: Array, r_down: Array, r_eq: Array,
    mu: Array,
) -> Array:  # fmt: skip
    size = 1.0 + np.abs(programs.c).max(1, initial=0.0)
    reach = 1.0 + np.abs(s.y).max(1, initial=0.0)
    off = np.maximum(np.abs(r_up).max(1, initial=0.0), np.abs(r_down).max(1, initial=0.0))
    off = np.maximum(off, np.abs(r_eq).max(1, initial=0.0))
    fine = (np.abs(stationary).max(1, initial=0.0) <= LOOSE * size) & (off <= LOOSE * reach)
    return np.asarray(fine & (mu <= LOOSE * size))


def _reach(s: _State, step: tuple[Array, ...], cap: float = 1.0) -> Array:
    """The largest step of every program that keeps slacks and multipliers nonnegative."""
    t = np.full(s.y.shape[0], cap)
    parts = ((s.up, step[2]), (s.down, step[3]), (s.z_up, step[4]), (s.z_down, step[5]))
    for at, d in parts:
        falling = d < 0
        share = np.where(falling, at / np.where(falling, -d, 1.0), np.inf)
        t = np.minimum(t, share.min(1, initial=np.inf))
    return t


def _times(matrix: Array, v: Array) -> Array:
    """``M_k v_k``."""
    return np.asarray((matrix @ v[:, :, None])[:, :, 0])


def _back(matrix: Array, v: Array) -> Array:
    """``M_k' v_k``."""
    return np.asarray((v[:, None, :] @ matrix)[:, 0, :])
