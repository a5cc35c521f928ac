"""Options and state of the stochastic backends."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from bilevelpy.backends.loop import LoopState, check_choices, check_range
from bilevelpy.backends.stochastic.pace import LowerPace, UpperPace
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.lowering.sums.batch_oracle import BatchOracle
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.stochastic.averages import TailMean
from bilevelpy.options import BackendOptions

Vec = torch.Tensor

SAMPLING = ("epoch", "random")
METRICS = ("pilot", "none", "rough")
STARTS = ("solve", "respond", "none")
# Longest step of x as a part of the radius in which its metric is good.
REACH = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledOptions(BackendOptions):
    """Options of every stochastic backend.

    ``batch``, ``upper_batch``: rows of a batch (0: a 256th of the axis, at least 64).
    ``sampling``: epoch (every batch once, in a new order each time) or random (uniform, with
    replacement, as in the proofs). ``lower_step`` s, ``upper_step`` t: 0 takes them from curvatures
    of a part of the data.
    ``metric``: pilot (steps in the curvature of that part), none (plain steps, the papers') or
    rough (plain steps without any solve, measured along the run: of y by searches on batches, of x
    such that its longest moves are 2 % of its size; goes with ``prepare`` none).
    ``passes``: passes over the data between two checks on all of it. ``prepare``: start at the
    bilevel solution of the part (solve), at its lower solution and adjoint (respond), or at the
    given point (none).
    """

    batch: int = 0
    upper_batch: int = 0
    sampling: str = "epoch"
    lower_step: float = 0.0
    upper_step: float = 0.0
    metric: str = "pilot"
    passes: float = 4.0
    prepare: str = "solve"

    def __post_init__(self) -> None:
        self.check()

    def check(self, backend: str = "stochastic") -> None:
        """Raise where an option is out of range."""
        check_choices(self, backend, sampling=SAMPLING, metric=METRICS, prepare=STARTS)
        check_range(self, backend, 0, 2**40, "batch", "upper_batch")
        check_range(self, backend, 0.0, math.inf, "lower_step", "upper_step")
        check_range(self, backend, 0.0, 1e6, "passes", closed=False)


class Stream:
    """Numbers of batches, one after another."""

    def __init__(self, count: int, mode: str, rng: torch.Generator) -> None:
        self.count, self.mode, self.rng = count, mode, rng
        self._order: list[int] = []

    def next(self) -> int:
        """The next batch."""
        if self.count == 1:
            return 0
        if not self._order:
            size = (self.count,)
            drawn = (
                torch.randperm(self.count, generator=self.rng)
                if self.mode == "epoch"
                else torch.randint(self.count, size, generator=self.rng)
            )
            self._order = drawn.tolist()
        return self._order.pop()


@dataclass(slots=True)
class SampledState(LoopState):
    """A :class:`LoopState` with batches.

    ``alpha`` is the step of x, ``beta`` that of y and u, both in ``metric``; ``memory`` is a
    method's own; ``anchor`` the x at which the metric was made, valid within ``radius``; ``tail``
    the average of the newest half of the iterates where a method shows that instead of the last.
    ``first`` is the hypergradient at the given start (of a part of the data), ``start`` the lower
    residual there; ``passes`` over the data have been made, in the first ``wait`` of which x waits.
    ``lower_pace`` and ``upper_pace`` measure steps along the run; alpha is then a factor.
    """

    data: Any = None
    rng: Any = None
    streams: Any = None
    metric: Any = None
    memory: Any = None
    tail: TailMean | None = None
    anchor: Vec = field(default_factory=lambda: torch.zeros(0))
    radius: float = math.inf
    shown: tuple[Vec, Vec, Vec] | None = None
    first: float = 0.0
    start: float = 0.0
    wait: int = 0
    passes: float = 0.0
    rule: Any = None
    lower_pace: LowerPace | None = None
    upper_pace: UpperPace | None = None

    def draw(self, of: str = "x") -> tuple[int, int]:
        """A lower and an upper batch for the steps of x, y or u: each goes through the data by
        itself.
        """
        lower, upper = self.streams[of]
        return lower.next(), upper.next()

    def batch(self, of: str = "x") -> BatchOracle:
        """The problem on new batches."""
        return self.data.at(*self.draw(of))  # type: ignore[no-any-return]

    @property
    def batches(self) -> int:
        """Number of lower batches."""
        return self.data.lower.count  # type: ignore[no-any-return]

    def move_x(self, oracle: Oracle, h: Vec, t: float) -> None:
        """A projected step of x along ``-h``, a small part of the way that the metric is good for.

        While y and u catch up with a start at the solution of a part of the data, x waits.
        """
        if self.upper_pace is not None:
            t = t * self.upper_pace.length(oracle, self.x, h)
        if self.passes < self.wait:
            return
        new = self.metric.step_x(oracle.domain_x, self.x, h, t)
        length, most = norm(new - self.x), REACH * self.radius
        self.x = new if not length > most else self.x + (most / length) * (new - self.x)

    @property
    def is_finite(self) -> bool:
        """Whether the iterate is made of numbers."""
        return math.isfinite(float(self.x.sum() + self.y.sum() + self.u.sum()))

    def keep(self) -> tuple[Vec, Vec, Vec]:
        """The iterate."""
        return self.x, self.y, self.u
