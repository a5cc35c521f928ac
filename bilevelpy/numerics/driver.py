"""The outer loop around any backend: stopping, time, callbacks, history, counts, and the guard
against NaN.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.errors import BackendError, BilevelError
from bilevelpy.numerics.deadline import DeadlineOracle, OutOfTime
from bilevelpy.numerics.measure import Finish, Measure
from bilevelpy.options import SolveOptions
from bilevelpy.result import Record, Status

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.lowering.protocol import Oracle

Vec = torch.Tensor

# Upper variables up to which the history keeps the points: those that a picture can show.
PATH = 2


@dataclass(frozen=True, slots=True)
class IterationState:
    """What a callback sees: read-only copies. F and f have the signs of the model, not of the
    minimisation.
    """

    iteration: int
    time: float
    x: np.ndarray
    y: np.ndarray
    F: float
    f: float
    hypergradient_norm: float
    lower_residual: float
    counts: Mapping[str, int]
    reports: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. ``candidate`` is True where the backend's own tests call the point a
    solution.

    F and f have the signs of the model. The status is preliminary:
    :func:`~bilevelpy.numerics.certificate.settle` makes the final one from it and the certificate.
    """

    x: Vec
    y: Vec
    F: float
    f: float
    status: Status
    message: str
    iterations: int
    history: tuple[Record, ...]
    counts: Mapping[str, int]
    time: float
    hypergradient_norm: float
    lower_residual: float
    stationarity: float
    candidate: bool
    warnings: tuple[str, ...] = ()


Callback = Callable[[IterationState], Any]
Report = Callable[[Vec, Vec], Mapping[str, float]]
Onward = Callable[[Vec, Vec], Vec | None]

# So often a run that ends beside lower ground goes on from there.
RESTARTS = 8


class _Scales:
    """Fallback scales for measures that bring none: the largest values seen in the run."""

    def __init__(self) -> None:
        self.gradient = 0.0
        self.residual = 0.0

    def relative(self, m: Measure) -> tuple[float, float]:
        self.gradient = max(self.gradient, m.hypergradient_norm)
        self.residual = max(self.residual, m.lower_residual)
        upper = m.stationarity
        if upper is None:
            upper = m.hypergradient_norm / self.gradient if self.gradient > 0 else 0.0
        lower = m.lower_accuracy
        if lower is None:
            lower = m.lower_residual / self.residual if self.residual > 0 else 0.0
        return upper, lower


def run(
    oracle: Oracle,
    backend: Any,
    structure: Structure | None,
    options: SolveOptions,
    *,
    callback: Callback | None = None,
    progress: Callable[[Record], None] | None = None,
    start: tuple[Vec | None, Vec | None] | None = None,
    report: Report | None = None,
    rng: torch.Generator | None = None,
    onward: Onward | None = None,
) -> RunResult:
    """Run ``backend`` on ``oracle`` until it is done or a limit is met.

    Parameters
    ----------
    oracle, backend, structure, options
        The problem, a :class:`~bilevelpy.backends.base.Backend`, its facts and the solve options.
    callback
        Called once per iteration with an :class:`IterationState`; a true return value stops the
        run.
    progress
        Called with every new :class:`~bilevelpy.result.Record`.
    start
        Vectors x and y to start from instead of ``oracle.x0``, ``oracle.y0``; either may be None.
    report
        Further numbers to record at ``(x, y)``.
    rng
        Source of all randomness; made from ``options.seed`` where None.
    onward
        Asked at the end for an x with lower F beside ``(x, y)``, or for x itself where it is not
        stationary after all: the run then goes on from there.

    Returns
    -------
    RunResult
        For every outcome of the mathematics; an exception means that the backend is broken.
    """
    loop = _Loop(oracle, options, callback, progress, report)
    rng = rng if rng is not None else torch.Generator().manual_seed(options.seed)
    settings = backend.options.from_mapping(
        {"tol": options.tol, **options.backend_options}, backend.name
    )
    x0 = oracle.x0 if start is None or start[0] is None else start[0]
    y0 = oracle.y0 if start is None or start[1] is None else start[1]
    x0 = oracle.domain_x.project(x0.detach().to(torch.float64).clone())
    y0 = oracle.domain_y.project(y0.detach().to(torch.float64).clone())
    seen: Any = oracle
    if math.isfinite(options.time_limit):
        seen = DeadlineOracle(oracle, loop.started + options.time_limit, x0)
    finish: Finish | None = None
    try:
        state = backend.init(seen, x0, y0, settings, rng)
        first = backend.measure(seen, state)
        if isinstance(seen, DeadlineOracle):
            seen.watched = None
        finish = loop.observe(0, first)
        iteration, restarts = 0, 0
        while True:
            there: tuple[Vec, Vec] | None = None
            if finish is not None:
                there = loop.onward(finish, onward) if restarts < RESTARTS else None
                if there is None:
                    break
                restarts += 1
            if iteration >= options.max_iter:
                finish = finish or Finish(
                    Status.ITERATION_LIMIT, f"stopped after {iteration} iterations (max_iter)"
                )
                break
            if there is None:
                state = backend.step(seen, state, settings)
            else:
                state = backend.init(seen, *there, settings, rng)
            iteration += 1
            finish = loop.observe(iteration, backend.measure(seen, state))
    except OutOfTime:
        finish = Finish(Status.TIME_LIMIT, f"stopped after {options.time_limit:g} s (time_limit)")
    except KeyboardInterrupt:
        finish = Finish(Status.INTERRUPTED, "interrupted from the keyboard; the last point is kept")
    except BilevelError:
        raise
    except Exception as error:
        if callback is not None and loop.in_user_code:
            raise
        raise BackendError(
            f"backend `{backend.name}` failed: {type(error).__name__}: {error}"
        ) from error
    if loop.last is None:  # stopped before the first measure was complete
        found = seen.lowest if isinstance(seen, DeadlineOracle) else None
        loop.keep(x0, y0 if found is None else oracle.domain_y.project(found[1]))
    return loop.result(finish)


