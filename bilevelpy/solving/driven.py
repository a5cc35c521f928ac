"""Solves by backends that the driver steps: run, certify, pack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.backends import registry
from bilevelpy.backends.rescaled import SCALABLE, Rescaled
from bilevelpy.checkpoint import Checkpoint, Saved, add_counts, joined
from bilevelpy.expectations import environment
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.lowering.streaming import StreamedOracle
from bilevelpy.model import Model
from bilevelpy.numerics.driver import PATH, IterationState, RunResult
from bilevelpy.numerics.driver import run as drive
from bilevelpy.options import SolveOptions
from bilevelpy.progress import Progress, wanted
from bilevelpy.provenance import provenance
from bilevelpy.result import Certificate, Record, Result, Status
from bilevelpy.solving.elsewhere import begun_elsewhere, continued, usable
from bilevelpy.solving.facts import oracle, units
from bilevelpy.solving.judge import Judge
from bilevelpy.solving.located import located
from bilevelpy.solving.starts import start_vectors
from bilevelpy.solving.watching import Stop, Watched, passed

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.dispatcher import Decision
    from bilevelpy.lowering.oracle import TorchOracle
    from bilevelpy.solving.request import Clock, Request


def solve_driven(
    model: Model,
    name: str,
    facts: Structure,
    decision: Decision,
    options: SolveOptions,
    request: Request,
    clock: Clock,
    earlier: Saved | None,
    keeper: Checkpoint | None,
) -> Result:
    """The answer of backend ``name``. ``earlier`` is a run to go on from, ``keeper`` saves this
    one.
    """
    functions = oracle(model)  # what cannot be compiled has been refused by the dispatcher
    line = Progress(options.tol) if wanted(request.progress) else None
    backend: Any = registry.get(name)
    # Step lengths and the like that the caller gives are in the model's own units.
    plain = all(isinstance(value, bool) for value in options.backend_options.values())
    scaling = units(model) if name in SCALABLE and plain else None
    judge = Judge(functions, scaling, facts, options, request.verify, clock)
    watched = [Watched.read(text, model.program, "watch") for text in request.watch]
    stop: Stop | None = None
    if request.stop_by is not None:
        ending = Watched.read(request.stop_by, model.program, "stop_by")
        stop = Stop(ending, request.patience, earlier)
    try:
        method = backend if scaling is None else Rescaled(backend, scaling)
        callback = _callback(request.callback, keeper, stop)
        start = start_vectors(functions, request.start, earlier)
        settings = replace(options, time_limit=judge.run_limit())
        first = begun_elsewhere(functions, method, facts, settings, callback, start)
        if first is not None and usable(first):
            start = (first.x, first.y)
        raw = drive(
            functions,
            method,
            facts,
            replace(options, time_limit=judge.run_limit()),
            callback=callback,
            progress=line,
            start=start,
            report=_reports(model, functions, watched if stop is None else [*watched, ending]),
            onward=judge.onward,
        )
        if first is not None:
            raw = continued(first, raw)
        if raw.status is Status.DIVERGED:
            raw = located(functions, raw)
    finally:
        if line is not None:
            line.close()
        if keeper is not None:
            keeper.write()
    if stop is not None:
        raw = stop.settle(raw)
    along = joined(earlier, list(raw.history))
    raw = replace(raw, warnings=(*raw.warnings, *passed(watched, along)))
    clock.lap("solve")
    within = judge.seconds  # certificates of points from which the run went on, and of the last
    final, certificate = judge.verdict(raw)
    clock.lap("verify")
    clock.move(within, "solve", "verify")
    return _packed(model, functions, name, final, certificate, decision, clock, earlier, options)


def _callback(
    callback: Callable[[IterationState], Any] | None, keeper: Checkpoint | None, stop: Stop | None
) -> Callable[[IterationState], Any] | None:
    """The user's callback, the checkpoint's, and that of a report that ends the run."""
    if keeper is None and stop is None:
        return callback

    def call(state: IterationState) -> Any:
        record = _record(state)
        ended = stop is not None and stop.observe(record, state.x, state.y)
        if keeper is not None:
            keeper.observe(record, state.x, state.y, stop.best if stop is not None else None)
        wanted = callback(state) if callback is not None else False
        return wanted or ended

    return call


def _record(state: IterationState) -> Record:
    """The record of an iteration."""
    return Record(
        state.iteration,
        state.time,
        state.F,
        state.f,
        state.hypergradient_norm,
        state.lower_residual,
        state.counts,
        state.reports,
        tuple(state.x.tolist()) if len(state.x) <= PATH else (),
    )


def _reports(
    model: Model, functions: TorchOracle, watched: Sequence[Watched]
) -> Callable[[torch.Tensor, torch.Tensor], Mapping[str, float]] | None:
    """The reports to watch along the run."""
    known = model.program.reports
    names = [w.name for w in watched]
    if not names:
        return None

    def call(x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
        values = environment(functions.unflatten_x(x), functions.unflatten_y(y))
        interpreter = Interpreter(model.bound.data, values, model.program.externs)
        return {name: float(interpreter.value(known[name].value)) for name in names}

    return call


def _packed(
    model: Model,
    functions: TorchOracle,
    name: str,
    final: RunResult,
    certificate: Certificate | None,
    decision: Decision,
    clock: Clock,
    earlier: Saved | None,
    options: SolveOptions,
) -> Result:
    """Everything by name, in NumPy, with the signs that the model has."""
    upper, lower = functions.unflatten_x(final.x), functions.unflatten_y(final.y)
    program = model.program
    interpreter = Interpreter(model.bound.data, environment(upper, lower), program.externs)
    if isinstance(functions, StreamedOracle):  # by blocks; else by means of their own
        values = functions.objectives(final.x, final.y)
        objectives = {v.name: values[v.name] for v in program.lowers}
        reports = {key: functions.report(key, final.x, final.y) for key in program.reports}
    else:
        objectives = {v.name: float(interpreter.value(v.objective).sum()) for v in program.lowers}
        reports = {key: interpreter.value(r.value) for key, r in program.reports.items()}
    counts, iterations = dict(final.counts), final.iterations
    if earlier is not None and earlier.history:
        counts = add_counts(earlier.history[-1].counts, counts)
        iterations += earlier.history[-1].iteration
    return Result(
        model=program.name,
        status=final.status,
        message=final.message,
        F=final.F,
        f=objectives,
        upper=upper,
        lower=lower,
        reports={n: float(v) if v.ndim == 0 else v for n, v in reports.items()},
        certificate=certificate,
        backend=name,
        decision=decision,
        iterations=iterations,
        counts=counts,
        time=clock.total(),
        history=joined(earlier, list(final.history)),
        provenance=provenance(model.bound, options, name),
        warnings=(*decision.warnings, *final.warnings),
    )
