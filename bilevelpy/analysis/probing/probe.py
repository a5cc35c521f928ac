"""What a bound model shows at points: extreme curvatures, failures of convexity, and
counterexamples to assumptions.

Everything here is seen, not proved, except for eigenvalues of a Hessian that the text shows to be
constant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bilevelpy.analysis.probing.eigenvalues import FACTOR, least_eigenvalue
from bilevelpy.analysis.probing.flat import hidden_directions
from bilevelpy.system.deadline import check

Vec = np.ndarray

# A Hessian of this size is decomposed instead of probed where one says much: 500 products and 0.1 s
# at most; where it moves with y at many points, the smaller ones are.
DENSE, MOVING = 500, 125
LANCZOS_STEPS = 15
# Besides the start.
RANDOM_POINTS = 3
# Pairs of lower points for the monotonicity of the gradient, at distances over three orders of
# magnitude.
PAIRS = 12
# Ritz values above -SINGULAR * L and below SINGULAR * L count as zero.
SINGULAR = 1e-6
# Eigenvalues of a decomposed Hessian are exact to this times its size and norm.
ROUNDING = 1e-13
# Relative rounding of a difference of gradients.
NOISE = 1e-9


class ProbeOracle(Protocol):
    """The functions of a bound model that probing needs, on NumPy vectors; both levels are
    minimisations.

    ``sample_x`` draws an upper point, ``sample_y`` a lower one, both inside their domains;
    ``hessian`` is the dense f_yy, called for few variables only. Where there is a ``slope_F(x, y)``
    too, the gradient of F in y, flat directions of f are compared with it.
    """

    n: int
    m: int
    x0: Vec
    y0: Vec

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """The gradient of f in y."""
        ...

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """The map v -> f_yy v."""
        ...

    def hessian(self, x: Vec, y: Vec) -> Vec:
        """The dense f_yy."""
        ...

    def sample_x(self, rng: np.random.Generator) -> Vec:
        """An upper point."""
        ...

    def sample_y(self, x: Vec, rng: np.random.Generator, scale: float) -> Vec:
        """A lower point at a distance of about ``scale`` from the start."""
        ...


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Extreme curvatures at one point: exact eigenvalues (``exact``) or Ritz values, and whether f
    is curved in every direction, beyond rounding.
    """

    low: float
    high: float
    exact: bool
    x: Vec
    y: Vec
    definite: bool


@dataclass(frozen=True, slots=True)
class Witness:
    """Two lower points at which f curves downwards: ``slope`` is (g(a) - g(b))'(a - b) / |a - b|^2
    < 0.
    """

    slope: float
    x: Vec
    a: Vec
    b: Vec


@dataclass(frozen=True, slots=True)
class Probe:
    """Everything that was seen: ``spectra`` (the start first), the pair of points with the lowest
    slope, the number of flat directions of f, where F is flat along all of them, and the curvatures
    where f_yy is ``least``, if they are a modulus.
    """

    spectra: tuple[Spectrum, ...]
    witness: Witness | None
    steepest: float
    hidden: int = 0
    least: Spectrum | None = None

    @property
    def low(self) -> float | None:
        """The least curvature seen."""
        return min((s.low for s in self.spectra), default=None)

    @property
    def high(self) -> float | None:
        """The greatest curvature seen."""
        return max((s.high for s in self.spectra), default=None)

    @property
    def lowest(self) -> Spectrum | None:
        """The point of the least curvature."""
        return min(self.spectra, key=lambda s: s.low, default=None)

    @property
    def negative(self) -> bool:
        """Whether curvature below zero was seen, beyond rounding."""
        if self.witness is not None:
            return True
        return any(s.low < -SINGULAR * max(abs(s.high), abs(s.low)) for s in self.spectra)

    @property
    def singular(self) -> bool:
        """Whether a direction without curvature was seen."""
        return any(abs(s.low) <= SINGULAR * max(abs(s.high), abs(s.low)) for s in self.spectra)


def lanczos(
    product: Callable[[Vec], Vec], size: int, rng: np.random.Generator
) -> tuple[float, float, bool]:
    """Extreme Ritz values of a symmetric operator after 15 steps with full reorthogonalisation.

    Returns the lowest value, the highest, and whether they are exact (the Krylov space became
    invariant with all of its dimensions).
    """
    basis: list[Vec] = []
    diagonal: list[float] = []
    beside: list[float] = []
    vector = rng.standard_normal(size)
    vector /= np.linalg.norm(vector)
    for _ in range(min(LANCZOS_STEPS, size)):
        check()
        basis.append(vector)
        image = product(vector)
        diagonal.append(float(image @ vector))
        stacked = np.array(basis)
        for _ in range(2):  # once more than the theory, for rounding
            image = image - stacked.T @ (stacked @ image)
        norm = float(np.linalg.norm(image))
        if norm <= 1e-10 * max(1e-300, max(abs(d) for d in diagonal)):
            break
        beside.append(norm)
        vector = image / norm
    inner = (
        np.diag(diagonal)
        + np.diag(beside[: len(diagonal) - 1], 1)
        + np.diag(beside[: len(diagonal) - 1], -1)
    )
    values = np.linalg.eigvalsh(inner)
    return float(values[0]), float(values[-1]), len(basis) == size


