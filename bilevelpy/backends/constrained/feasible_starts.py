"""Where ``conic`` and ``kkt`` begin when their followers have no feasible point at the start.

The nearest x that leaves them one lies on the edge of those that do, where their feasible set has
no inside: points on the way beyond it come first, then random ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from bilevelpy.numerics.cones.nearest_feasible import nearest_feasible
from bilevelpy.numerics.driver.measure import Finish
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.result import Status

Vec = torch.Tensor

# How far beyond the nearest point starts lie, in parts of the way to it; how many random ones.
BEYOND, TRIALS = (2.0, 1.5, 1.1, 1.0), 16


def feasible_starts(oracle: Any, x: Vec, rng: torch.Generator) -> Iterator[Vec]:
    """Points at which followers may have a response where they have none at x."""
    near = nearest_feasible(oracle, x, oracle.g, oracle.G).x
    if near is not None:
        yield from (oracle.domain_x.project(x + t * (near - x)) for t in BEYOND)
    for _ in range(TRIALS):
        yield random_point(oracle, x, rng)


def random_point(oracle: Any, x: Vec, rng: torch.Generator) -> Vec:
    """A random x of its domain: in bounded boxes anywhere, else around the start."""
    low, high = oracle.domain_x.lower, oracle.domain_x.upper
    inside = torch.isfinite(low) & torch.isfinite(high)
    size = max(norm(x) / math.sqrt(max(x.numel(), 1)), 1.0)
    at = x + size * torch.randn(x.numel(), generator=rng, dtype=torch.float64)
    share = torch.rand(x.numel(), generator=rng, dtype=torch.float64)
    at = torch.where(inside, low.nan_to_num() + share * (high - low).nan_to_num(), at)
    found: Vec = oracle.domain_x.project(at)
    return found


def no_feasible_start(oracle: Any, x: Vec) -> Finish:
    """That no x was found at which followers have a response, and whether that is proved."""
    # Rows of epigraphs, which have no names of their own, can hold at every y.
    names = dict.fromkeys(p.constraint.name for p in oracle.g.rows)
    rows = ", ".join(f"`{name}`" for name in names if name.isidentifier())
    if nearest_feasible(oracle, x, oracle.g).impossible:
        return Finish(
            Status.INFEASIBLE,
            f"the lower level has no feasible point at any x of its domain: its constraints {rows} "
            "cannot hold within the domains of its variables",
        )
    return Finish(
        Status.STALLED,
        f"no x was found at which the lower level has a solution: with its constraints {rows} it "
        f"has none at the start, nor at {TRIALS} other points; a `start` of the upper variables at "
        "which these constraints can hold would help",
    )
