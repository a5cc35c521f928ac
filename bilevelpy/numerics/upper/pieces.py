"""Quadratic upper levels on quadratic lower ones with bounds: Phi is quadratic in pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs

from bilevelpy.numerics.qp.working_set import Program, WorkingSet

if TYPE_CHECKING:
    from bilevelpy.lowering.hessians.joint_quadratic import JointQuadratic
    from bilevelpy.numerics.lower.quadratic import QuadraticLower
    from bilevelpy.numerics.lower.response import Point

Array = np.ndarray[Any, np.dtype[np.float64]]
# Variables of either level up to which a piece, a column of dy/dx for each upper one, costs no
# more than the steps that it saves.
LARGEST = 600
# Pieces that are remembered.
KEPT = 20
# Steps in a row that were shortened, after which the pieces around count too.
PATIENCE = 2
# Points in a row on one piece after which the others' steps are taken to end in it.
SETTLED = 3
# Pieces that exceed Phi by no more than this fraction of it do so by rounding.
TIED = 1e-11
# Distances from where a step was to end, relative to x, that count as having made it.
FULL = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """``Phi(x) = F + g'd + d'Bd / 2`` with ``d = x - at``, on one face of the lower level."""

    at: Array
    F: float
    g: Array
    B: Array

    def value_slope(self, x: Array) -> tuple[float, Array]:
        """Of this quadratic at any x."""
        d = x - self.at
        Bd = self.B @ d
        return self.F + float(d @ self.g) + 0.5 * float(d @ Bd), self.g + Bd


class InPieces:
    """Steps to the minimiser of the piece that the response lies on::

        B = [I R'] F'' [I; R],     R = dy/dx = -f_yy^-1 f_yx on the face, 0 in its rows outside

    A whole step passes over many kinks, and over local minima between them. Where the search
    shortens one step after another, the run is between pieces, and the step goes to the minimiser
    of the largest of those nearby (the bundle-Newton method of L. Luksan and
    J. Vlcek, Mathematical Programming 83, 1998)::

        min_d  max_i (q_i + s_i'd) + d'Bd / 2

    with values q_i, not above Phi, and slopes s_i of the pieces at x.

    Off, it leaves the steps to others until they have come to a piece whose minimiser lies on it:
    a local minimiser of Phi.
    """

    def __init__(
        self, known: JointQuadratic, lower: QuadraticLower, low: Array, high: Array
    ) -> None:
        self.known, self.lower, self.low, self.high = known, lower, low, high
        self._pieces: dict[bytes, Piece] = {}
        # Whether its steps are those of the run; whether it has made one.
        self.is_on, self.has_stepped = True, False
        self._short = 0
        # The face of the latest points of a run that is left to others, and their number.
        self._settled: tuple[bytes, int] = (b"", 0)
        self._goal: Array | None = None

    def step(self, point: Point, g: Array, free: np.ndarray | None) -> Array | None:
        """x less the minimiser; None where B is not positive definite, and where it is off and has
        not settled.
        """
        if not (self.is_on or self._has_settled(point)):
            return None
        x = point.x.numpy()
        if self._goal is not None:
            largest = np.maximum.reduce
            made = largest(np.abs(x - self._goal)) <= FULL * largest(np.abs(x))
            self._short, self._goal = 0 if made else self._short + 1, None
        own = self._piece(point)
        if own is None:
            return None
        where = slice(None) if free is None else np.flatnonzero(free)
        B = own.B[where][:, where]
        factor, failed = dpotrf(B, lower=1, clean=0) if len(B) else (B, 1)
        if failed:
            return None
        between = self.is_on and self._short >= PATIENCE and len(self._pieces) > 1
        if between:
            found = self._between(own, x, point.F, g[where], where, factor)
        else:
            found = dpotrs(factor, g[where], lower=1)[0]
        out = np.zeros_like(g)
        out[where] = found
        if not self.is_on:
            return out if self._is_inside(x - out) else None
        self._goal, self.has_stepped = x - out, True
        return out

    def collect(self, trial: Callable[[], Point]) -> None:
        """The piece on which a step was too long is one of those to step between."""
        if self.is_on:
            self._piece(trial())

    def _has_settled(self, point: Point) -> bool:
        """Whether the latest points lie on one piece."""
        face = _face(point)
        self._settled = (face, self._settled[1] + 1 if face == self._settled[0] else 1)
        return self._settled[1] >= SETTLED

    def _is_inside(self, x: Array) -> bool:
        """Whether the response at x lies on the piece of the latest point, and x in its set."""
        return bool((x >= self.low).all() and (x <= self.high).all()) and self.lower.stays(x)

    def _piece(self, point: Point) -> Piece | None:
        """The piece of a point, which becomes the newest one."""
        face = _face(point)
        old = self._pieces.pop(face, None)
        if old is None:
            R = self.lower.columns_on(point, self.known.f_yx)
            if R is None:
                return None
            B = self.known.reduced(R)
            if len(self._pieces) >= KEPT:
                self._pieces.pop(next(iter(self._pieces)))
        else:
            B = old.B
        found = Piece(point.x.numpy(), point.F, point.g.numpy(), B)
        self._pieces[face] = found
        return found

    def _between(
        self, own: Piece, x: Array, F: float, g: Array, where: Any, factor: Array
    ) -> Array:
        """The step of the largest of the pieces, by its dual: weights of the slopes."""
        gaps, slopes = [0.0], [g]
        for piece in self._pieces.values():
            if piece is not own:
                value, slope = piece.value_slope(x)
                if value <= F + TIED * abs(F):
                    gaps.append(min(value - F, 0.0))
                    slopes.append(slope[where])
        G = np.array(slopes)
        half = dpotrs(factor, np.asfortranarray(G.T), lower=1)[0]
        K = G @ half
        # Weights add up to 1: the same program, where slopes are parallel too.
        K += float(K.diagonal().max())
        K.reshape(-1)[:: len(K) + 1] += 1e-12 * float(K.diagonal().max())
        count = len(K)
        weights = WorkingSet(np.zeros(count), np.full(count, np.inf), np.ones((1, count)))
        found = weights.solve(Program(K, None, -np.array(gaps)))
        w = np.eye(count)[0] if found is None else found.y
        step: Array = half @ w
        return step

    def reset(self) -> None:
        """The pieces are right whatever a step led to."""

    def carried(self) -> dict[str, Any]:
        """The pieces, and how the latest steps went."""
        pieces = [
            (np.frombuffer(key, dtype=np.uint8), p.at, p.F, p.g, p.B)
            for key, p in self._pieces.items()
        ]
        return {
            "pieces": pieces,
            "short": self._short,
            "on": self.is_on,
            "goal": self._goal,
            "stepped": self.has_stepped,
            "settled": (np.frombuffer(self._settled[0], dtype=np.uint8), self._settled[1]),
        }

    def restore(self, known: Mapping[str, Any], oracle: Any) -> None:
        """As they were."""
        n = oracle.n
        self._pieces = {}
        for key, at, F, g, B in known["pieces"]:
            if at.shape != (n,) or g.shape != (n,) or B.shape != (n, n):
                raise ValueError("a piece is of another size")
            self._pieces[key.tobytes()] = Piece(at, float(F), g, B)
        self._short, self.is_on, self._goal = int(known["short"]), bool(known["on"]), known["goal"]
        if self._goal is not None and self._goal.shape != (n,):
            raise ValueError("the end of a step is of another size")
        if not isinstance(known["on"], bool):
            raise ValueError("it is neither on nor off")
        self.has_stepped = bool(known["stepped"])
        face, count = known["settled"]
        self._settled = (face.tobytes(), int(count))


def _face(point: Point) -> bytes:
    """The free variables of the lower level at a point."""
    free = point.lower.face.free
    return b"" if free is None else free.numpy().tobytes()