def spectrum(
    oracle: ProbeOracle, x: Vec, y: Vec, rng: np.random.Generator, dense: bool, factor: bool = False
) -> Spectrum | None:
    """Extreme curvatures at a point; None where they are not finite. With ``factor`` the least one
    is bounded from below by factors, where it is positive.
    """
    if dense:
        hessian = oracle.hessian(x, y)
        if not np.isfinite(hessian).all():
            return None
        values = np.linalg.eigvalsh((hessian + hessian.T) / 2)
        low, high = float(values[0]), float(values[-1])
        return Spectrum(low, high, True, x, y, _is_definite(hessian, low, high))
    least = least_eigenvalue(oracle.hessian(x, y)) if factor else 0.0
    product = oracle.hvp(x, y)
    image = product(rng.standard_normal(y.size))
    if not np.isfinite(image).all():
        return None
    low, high, exact = lanczos(product, y.size, rng)
    if least > 0.0:
        return Spectrum(least, high, True, x, y, least > SINGULAR * high)
    # A few steps come near to no end of a spectrum; slack variables have rows of zeros in it, which
    # a random product shows.
    if low > 0.0 and (image == 0.0).any():
        low, exact = 0.0, False
    return Spectrum(low, high, exact, x, y, low > SINGULAR * high)


def _is_definite(hessian: Vec, low: float, high: float) -> bool:
    """Whether it has curvature in every direction, in units of the variables that suit it: those of
    features may lie apart by many orders of magnitude.
    """
    own = hessian.diagonal()
    if low > SINGULAR * high or not own.size or own.min() <= 0.0:
        return low > SINGULAR * high
    root = np.sqrt(own)
    return bool(np.linalg.eigvalsh(hessian / root / root[:, None])[0] > SINGULAR)


@np.errstate(over="ignore", invalid="ignore")  # points where f is not finite show nothing
def probe(
    oracle: ProbeOracle,
    rng: np.random.Generator,
    *,
    constant: bool,
    curvature: bool,
    settled: bool = False,
    quadratic: bool = False,
    corner: Vec | None = None,
) -> Probe:
    """Look at the start and at random points.

    ``constant`` says that one point tells everything; without ``curvature`` (f has kinks) only
    gradients are used; ``quadratic`` says that f_yy does not move with y, so that each of its
    matrices is that of a whole lower problem; ``settled`` says that the text answers everything but
    the condition number, for which the start is enough: on large data each product counts.
    So it is where f_yy is definite at the ``corner``, where it is least.
    """
    if oracle.m == 0:
        return Probe((), None, 0.0)
    least = None
    if corner is not None and oracle.m <= FACTOR:
        least = spectrum(oracle, corner, oracle.y0, rng, dense=oracle.m <= DENSE, factor=True)
        if least is not None and least.exact and least.low > ROUNDING * oracle.m * least.high:
            settled = True
        else:
            least = None
    points = [(oracle.x0, oracle.y0)]
    if not constant and not settled:
        for _ in range(RANDOM_POINTS):
            x = oracle.sample_x(rng)
            points.append((x, oracle.sample_y(x, rng, 1.0)))
    found: list[Spectrum] = []
    large = oracle.m > DENSE
    dense = DENSE if constant or quadratic else MOVING
    factor = quadratic and not constant and not settled and large and oracle.m <= FACTOR
    if curvature:
        for x, y in points:
            check()
            seen = spectrum(oracle, x, y, rng, dense=oracle.m <= dense, factor=factor)
            if seen is not None:
                found.append(seen)
            if large and Probe(tuple(found), None, 0.0).negative:
                break  # other points would say the same of a network, for many passes each
    hidden = 0
    slope = getattr(oracle, "slope_F", None)
    if slope is not None and found and found[0].exact and not found[0].definite and not settled:
        start = found[0]
        while len(points) <= RANDOM_POINTS:
            points.append((start.x, oracle.sample_y(start.x, rng, 1.0)))
        hidden = hidden_directions(oracle.hessian(start.x, start.y), slope, points)
    negative = large and Probe(tuple(found), None, 0.0).negative
    if settled or (constant and found) or negative:
        steepest = max((s.high for s in found), default=0.0)
        return Probe(tuple(found), None, steepest, hidden, least)
    witness, steepest = _monotonicity(oracle, rng)
    return Probe(tuple(found), witness, steepest, hidden)


def _monotonicity(oracle: ProbeOracle, rng: np.random.Generator) -> tuple[Witness | None, float]:
    """The pair of lower points with the lowest slope of the gradient if that is negative; and the
    highest slope.
    """
    worst: Witness | None = None
    steepest = 0.0
    for k in range(PAIRS):
        check()
        x = oracle.x0 if k < 2 else oracle.sample_x(rng)
        scale = (0.1, 1.0, 10.0)[k % 3]
        a, b = oracle.sample_y(x, rng, scale), oracle.sample_y(x, rng, scale)
        step = a - b
        length = float(step @ step)
        if length == 0:
            continue
        first, second = oracle.grad_f(x, a), oracle.grad_f(x, b)
        if not (np.isfinite(first).all() and np.isfinite(second).all()):
            continue
        slope = float((first - second) @ step) / length
        steepest = max(steepest, slope)
        noise = NOISE * float(np.linalg.norm(first) + np.linalg.norm(second)) / length**0.5
        if slope < -noise and (worst is None or slope < worst.slope):
            worst = Witness(slope, x, a, b)
    return worst, steepest