class _Loop:
    """The bookkeeping of one run."""

    def __init__(
        self,
        oracle: Oracle,
        options: SolveOptions,
        callback: Callback | None,
        progress: Callable[[Record], None] | None,
        report: Report | None,
    ) -> None:
        self.oracle = oracle
        self.options = options
        self.callback = callback
        self.progress = progress
        self.report = report
        self.started = time.perf_counter()
        self.base = oracle.counts.as_dict()
        self.history: list[Record] = []
        self.last: Measure | None = None
        self.stationarity = math.inf
        self.scales = _Scales()
        self.warnings: dict[str, None] = {}
        self.candidate = False
        self.again = False
        self.in_user_code = False

    def counts(self) -> dict[str, int]:
        now = self.oracle.counts.as_dict()
        return {name: now[name] - self.base[name] for name in now}

    def observe(self, iteration: int, m: Measure) -> Finish | None:
        """Record a measure and decide whether the run ends."""
        if not (math.isfinite(m.F) and _is_finite(m.x) and _is_finite(m.y)):
            if self.last is None:
                self.last = m
            if m.finish is not None:
                return m.finish
            return Finish(
                Status.DIVERGED,
                f"iteration {iteration}: the iterates or the objective are not finite",
            )
        self.last = m
        for w in m.warnings:
            self.warnings.setdefault(w)
        upper, lower = self.scales.relative(m)
        self.stationarity = upper
        record = self._record(iteration, m)
        if self.callback is not None and self.callback(_state(record, m)):
            return Finish(Status.INTERRUPTED, "stopped by the callback")
        self.in_user_code = False
        if m.finish is not None:
            self.candidate = m.finish.status is Status.CONVERGED
            return m.finish
        if upper <= self.options.tol and lower <= self.options.tol:
            self.candidate = True
            return Finish(
                Status.CONVERGED,
                f"relative hypergradient {upper:.1e} and lower residual {lower:.1e} within tol",
            )
        if record.time > self.options.time_limit:
            return Finish(
                Status.TIME_LIMIT, f"stopped after {self.options.time_limit:g} s (time_limit)"
            )
        return None

    def _record(self, iteration: int, m: Measure) -> Record:
        """Write a measure down; reports and callbacks are the user's code."""
        elapsed = time.perf_counter() - self.started
        counts = self.counts()
        self.in_user_code = True
        reports = dict(self.report(m.x, m.y)) if self.report is not None else {}
        o = self.oracle
        record = Record(
            iteration,
            elapsed,
            o.F_sign * m.F,
            o.f_sign * m.f,
            m.hypergradient_norm,
            m.lower_residual,
            counts,
            reports,
            tuple(m.x.tolist()) if o.n <= PATH else (),
        )
        self.history.append(record)
        if self.progress is not None:
            self.progress(record)
        return record

    def keep(self, x: Vec, y: Vec) -> None:
        """Record a point of which nothing is known but the objectives."""
        o = self.oracle
        self.last = Measure(x, y, o.F(x, y), o.f(x, y), math.nan, math.nan)
        if math.isfinite(self.last.F):
            self._record(0, self.last)

    def onward(self, finish: Finish, search: Onward | None) -> tuple[Vec, Vec] | None:
        """Where to go on from, if the end is one of the mathematics and there is lower ground.

        What the search costs is not the run's.
        """
        if search is None or self.last is None:
            return None
        if finish.status not in (Status.CONVERGED, Status.STALLED):
            return None
        before = self.oracle.counts.as_dict()
        x = search(self.last.x, self.last.y)
        after = self.oracle.counts.as_dict()
        self.base = {name: self.base[name] + after[name] - before[name] for name in after}
        if x is self.last.x:
            # No lower ground, but not stationary: what ended for a flat stretch may go on, once.
            if self.again or finish.status is not Status.CONVERGED:
                return None
            self.again = True
        return None if x is None else (x, self.last.y)

    def result(self, finish: Finish) -> RunResult:
        """Pack the last good point."""
        o, m = self.oracle, self.last
        assert m is not None
        return RunResult(
            m.x,
            m.y,
            o.F_sign * m.F,
            o.f_sign * m.f,
            finish.status,
            finish.message,
            max(len(self.history) - 1, 0),
            tuple(self.history),
            self.counts(),
            time.perf_counter() - self.started,
            m.hypergradient_norm,
            m.lower_residual,
            self.stationarity,
            self.candidate,
            tuple(self.warnings),
        )


def _is_finite(v: Vec) -> bool:
    """Whether all entries are finite; one inner product tells unless it overflows."""
    return math.isfinite(torch.dot(v, v).item()) or bool(torch.isfinite(v).all())


def _state(record: Record, m: Measure) -> IterationState:
    x, y = m.x.numpy().copy(), m.y.numpy().copy()
    x.flags.writeable = y.flags.writeable = False
    return IterationState(
        record.iteration,
        record.time,
        x,
        y,
        record.F,
        record.f,
        record.hypergradient_norm,
        record.lower_residual,
        record.counts,
        record.reports,
    )


def with_status(run: RunResult, status: Status, message: str) -> RunResult:
    """The same run under another verdict."""
    return replace(run, status=status, message=message)
