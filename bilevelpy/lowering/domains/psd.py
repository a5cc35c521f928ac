"""The cone of positive semidefinite matrices: projection, its derivative, tangent cones and faces.

With ``Y = Q diag(l) Q'`` the projection is ``P(Y) = Q diag(max(l, 0)) Q'`` and its derivative
(R. A. Horn and C. R. Johnson, Topics in Matrix Analysis, 1991, section 6.6)::

    P'(Y)[V] = Q (Omega * (Q' V Q)) Q',   Omega_ij = (max(l_i, 0) - max(l_j, 0)) / (l_i - l_j)

At a solution Y of ``min f`` over the cone with gradient G (``Y G = 0``, ``G >= 0``) let the columns
of N span the null space of Y. Where the multiplier holds all of it, the response stays on the
matrices of the same rank, whose tangent space is ``{V : N' V N = 0}``; along it the second
derivative of f gains ``<V, C V>`` with ``C V = G V Y^+ + Y^+ V G`` (J. F. Bonnans and A. Shapiro,
Perturbation Analysis of Optimization Problems, 2000, section 5.3.3). Matrices are flattened row by
row; only their symmetric parts count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

Vec = torch.Tensor

# Eigenvalues below this fraction of the largest are zero: a projection leaves rounding there.
ZERO = 1e-11
# Differences of eigenvalues below this fraction of the largest count as none.
EQUAL = 1e-14


def symmetric(rows: Vec, side: int) -> Vec:
    """Flattened matrices (last axis) as symmetric ones of shape (..., side, side)."""
    matrix = rows.reshape(*rows.shape[:-1], side, side)
    return 0.5 * (matrix + matrix.transpose(-1, -2))


class _Projection(torch.autograd.Function):
    """The projection of symmetric matrices with its first derivative."""

    @staticmethod
    def forward(ctx: Any, matrix: Vec) -> Vec:
        values, vectors = torch.linalg.eigh(matrix)
        ctx.save_for_backward(values, vectors)
        out: Vec = (vectors * values.clamp(min=0.0).unsqueeze(-2)) @ vectors.transpose(-1, -2)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Vec) -> Vec:
        values, vectors = ctx.saved_tensors
        back = vectors.transpose(-1, -2)
        inner = back @ grads[0] @ vectors
        out: Vec = vectors @ (loewner(values) * inner) @ back
        return out


def loewner(values: Vec) -> Vec:
    """``Omega`` of eigenvalues (last axis). Where two are equal it is the derivative of ``max(l,
    0)``, one half at zero: one element of the generalised derivative.
    """
    a, b = values.unsqueeze(-1), values.unsqueeze(-2)
    gap = a - b
    top = values.abs().amax(-1, keepdim=True).unsqueeze(-1).clamp(min=1e-300)
    same = gap.abs() <= EQUAL * top
    middle = 0.5 * (a + b)
    limit = torch.where(middle > 0, 1.0, torch.where(middle < 0, 0.0, 0.5)).to(values.dtype)
    quotient = (a.clamp(min=0.0) - b.clamp(min=0.0)) / torch.where(same, torch.ones_like(gap), gap)
    return torch.where(same, limit, quotient)


def project(rows: Vec, side: int) -> Vec:
    """Euclidean projection of flattened matrices (last axis) onto the cone."""
    matrix = symmetric(rows, side)
    out: Vec = _Projection.apply(matrix)
    return out.reshape(rows.shape)


@dataclass(frozen=True, slots=True)
class PsdFace:
    """Matrices of one block on a face of the cone, each (count, side, side).

    ``null`` projects onto the null spaces, ``loose`` onto the parts of them that may grow; the
    tangent space is ``{V : null V null = loose V loose}``. ``multiplier`` and ``inverse`` (the
    pseudo-inverse) give the curvature.
    """

    start: int
    stop: int
    side: int
    null: Vec
    loose: Vec
    multiplier: Vec
    inverse: Vec

    def project(self, v: Vec) -> Vec:
        """Orthogonal projection of entries (last axis) onto the tangent space."""
        matrix = self._matrices(v)
        blocked = self.null @ matrix @ self.null - self.loose @ matrix @ self.loose
        return (matrix - blocked).flatten(-3)

    def bend(self, v: Vec) -> Vec:
        """``C v``."""
        half = self.multiplier @ self._matrices(v) @ self.inverse
        return (half + half.transpose(-1, -2)).flatten(-3)

    def _matrices(self, v: Vec) -> Vec:
        count = self.null.shape[0]
        return symmetric(v.reshape(*v.shape[:-1], count, self.side**2), self.side)


def face(
    start: int, rows: Vec, gradient: Vec, side: int, slack: float, tol: float
) -> tuple[PsdFace, int]:
    """The face on which the matrices in ``rows`` stay when they follow minus the gradient, and how
    many eigenvalues lie on it with a multiplier of (almost) zero.

    ``slack``: multipliers of at least minus this hold. ``tol``: the same relative to the block's
    own gradient, below which a multiplier is weak.
    """
    matrices, slopes = symmetric(rows, side).numpy(), symmetric(gradient, side).numpy()
    shape = matrices.shape
    null, loose, multiplier, inverse = (np.zeros(shape) for _ in range(4))
    weak = 0
    for k in range(shape[0]):
        values, vectors = np.linalg.eigh(matrices[k])
        zero = values <= ZERO * max(float(np.abs(values).max(initial=0.0)), 1e-300)
        own, outside = vectors[:, zero], vectors[:, ~zero]
        inverse[k] = (outside / values[~zero]) @ outside.T
        null[k] = own @ own.T
        if not own.shape[1]:
            continue
        prices, turns = np.linalg.eigh(own.T @ slopes[k] @ own)
        held = prices >= -slack
        # A multiplier counts as none on the scale of its own block too.
        weak += int((held & (np.abs(prices) <= max(slack, tol * np.abs(slopes[k]).max()))).sum())
        turned = own @ turns
        free, kept = turned[:, ~held], turned[:, held]
        loose[k] = free @ free.T
        multiplier[k] = (kept * np.maximum(prices[held], 0.0)) @ kept.T
    made = (torch.from_numpy(a) for a in (null, loose, multiplier, inverse))
    return PsdFace(start, start + shape[0] * side**2, side, *made), weak


def projected_gradient(rows: Vec, gradient: Vec, side: int) -> Vec:
    """Minus the projection of minus the gradient onto the tangent cone ``{V : N' V N >= 0}``."""
    matrices, slopes = symmetric(rows, side).numpy(), symmetric(gradient, side).numpy().copy()
    for k in range(slopes.shape[0]):
        values, vectors = np.linalg.eigh(matrices[k])
        zero = values <= ZERO * max(float(np.abs(values).max(initial=0.0)), 1e-300)
        own = vectors[:, zero]
        if own.shape[1]:
            prices, turns = np.linalg.eigh(own.T @ slopes[k] @ own)
            turned = own @ turns
            slopes[k] -= (turned * np.maximum(prices, 0.0)) @ turned.T
    return torch.from_numpy(slopes).reshape(rows.shape)


def longest_step(rows: Vec, direction: Vec, side: int) -> float:
    """The largest t with ``Y + t V`` in the cone, for V that keeps the null spaces' side: only the
    positive eigenvalues are looked at, the projection sees to the rest.
    """
    reach = math.inf
    moves = symmetric(direction, side).numpy()
    for matrix, move in zip(symmetric(rows, side).numpy(), moves, strict=True):
        values, vectors = np.linalg.eigh(matrix)
        some = values > ZERO * max(float(np.abs(values).max(initial=0.0)), 1e-300)
        if some.any():
            half = vectors[:, some] / np.sqrt(values[some])
            lowest = float(np.linalg.eigvalsh(half.T @ move @ half)[0])
            reach = min(reach, -1.0 / lowest) if lowest < 0 else reach
    return reach
