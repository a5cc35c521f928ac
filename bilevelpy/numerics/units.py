"""Sizes of variables, where a model mixes units: prices in EUR beside quantities in tons.

Methods that see gradients only are invariant to one common factor, but not to factors that differ
between variables: a component that is small because of its unit hides behind the others. Each
variable of the model (a block) gets the size at which the objective bends by 1::

    s_B = 1 / sqrt(d'H d / d'd),   d in the block B

with H = f_yy below and the derivative of the hypergradient above. Blocks whose sizes differ by less
than :data:`DIFFERENT` are left alone. Where f_yy is diagonal at the start, every entry of y gets a
size of its own: what is solved is then as well conditioned as can be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.certificate.resolve import Answer, Resolver
from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.lower.grouped import grouped_oracle
from bilevelpy.numerics.lower.halves import split_oracle
from bilevelpy.numerics.scaled import ScaledOracle, Span, Units, by_block, powers_of_two

Vec = torch.Tensor

DIFFERENT = 1e3
# Diagonals that differ by less are no trouble to conjugate gradients.
SPREAD = 30.0
# Blocks and work (n times m) up to which sizes above are worth a hypergradient each.
MOST, LARGEST = 12, 10**6
# Step of the difference of hypergradients, relative to the length on which F changes by its size.
STEP = 1e-3
# Slopes below this fraction of the largest are rounding, and say nothing about a unit.
ROUNDING = 1e-9


def find_units(
    oracle: Oracle, upper: Sequence[Span], lower: Sequence[Span], rng: torch.Generator
) -> Units | None:
    """The units of a problem whose variables occupy the given spans of x and y; None where no
    scaling is called for.
    """
    x, y = oracle.domain_x.project(oracle.x0), oracle.domain_y.project(oracle.y0)
    below = _lower_sizes(oracle, x, y, lower, rng)
    units = Units(torch.ones(oracle.n, dtype=torch.float64), below)
    changed = bool((below != 1.0).any())
    if 1 < len(upper) <= MOST and oracle.n * oracle.m <= LARGEST:
        above = _upper_sizes(ScaledOracle(oracle, units), upper, rng)
        changed = changed or bool((above != 1.0).any())
        units = Units(above, below)
    return units if changed else None


def _lower_sizes(
    oracle: Oracle, x: Vec, y: Vec, spans: Sequence[Span], rng: torch.Generator
) -> Vec:
    """Sizes of the lower entries where f_yy is diagonal, else of its blocks: a Hessian product
    each.
    """
    same = torch.ones(oracle.m, dtype=torch.float64)
    if oracle.m < 2:
        return same
    product, sizes = oracle.hvp(x, y), []
    diagonal = _diagonal(product, oracle.m, rng)
    if diagonal is not None and oracle.domain_y.is_box:
        low, high = float(diagonal.min()), float(diagonal.max())
        if not 0.0 < SPREAD * low < high < math.inf:
            return same
        return powers_of_two((math.sqrt(low * high) / diagonal).sqrt())
    if not 1 < len(spans) <= MOST:
        return same
    for start, stop in spans:
        v = torch.zeros(oracle.m, dtype=torch.float64)
        v[start:stop] = torch.randn(stop - start, generator=rng, dtype=torch.float64)
        bend = dot(v, product(v)) / max(dot(v, v), 1e-300)
        sizes.append(_size(bend))
    return _spread(spans, sizes, oracle.domain_y)


def _diagonal(product: Callable[[Vec], Vec], dim: int, rng: torch.Generator) -> Vec | None:
    """The diagonal of a matrix that has nothing else: one product gives it, a second one tells."""
    d = product(torch.ones(dim, dtype=torch.float64))
    v = torch.randn(dim, generator=rng, dtype=torch.float64)
    return d if torch.allclose(product(v), d * v, rtol=1e-9, atol=0.0) else None


def _upper_sizes(oracle: Oracle, spans: Sequence[Span], rng: torch.Generator) -> Vec:
    """Sizes of the upper blocks: one hypergradient each, where their gradients differ by much."""
    # Kinks below are taken as the methods take them: descent across them takes thousands of steps.
    oracle = grouped_oracle(oracle) or split_oracle(oracle, oracle.x0, rng) or oracle
    x, y = oracle.domain_x.project(oracle.x0), oracle.domain_y.project(oracle.y0)
    same = torch.ones(oracle.n, dtype=torch.float64)
    solver = Resolver(oracle, x, y, rng)
    base = solver.answer(x, y, rough=True)
    if base is None or not math.isfinite(norm(base.gradient)):
        return same
    slopes = [norm(base.gradient[a:b]) / math.sqrt(b - a) for a, b in spans]
    if max(slopes) <= DIFFERENT * min(slopes):
        return same
    told = ROUNDING * max(slopes)
    sizes = [
        _bend(solver, base, span, slope) if slope > told else math.nan
        for span, slope in zip(spans, slopes, strict=True)
    ]
    return _spread(spans, sizes, oracle.domain_x)


def _bend(solver: Resolver, base: Answer, span: Span, slope: float) -> float:
    """The size of an upper block by the curvature of Phi along its gradient."""
    domain = solver.oracle.domain_x
    start, stop = span
    d = torch.zeros_like(base.x)
    d[start:stop] = -base.gradient[start:stop]
    length = norm(d)
    if length == 0.0:
        return math.nan
    reach = STEP * (abs(base.F) or 1.0) / length
    x = domain.project(base.x + (reach / length) * d)
    move = x - base.x
    there = solver.answer(x, base.lower.y, base, rough=True) if bool(move.any()) else None
    if there is not None:
        bend = dot(there.gradient - base.gradient, move) / max(dot(move, move), 1e-300)
        if bend > 0.0:
            return _size(bend)
    return math.sqrt(abs(base.F) or 1.0) / slope


def _size(bend: float) -> float:
    """The length on which a curvature changes the objective by 1; NaN where there is none."""
    return 1.0 / math.sqrt(bend) if 0.0 < bend < math.inf else math.nan


def _spread(spans: Sequence[Span], sizes: Sequence[float], domain: ProductSet) -> Vec:
    """Sizes around 1, entry by entry; all 1 where they differ by little. Simplices and matrices
    keep theirs.
    """
    known = [s for s in sizes if math.isfinite(s) and s > 0.0]
    if len(known) < 2 or max(known) <= DIFFERENT * min(known):
        return torch.ones(domain.dim, dtype=torch.float64)
    middle = math.exp(sum(map(math.log, known)) / len(known))
    relative = [s / middle if math.isfinite(s) and s > 0.0 else 1.0 for s in sizes]
    out = by_block(spans, relative, domain.dim)
    for b in (*domain.simplices, *domain.matrices):
        out[b.start : b.stop] = 1.0
    return out
