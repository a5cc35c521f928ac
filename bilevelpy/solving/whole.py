"""Solves by backends that take the program as a whole and bring their own certificate."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bilevelpy.backends import registry
from bilevelpy.backends.whole import Hooks, ProgramBackend, parts_of, start_from
from bilevelpy.errors import BackendError, BilevelError, UsageError
from bilevelpy.expectations import environment
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.model import Model
from bilevelpy.numerics.driver.carried import Damaged
from bilevelpy.options import SolveOptions
from bilevelpy.records.checkpoint import joined
from bilevelpy.records.provenance import provenance
from bilevelpy.reductions.columns import make_columns
from bilevelpy.result import Record, Result
from bilevelpy.solving.early_stopping import Watched
from bilevelpy.solving.facts import hashes
from bilevelpy.solving.prices import told, unknown, with_fitted
from bilevelpy.solving.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bilevelpy.dispatcher import Decision
    from bilevelpy.records.checkpoint import Checkpoint, Saved
    from bilevelpy.solving.request import Clock, Request

# Seconds that a backend gets however late it is.
LEAST = 0.1


def solve_whole(
    model: Model,
    name: str,
    backend: ProgramBackend,
    decision: Decision,
    options: SolveOptions,
    request: Request,
    clock: Clock,
    earlier: Saved | None = None,
    keeper: Checkpoint | None = None,
) -> Result:
    """The answer of backend ``name``, with its own certificate.

    A checkpoint holds the best point, and the starts that are behind where there are several: a
    tree of branch and bound is not kept. A resumed run begins with that point and goes on to prove
    it, or to find a better one.
    """
    given = {**options.backend_options, "tol": options.tol}
    settings = registry.get(name).options.from_mapping(given, name)
    unfollowed = _unfollowed(model, name, request)
    watch = Watch(request, options, keeper, earlier)
    start = _start(model, request, earlier)
    try:
        known = None if earlier is None else earlier.carried
        hooks = Hooks(
            start, watch if watch.is_wanted else None, watch.keep, known, request.followed
        )
        left = replace(options, time_limit=max(options.time_limit - clock.elapsed(), LEAST))
        answer = backend.solve(model.bound, left, settings, request.verify, hooks)
    except Damaged as error:
        assert keeper is not None
        raise UsageError(f"cannot resume from {keeper.path}: it is damaged ({error})") from error
    except BilevelError:
        raise
    except Exception as error:
        if request.callback is not None:  # it may be the caller's own
            raise
        raise BackendError(f"backend `{name}` failed: {type(error).__name__}: {error}") from error
    finally:
        watch.close()
        if keeper is not None:
            keeper.write()
    clock.lap("solve")
    clock.to_verify(clock.phases["solve"] - answer.seconds)
    upper, lower = answer.variables()
    F, objectives = answer.objectives()
    program, reports, history = model.program, {}, []
    duals: Mapping[str, Any] = answer.duals
    if answer.has_point:
        duals = with_fitted(model, name, upper, lower, duals, answer.certificate)
        values = environment(upper, lower, {**unknown(model), **duals})
        interpreter = Interpreter(model.bound.data, values, program.externs)
        reports = {n: interpreter.value(r.value) for n, r in program.reports.items()}
        total = sum(objectives.values())
        last = Record(len(watch.history), answer.seconds, F, total, math.nan, math.nan, {})
        history = joined(earlier, [*watch.history, last])
        if keeper is not None:
            keeper.observe(last, *parts_of(answer.system.columns.blocks, answer.values))
    unpriced = told(model, duals) if answer.has_point else ()
    if keeper is not None:
        keeper.write()
    return Result(
        model=program.name,
        status=answer.status,
        message=answer.message,
        F=F,
        f=objectives,
        upper=upper,
        lower=lower,
        reports={n: float(r) if r.ndim == 0 else r for n, r in reports.items()},
        certificate=answer.certificate,
        backend=name,
        decision=decision,
        iterations=answer.iterations,
        counts={},
        time=clock.total(),
        history=history,
        provenance=provenance(model.bound, hashes(model), options, name),
        duals=duals,
        warnings=(*decision.warnings, *answer.warnings, *unfollowed, *unpriced),
    )


def _unfollowed(model: Model, name: str, request: Request) -> list[str]:
    """That reports are not followed where there are no iterations; a wrong one is an error."""
    asked = {"watch": request.watch, "stop_by": (request.stop_by,) if request.stop_by else ()}
    told = []
    for option, texts in asked.items():
        for text in texts:
            Watched.read(text, model.program, option)
        if texts:
            told.append(f"{option} has no effect: `{name}` makes no iterations that reports follow")
    return told


def _start(model: Model, request: Request, earlier: Saved | None) -> Mapping[str, Any]:
    """Where to begin: what the caller says goes before what an earlier run left."""
    if earlier is None or earlier.carried is not None:
        return request.start
    blocks = make_columns(model.bound).blocks
    saved = start_from(blocks, earlier.x, earlier.y)
    # A name without its level means the same variable.
    given = {str(n).rpartition(".")[2] for n in request.start}
    return {
        **{n: v for n, v in saved.items() if n.rpartition(".")[2] not in given},
        **request.start,
    }
