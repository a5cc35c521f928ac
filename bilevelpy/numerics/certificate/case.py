"""What the parts of a certificate share: the point, its scales, and what has been found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.analysis.structure import Evidence
from bilevelpy.numerics.extent import extent_of
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.wording import Wording, wording
from bilevelpy.options import SolveOptions

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.lowering.protocol import Oracle

Vec = torch.Tensor

# A certificate allows this multiple of the run's tolerance: its scales are its own.
SLACK = 100.0
# Of hypergradients never more than this: one that is the same everywhere must not pass, and it is
# compared with a hundred times the one beside the point.
LOOSEST = 1e-3
SMALL = 2000
# Upper variables up to which every axis is looked along, and lower ones up to which diagonals are.
FEW, CHEAP = 4, 300


@dataclass(slots=True)
class Findings:
    """``failures`` refute the point, ``notes`` qualify it, ``unchecked`` names what there was no
    time for; ``downhill`` is a lower point that a probe met, ``better`` a response that refutes y.
    """

    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    downhill: Vec | None = None
    better: Vec | None = None


@dataclass(slots=True)
class Case:
    """The point (x, y) under examination.

    ``tol`` is the tolerance of the certificate, ``extent`` a length of x; ``convex`` and ``unique``
    say what is known of the lower level beyond observation, ``quadratic`` that f is quadratic in y
    at every x, ``pessimistic`` what the leader expects of ties.
    """

    oracle: Oracle
    x: Vec
    y: Vec
    rng: torch.Generator
    tol: float
    convex: bool
    unique: bool
    extent: float
    pessimistic: bool = False
    quadratic: bool = False
    found: Findings = field(default_factory=Findings)

    @property
    def slope_tol(self) -> float:
        """The tolerance for hypergradients."""
        return min(self.tol, LOOSEST)

    @property
    def upper_words(self) -> Wording:
        """How F is spoken of."""
        return wording(self.oracle.F_sign)

    @property
    def lower_words(self) -> Wording:
        """How f is spoken of."""
        return wording(self.oracle.f_sign)

    @property
    def is_small(self) -> bool:
        """Whether evaluations are so cheap that some more do not matter."""
        o = self.oracle
        return o.m * max(o.n, 1) <= SMALL**2 and o.m <= SMALL

    def fail(self, reason: str) -> None:
        """Refute the point."""
        self.found.failures.append(reason)

    def note(self, remark: str) -> None:
        """Qualify the point."""
        self.found.notes.append(remark)


def tolerance(options: SolveOptions) -> float:
    """The tolerance of a certificate, for hypergradients."""
    return min(SLACK * options.tol, LOOSEST)


def make_case(
    oracle: Oracle,
    x: Vec,
    y: Vec,
    structure: Structure | None,
    options: SolveOptions,
    rng: torch.Generator,
) -> Case:
    """The case of a point, with what the structure proves or declares."""
    convex = unique = quadratic = False
    if structure is not None:
        convex = structure.is_known_convex
        unique = structure.unique.value is True and structure.unique.evidence is Evidence.PROVED
        quadratic = structure.lower_hessian.value in ("constant", "depends on x")
    pessimistic = structure is not None and structure.stance == "pessimistic"
    tol, extent = SLACK * options.tol, extent_of(oracle, x)
    return Case(oracle, x, y, rng, tol, convex, unique, extent, pessimistic, quadratic)


def axes_and_diagonals(n: int, m: int) -> tuple[list[Vec], list[Vec]]:
    """The axes where there are few, and the diagonals between two of them where responses are cheap
    (each for both senses): a saddle, or one at a bound, may fall between the axes only.
    """
    if n > FEW:
        return [], []
    axes = list(torch.eye(n, dtype=torch.float64))
    if m > CHEAP:
        return axes, []
    between = [axes[i] + s * axes[j] for j in range(n) for i in range(j) for s in (1, -1)]
    return axes, [d / norm(d) for d in between]
