"""Global optimality where F(x, y(x)) is a convex quadratic: a bound from its own minimum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve

from bilevelpy.numerics.certificate.resolve import Resolver
from bilevelpy.numerics.wording import wording
from bilevelpy.result import Certificate

if TYPE_CHECKING:
    from bilevelpy.lowering.oracle import TorchOracle

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[np.float64]]

# Variables of either level up to which matrices cost next to nothing, and upper ones for each of
# which the hypergradient is computed once more where there are more of the others.
LARGEST, FEW = 600, 60
# Curvatures below this part of the greatest one are rounding, as are slopes below this part of the
# terms that they are a sum of. Of differences of hypergradients less is known.
ROUNDING, SURE = 1e-12, 1e-6
# The gap of a proof, relative to F or to how far it has fallen from the start.
GAP = 1e-6


@dataclass(frozen=True, slots=True)
class _Reduced:
    """Phi around x: its value, gradient g and second derivatives P. Slopes up to ``noise`` count as
    none where P has no curvature, which it has from ``least`` on; below 0, P has to have some
    everywhere.
    """

    value: float
    gradient: Array
    P: Array
    least: float
    noise: float


def globally(certificate: Certificate, oracle: TorchOracle, x: Vec, y: Vec) -> Certificate:
    """The certificate of a local optimum (x, y), as one of the global optimum where that follows.

    With both objectives quadratic in x and y together, f_yy positive definite and no bounds on y,
    ``y(x)`` is affine with ``R = dy/dx = -f_yy^-1 f_yx`` and Phi a quadratic with
    ``P = F_xx + F_xy R + R'F_yx + R'F_yy R``. Where P has no negative eigenvalue, all z within the
    bounds of x have

        Phi(z) >= Phi(x) - (p' P^+ p) / 2 - sum of g_i (x_i - bound_i),

    g being the gradient of Phi at x, p what is left of it without those entries that bounds hold,
    for which alone the sum stands. All of this is computed here anew: by matrices, or, with few
    upper variables, from one more hypergradient for each of them.
    """
    reduced = _reduced(oracle, x, y)
    gap = None if reduced is None else _gap(reduced, oracle, x.numpy())
    if reduced is None or gap is None or not gap[1] <= GAP:
        return certificate
    fall, relative = gap
    words = wording(oracle.F_sign)
    shape = "convex" if oracle.F_sign > 0 else "concave"
    proof = (
        f"proved: F(x, y(x)) is a {shape} quadratic in x and nowhere {words.better} by more than "
        f"{relative:.1e} (relative)"
    )
    bound = oracle.F_sign * (reduced.value - fall)
    return replace(
        certificate,
        kind="global",
        reasons=(proof, *certificate.reasons),
        details={**certificate.details, "bound": bound, "gap": relative},
    )


def _reduced(oracle: TorchOracle, x: Vec, y: Vec) -> _Reduced | None:
    """Phi where it is a quadratic; None where it has no such form, or one that costs too much."""
    if not (oracle.n and oracle.m and oracle.domain_y.is_free and oracle.domain_x.is_box):
        return None
    if any(level.nash for level in oracle.bound.program.lowers):
        return None  # f is the sum of what the players minimise each for themselves
    if max(oracle.n, oracle.m) <= LARGEST and oracle.joint_quadratic is not None:
        return _by_matrices(oracle, x, y)
    if oracle.n <= FEW and oracle.is_jointly_quadratic:
        return _by_differences(oracle, x, y)
    return None


def _by_matrices(oracle: TorchOracle, x: Vec, y: Vec) -> _Reduced | None:
    """From R; None where f_yy is not positive definite."""
    known = oracle.joint_quadratic
    assert known is not None
    try:
        factor = cho_factor(oracle.hessian(x, y).numpy(), lower=True)
    except (np.linalg.LinAlgError, ValueError):  # not positive definite, or not finite
        return None
    R = -cho_solve(factor, known.f_yx)
    at = y - torch.from_numpy(cho_solve(factor, oracle.grad_f(x, y).numpy()))
    F, F_x, F_y = oracle.value_grad_F(x, at)
    direct, through, P = F_x.numpy(), F_y.numpy(), known.reduced(R)
    size = np.linalg.norm(direct) + np.linalg.norm(np.abs(R.T) @ np.abs(through))
    greatest = float(np.abs(P).max(initial=0.0)) * len(P)
    return _Reduced(F, direct + R.T @ through, P, ROUNDING * greatest, ROUNDING * float(size))


def _by_differences(oracle: TorchOracle, x: Vec, y: Vec) -> _Reduced | None:
    """From hypergradients a step along each axis away, which are exact but for their own errors."""
    solver = Resolver(oracle, x, y, torch.Generator().manual_seed(0))
    base = solver.answer(x, y)
    if base is None or base.adjoint.negative_curvature or base.lower.negative_curvature:
        return None
    length = max(1.0, float(x.abs().max()))
    P = np.empty((oracle.n, oracle.n))
    for k, axis in enumerate(torch.eye(oracle.n, dtype=x.dtype)):
        beside = solver.answer(x + length * axis, base.lower.y, base)
        if beside is None:
            return None
        P[k] = (beside.gradient - base.gradient).numpy() / length
    greatest = float(np.abs(P).max(initial=0.0)) * len(P)
    # A curvature that differences do not resolve may be negative.
    return _Reduced(base.value, base.gradient.numpy(), P, SURE * greatest, -1.0)


def _gap(phi: _Reduced, oracle: TorchOracle, x: Array) -> tuple[float, float] | None:
    """How far Phi may lie below its value at x, absolute and relative; None where it is not convex,
    or has no bound that its curvature tells of.
    """
    P = (phi.P + phi.P.T) / 2.0
    if not (np.isfinite(P).all() and np.isfinite(phi.gradient).all()):
        return None
    left, held = _within_bounds(oracle, x, phi.gradient)
    twice = _twice_the_fall(P, left, phi)
    if twice is None:
        return None
    gap = held + 0.5 * twice
    away = oracle.domain_x.project(oracle.x0).numpy() - x
    fallen = float(phi.gradient @ away + 0.5 * away @ P @ away)
    scale = max(abs(phi.value), abs(fallen), 1e-300)
    gap = max(gap, ROUNDING * scale)
    return gap, gap / scale


def _twice_the_fall(P: Array, slope: Array, phi: _Reduced) -> float | None:
    """``p'P^+ p`` for the slope p; None where P has a negative eigenvalue, or 0 along a slope."""
    try:
        factor = cho_factor(P - phi.least * np.eye(len(P)), lower=True)
    except np.linalg.LinAlgError:
        pass
    else:  # P itself has larger eigenvalues, and the fall is less
        return float(slope @ cho_solve(factor, slope))
    curvatures, axes = np.linalg.eigh(P)
    along, flat = axes.T @ slope, curvatures <= phi.least
    if curvatures[0] < -phi.least or (np.abs(along[flat]) > phi.noise).any():
        return None
    return float((along[~flat] ** 2 / curvatures[~flat]).sum())


def _within_bounds(oracle: TorchOracle, x: Array, g: Array) -> tuple[Array, float]:
    """The gradient without the entries that bounds hold, and what these may gain on the way there.

    A bound that holds is met to rounding.
    """
    domain = oracle.domain_x
    room = np.where(g > 0.0, x - domain.lower.numpy(), domain.upper.numpy() - x)
    held = (g != 0.0) & (room <= ROUNDING * np.maximum(1.0, np.abs(x)))
    gain = float((np.abs(g[held]) * np.maximum(room[held], 0.0)).sum())
    return np.where(held, 0.0, g), gain
