"""The outer loop around any backend: stopping, time, callbacks, history, counts, and the guard
against NaN.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.errors import BackendError, BilevelError
from bilevelpy.numerics.driver.bookkeeping import Keep, Loop
from bilevelpy.numerics.driver.carried import Carried, Damaged, NotCarried
from bilevelpy.numerics.driver.deadline import DeadlineOracle, OutOfTime
from bilevelpy.numerics.driver.measure import Finish
from bilevelpy.numerics.driver.runs import PATH, Callback, IterationState, Onward, Report, RunResult
from bilevelpy.options import SolveOptions
from bilevelpy.result import Record, Status
from bilevelpy.system.deadline import LEAST, TooLong, until

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.lowering.protocol import Oracle

__all__ = ["PATH", "Callback", "IterationState", "Keep", "Onward", "Report", "RunResult", "run"]

Vec = torch.Tensor

# So often a run that ends beside lower ground goes on from there.
RESTARTS = 8


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
    keep: Keep | None = None,
    carried: Carried | None = None,
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
        Asked at the end for a point with lower F beside ``(x, y)`` or a better response to x, or
        for ``(x, y)`` itself where it is not stationary after all: the run then goes on from there.
    keep
        Told of every iteration, and how to read off what the run carries on.
    carried
        That of an earlier run of the same backend with the same options: this one goes on as it
        would have. ``start`` is then its last point.

    Returns
    -------
    RunResult
        For every outcome of the mathematics; an exception means that the backend is broken.

    Raises
    ------
    NotCarried, Damaged
        Where this state cannot be that of ``carried``; nothing has been done then.
    """
    loop = Loop(oracle, options, callback, progress, report, keep)
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
        with loop.step(), until(_end(loop, options)):
            loop.begin(rng, backend, seen, x0, y0, settings, carried)
        if isinstance(seen, DeadlineOracle):
            seen.watched = None
        finish = loop.observe(0, loop.measured)
        iteration = 0
        while True:
            there: tuple[Vec, Vec] | None = None
            if finish is not None:
                there = loop.onward(finish, onward) if loop.restarts < RESTARTS else None
                if there is None:
                    break
                loop.restarts += 1
            if iteration >= options.max_iter:
                finish = finish or Finish(
                    Status.ITERATION_LIMIT, f"stopped after {iteration} iterations (max_iter)"
                )
                break
            with loop.step(), until(_end(loop, options)):
                if there is None:
                    loop.state = backend.step(seen, loop.state, settings)
                    loop.measured = backend.measure(seen, loop.state)
                else:
                    loop.begin(rng, backend, seen, *there, settings, None)
            iteration += 1
            finish = loop.observe(iteration, loop.measured)
    except (OutOfTime, TooLong):
        finish = Finish(Status.TIME_LIMIT, f"stopped after {options.time_limit:g} s (time_limit)")
    except KeyboardInterrupt:
        finish = Finish(Status.INTERRUPTED, "interrupted from the keyboard; the last point is kept")
    except (BilevelError, Damaged, NotCarried):
        raise
    except Exception as error:
        if callback is not None and loop.in_user_code:
            raise
        raise BackendError(
            f"backend `{backend.name}` failed: {type(error).__name__}: {error}"
        ) from error
    if loop.last is None:  # stopped before the first measure was complete
        found = seen.lowest if isinstance(seen, DeadlineOracle) else None
        loop.place(x0, y0 if found is None else oracle.domain_y.project(found[1]))
    loop.keep()
    return loop.result(loop.cut_short(finish))


def _end(loop: Loop, options: SolveOptions) -> float:
    """When work on expressions ends that a method does on the way: writing out derivatives."""
    return max(loop.started + options.time_limit, time.perf_counter() + LEAST)
