"""What the stochastic backends share: batches, step lengths, the loop of an interval, and the check
on full passes that ends it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch

from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.acceptance import refuse_lower_bounds
from bilevelpy.backends.base import Accept, Cost, Reject, refuse_common
from bilevelpy.backends.loop import measure_loop
from bilevelpy.backends.stochastic.pace import Descent
from bilevelpy.backends.stochastic.scale import prepared, scaled
from bilevelpy.backends.stochastic.state import SampledState, Stream
from bilevelpy.errors import BackendError
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.lowering.sums.batch_oracle import BatchOracle
from bilevelpy.lowering.sums.sampled import SampledOracle
from bilevelpy.numerics.driver.measure import Finish, Measure
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.stochastic.averages import TailMean
from bilevelpy.options import BackendOptions
from bilevelpy.result import Status

Vec = torch.Tensor

# Growth of the merit over the best seen that is divergence, and the merit below which nothing is.
GROWTH, QUIET = 100.0, 1e-4
HALVINGS = 20
# How often in an interval x may leave the radius in which its metric is good.
LEFT = 3


def directions(batch: BatchOracle, x: Vec, y: Vec, u: Vec) -> tuple[Vec, Vec, Vec]:
    """``f_y``, ``f_yy u - F_y`` and ``F_x - f_xy u`` of a batch: for y, u and x."""
    g, Hu, cross = batch.triple(x, y, u)
    gF_x, gF_y = batch.grad_F(x, y)
    return g, Hu - gF_y, gF_x - cross


def full_directions(
    oracle: Oracle, state: SampledState, at: tuple[Vec, Vec, Vec] | None = None
) -> tuple[Vec, Vec, Vec]:
    """The same by a pass over all data; notes residuals, adjoint and hypergradient in the state."""
    x, y, u = at or state.keep()
    g = oracle.grad_f(x, y)
    Hu, cross = oracle.pullback(x, y)(u)
    gF_x, gF_y = oracle.grad_F(x, y)
    r, h = Hu - gF_y, gF_x - cross
    state.residual = oracle.domain_y.projected_gradient_norm(y, g)
    size = norm(gF_y)
    state.adjoint = min(norm(r) / size, 1.0) if size > 0 else 0.0
    state.h, state.size = h, norm(gF_x) + norm(cross)
    state.shown = x, y, u
    return g, r, h


class SampledBackend:
    """Base of the stochastic backends: subclasses say what an iteration is.

    Attributes
    ----------
    lower_factor
        The step of y and u, in ``1 / (largest curvature of a batch)``.
    averages
        Whether the average of the newest half of the iterates is what a run shows.
    products
        Whether Hessian-vector products are taken.
    accuracy
        Errors, relative to ``1 + |value|``, that some tens of passes come down to: the variance of
        batches does not vanish. 0 where it does.
    independent
        The variables (of "xyu") whose batches are independent whatever ``sampling`` says.
    """

    name: ClassVar[str]
    options: ClassVar[type[BackendOptions]]
    lower_factor: ClassVar[float] = 0.5
    averages: ClassVar[bool] = True
    products: ClassVar[bool] = True
    accuracy: ClassVar[float] = 2e-2
    independent: ClassVar[str] = ""

    # --- what the methods say ---------------------------------------------------------------------

    def prepare(self, oracle: Oracle, state: SampledState, options: Any) -> None:
        """Make the memory of the method; the state is at its start."""

    def iterate(self, oracle: Oracle, state: SampledState, options: Any) -> None:
        """One iteration."""
        raise NotImplementedError

    def descents(self, state: SampledState) -> list[Descent]:
        """What a lower step must make smaller, on a new batch."""
        batch, x, y = state.batch("y"), state.x, state.y
        return [(partial(batch.f, x), y, batch.grad_f(x, y))]

    def checked(self, oracle: Oracle, state: SampledState, found: tuple[Vec, Vec, Vec]) -> None:
        """Use the directions that a full pass has found at the point that is shown."""

    def completed(
        self, oracle: Oracle, state: SampledState, options: Any, at: tuple[Vec, Vec, Vec]
    ) -> tuple[Vec, Vec, Vec]:
        """The point that a check looks at; methods without an adjoint solve for it."""
        return at

    def iteration_passes(self, state: SampledState, options: Any) -> float:
        """Lower batches of an iteration, as a fraction of a pass."""
        return 1.0 / state.batches

    # --- the protocol -----------------------------------------------------------------------------

    def accepts(self, structure: Structure) -> Accept | Reject:
        """A smooth, strongly convex lower level without bounds, that is a sum over a data axis."""
        return accept_sums(structure, refuse_common(structure))

    def cost(self, structure: Structure) -> Cost:
        """Batches that add up to some passes over the data."""
        return Cost(
            gradients=500.0,
            products=500.0 if self.products else 0.0,
            memory=16.0 * structure.dim_y**2,
        )

    def init(
        self, oracle: Oracle, x: Vec, y: Vec, options: Any, rng: torch.Generator
    ) -> SampledState:
        """Batches, step lengths from a pilot, and a first check on all data."""
        inner = compiled(oracle)
        data = SampledOracle(inner, batch=options.batch, upper_batch=options.upper_batch, rng=rng)
        state = SampledState(
            x,
            y,
            torch.zeros_like(y),
            torch.zeros_like(x),
            0.0,
            data=data,
            rng=rng,
            streams={of: self._stream(of, options, data.counts, rng) for of in "xyu"},
            tail=TailMean() if self.averages else None,
        )
        state.start = oracle.domain_y.projected_gradient_norm(y, oracle.grad_f(x, y))
        state.largest = state.start
        prepared(oracle, state, options)
        self.scale(oracle, state, options)
        self.prepare(oracle, state, options)
        self.check(oracle, state, options)
        return state

    def _stream(
        self, of: str, options: Any, counts: tuple[int, int], rng: torch.Generator
    ) -> tuple[Stream, Stream]:
        mode = "random" if of in self.independent else options.sampling
        return Stream(counts[0], mode, rng), Stream(counts[1], mode, rng)

    def step(self, oracle: Oracle, state: SampledState, options: Any) -> SampledState:
        """The iterations of an interval, and a check on all data."""
        rate = self.iteration_passes(state, options)
        count = max(1, math.ceil(options.passes / rate))
        left = 0
        for _ in range(count):
            check_time(oracle)
            if state.lower_pace is not None and state.lower_pace.is_due():
                state.lower_pace.search(self.descents(state))
                state.beta = state.lower_pace.step
            self.iterate(oracle, state, options)
            state.k += 1
            state.passes += rate
            if not state.is_finite:
                break
            if state.tail is not None:
                state.tail.update(torch.cat(state.keep()))
            if norm(state.x - state.anchor) > state.radius:
                self.scale(oracle, state, options)
                left += 1
                if left == LEFT:  # x runs
                    break
        self.check(oracle, state, options)
        return state

    def inner_steps(self, options: Any) -> int:
        """Lower steps between two steps of x."""
        return 1

    def check(self, oracle: Oracle, state: SampledState, options: Any) -> None:
        """Residuals and hypergradient by full passes; back with half the steps where they grow."""
        at = state.keep()
        if state.tail is not None and state.tail.mean is not None and state.is_finite:
            at = tuple(state.tail.mean.split([oracle.n, oracle.m, oracle.m]))
        at = self.completed(oracle, state, options, at)
        found = full_directions(oracle, state, at)
        if watch(oracle, state, fixed=bool(options.upper_step)):
            self.checked(oracle, state, found)
            return
        full_directions(oracle, state)
        if state.tail is not None:
            state.tail = TailMean()
        self.scale(oracle, state, options)
        self.prepare(oracle, state, options)

    def measure(self, oracle: Oracle, state: SampledState) -> Measure:
        """The point of the last check."""
        keep = state.keep()
        if state.shown is not None:
            state.x, state.y, state.u = state.shown
        size, state.size = state.size, max(state.size, state.first)
        try:
            return measure_loop(oracle, state)
        finally:
            state.x, state.y, state.u = keep
            state.size = size

    def scale(self, oracle: Oracle, state: SampledState, options: Any) -> None:
        """Metric and step lengths by a pilot at the present x."""
        scaled(oracle, state, options, self.lower_factor, self.inner_steps(options))


def accept_sums(structure: Structure, refusal: Reject | None) -> Accept | Reject:
    """Accept lower objectives over free variables that are sums over a data axis, unless there is
    a ``refusal`` already.
    """
    if refusal is None:
        refusal = refuse_lower_bounds(structure)
    if refusal is not None:
        return refusal
    if not structure.finite_sum_lower.value:
        return Reject("needs a lower objective that is a sum over data", structure.finite_sum_lower)
    axes = ", ".join(structure.finite_sum_lower.value)
    return Accept(f"the lower objective is a sum over {axes}, of which batches are drawn")


def watch(oracle: Oracle, state: SampledState, *, fixed: bool = False) -> bool:
    """Whether the run may go on; where residual or hypergradient grow out of bounds, go back to the
    best point with half the steps.
    """
    finite = state.is_finite and math.isfinite(norm(state.h))
    pg = state.note(oracle) if finite else math.inf
    # A start at the solution of a part has small residuals and hypergradients: those of the given
    # start are what growth is measured by.
    scale = max(state.first, state.size) or 1.0
    merit = max(pg / scale, state.residual / (state.start or 1.0), state.adjoint)
    if finite and (state.best is None or merit < state.best[0]):
        state.best = merit, *state.keep()
        return True
    assert state.best is not None
    if finite and merit <= GROWTH * max(state.best[0], QUIET):
        return True
    if state.halvings >= HALVINGS or fixed:
        state.finish = Finish(
            Status.DIVERGED, "the iterates grow: the steps are too long for these batches"
        )
    _, state.x, state.y, state.u = state.best
    state.halvings += 1
    state.warn("the steps were halved because residual or hypergradient grew")
    return False


def check_time(oracle: Oracle) -> None:
    """Raise where the time limit is over: batches are evaluated beside the oracle that watches."""
    watch: Callable[[], None] | None = getattr(oracle, "check_deadline", None)
    if watch is not None:
        watch()


def compiled(oracle: Oracle) -> Any:
    """The compiled oracle behind what may be wrapped around it."""
    inner = getattr(oracle, "_oracle", oracle)
    if not hasattr(inner, "bound"):
        raise BackendError("stochastic methods need a compiled model, whose data they can sample")
    return inner
