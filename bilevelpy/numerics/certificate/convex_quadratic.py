"""Global optimality where F(x, y(x)) is a convex quadratic: a bound from its own minimum."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve

from bilevelpy.numerics.wording import wording
from bilevelpy.result import Certificate

if TYPE_CHECKING:
    from bilevelpy.lowering.protocol import Oracle

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[np.float64]]

# Variables of either level up to which dy/dx and the curvatures of Phi cost next to nothing.
LARGEST = 600
# Curvatures below this part of the greatest one are rounding, as are slopes below this part of the
# terms that they are a sum of.
ROUNDING = 1e-12
# The gap of a proof, relative to F or to how far it has fallen from the start.
GAP = 1e-6


def globally(certificate: Certificate, oracle: Oracle, x: Vec, y: Vec) -> Certificate:
    """The certificate of a local optimum (x, y), as one of the global optimum where that follows.

    With both objectives quadratic in x and y together, f_yy positive definite and no bounds on y,
    ``y(x)`` is affine with ``R = dy/dx = -f_yy^-1 f_yx`` and Phi a quadratic with
    ``P = F_xx + F_xy R + R'F_yx + R'F_yy R``. Where P has no negative eigenvalue, all z within the
    bounds of x have

        Phi(z) >= Phi(x) - (p' P^+ p) / 2 - sum of g_i (x_i - bound_i),

    g being the gradient of Phi at x, p what is left of it without those entries that bounds hold,
    for which alone the sum stands. All of this is computed here anew.
    """
    gap = _gap(oracle, x, y)
    if gap is None or not gap[1] <= GAP:
        return certificate
    fall, relative = gap
    words = wording(oracle.F_sign)
    shape = "convex" if oracle.F_sign > 0 else "concave"
    proof = (
        f"proved: F(x, y(x)) is a {shape} quadratic in x and nowhere {words.better} by more than "
        f"{relative:.1e} (relative)"
    )
    bound = oracle.F_sign * (oracle.F(x, y) - fall)
    return replace(
        certificate,
        kind="global",
        reasons=(proof, *certificate.reasons),
        details={**certificate.details, "bound": bound, "gap": relative},
    )


def _gap(oracle: Any, x: Vec, y: Vec) -> tuple[float, float] | None:
    """How far Phi may lie below its value at x, absolute and relative; None where it has no such
    form, or no bound.
    """
    if not 0 < max(oracle.n, oracle.m) <= LARGEST:
        return None
    if not (oracle.domain_y.is_free and oracle.domain_x.is_box):
        return None
    if any(level.nash for level in oracle.bound.program.lowers):
        return None  # f is the sum of what the players minimise each for themselves
    known = getattr(oracle, "joint_quadratic", None)
    if known is None:
        return None
    try:
        factor = cho_factor(oracle.hessian(x, y).numpy(), lower=True)
    except (np.linalg.LinAlgError, ValueError):  # not positive definite, or not finite
        return None
    R = -cho_solve(factor, known.f_yx)
    at = y - torch.from_numpy(cho_solve(factor, oracle.grad_f(x, y).numpy()))
    P = known.reduced(R)
    if not (np.isfinite(P).all() and bool(torch.isfinite(at).all())):
        return None
    curvatures, axes = np.linalg.eigh((P + P.T) / 2.0)
    rounding = ROUNDING * float(np.abs(curvatures).max(initial=0.0))
    if curvatures.min(initial=0.0) < -rounding:
        return None
    F, F_x, F_y = oracle.value_grad_F(x, at)
    direct, through = F_x.numpy(), R.T @ F_y.numpy()
    left, held = _within_bounds(oracle, x.numpy(), direct + through)
    slopes = axes.T @ left
    flat = curvatures <= rounding
    size = float(np.linalg.norm(direct) + np.linalg.norm(np.abs(R.T) @ np.abs(F_y.numpy())))
    if (np.abs(slopes[flat]) > ROUNDING * size).any():
        return None  # it falls without end, as far as its curvature tells
    gap = held + 0.5 * float((slopes[~flat] ** 2 / curvatures[~flat]).sum())
    start = oracle.domain_x.project(oracle.x0)
    first = oracle.F(start, at + torch.from_numpy(R @ (start - x).numpy()))
    scale = max(abs(F), abs(first - F)) if math.isfinite(first) else abs(F)
    return gap, max(gap / max(scale, 1e-300), ROUNDING)


def _within_bounds(oracle: Oracle, x: Array, g: Array) -> tuple[Array, float]:
    """The gradient without the entries that bounds hold, and what these may gain on the way there.

    A bound that holds is met to rounding.
    """
    domain = oracle.domain_x
    room = np.where(g > 0.0, x - domain.lower.numpy(), domain.upper.numpy() - x)
    held = (g != 0.0) & (room <= ROUNDING * np.maximum(1.0, np.abs(x)))
    gain = float((np.abs(g[held]) * np.maximum(room[held], 0.0)).sum())
    return np.where(held, 0.0, g), gain
