"""Solves by backends that the driver steps: run, certify, pack."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.backends import registry
from bilevelpy.backends.rescaled import SCALABLE, Rescaled
from bilevelpy.errors import UsageError
from bilevelpy.expectations import environment
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.ir.walk import duals as prices_read
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.sums.nonfinite import culprit
from bilevelpy.lowering.sums.sharded import ShardedOracle
from bilevelpy.lowering.sums.streaming import is_streamed
from bilevelpy.model import Model
from bilevelpy.numerics.driver.carried import Carried, Damaged
from bilevelpy.numerics.driver.loop import PATH, IterationState, Keep, RunResult
from bilevelpy.numerics.driver.loop import run as drive
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.driver.runs import is_end
from bilevelpy.options import SolveOptions
from bilevelpy.records.checkpoint import Checkpoint, Saved, add_counts, joined
from bilevelpy.records.provenance import provenance
from bilevelpy.result import Certificate, Record, Result, Status
from bilevelpy.solving.early_stopping import Stop, Watched, passed
from bilevelpy.solving.facts import hashes, units
from bilevelpy.solving.judge import Judge
from bilevelpy.solving.on_device import ALONE, continued, going_on, run_on_device, usable
from bilevelpy.solving.posed import Posed, posed
from bilevelpy.solving.prices import beyond_declared, prices_at, told, unknown
from bilevelpy.solving.progress import Progress, wanted
from bilevelpy.solving.starts import moved, start_vectors

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.dispatcher import Decision
    from bilevelpy.lowering.oracle import TorchOracle
    from bilevelpy.solving.request import Clock, Request

# The stage of a run that is the only one but where it has begun on another device.
MAIN = "main"
# Seconds in which nothing but the value at a point is found.
AT_ONCE = 1e-9


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
    backend: Any = registry.get(name)
    # What cannot be compiled has been refused by the dispatcher.
    taken = posed(model, facts, backend)
    functions, facts = taken.functions, taken.facts
    line = Progress(options.tol) if wanted(request.progress) else None
    # Step lengths and the like that the caller gives are in the model's own units.
    plain = all(isinstance(value, bool) for value in options.backend_options.values())
    scaling = units(model) if name in SCALABLE and plain else None
    judge = Judge(taken, scaling, options, request.verify, clock)
    watched, stop = _watched(model, request, earlier)
    recorded = watched if stop is None else [*watched, stop.watched]
    try:
        method = backend if scaling is None else Rescaled(backend, scaling)
        callback = _callback(request.callback, stop, taken)
        keep = None if keeper is None else _keep(keeper, stop, taken)
        x, y = start_vectors(taken.given, request.start, earlier)
        outside = moved(taken.given, request.start, x, y)
        start = (x, taken.widened(x, y))
        stage, carried = ("", None) if earlier is None else (earlier.stage, earlier.carried)
        # What is left of a limit that has not ended the run.
        spent = 0 if earlier is None else earlier.iterations
        left = options
        if spent:
            left = replace(options, max_iter=max(0, options.max_iter - spent))
        first: RunResult | None = None
        if stage != MAIN and options.begins_on_device:
            limited = left.within(judge.run_limit())
            first = run_on_device(functions, method, facts, limited, callback, start, keep, carried)
            if usable(first):
                start = (first.x, first.y)
        halted = first is not None and first.status is Status.INTERRUPTED
        if keeper is not None and not halted:
            keeper.stage = MAIN
        raw = going_on(
            partial(
                drive,
                functions,
                method,
                facts,
                (left if stage == MAIN else options).within(
                    AT_ONCE if halted else judge.run_limit()
                ),
                callback=callback,
                progress=line,
                start=start,
                report=_reports(model, functions, recorded),
                onward=judge.onward,
                keep=None if halted else keep,
            ),
            carried if stage == MAIN else None,
        )
        if earlier is not None and earlier.plan is not None and carried is None:
            raw = replace(raw, warnings=(*raw.warnings, f"{ALONE}, which is all that it holds"))
        if spent and raw.status is Status.ITERATION_LIMIT:
            message = f"stopped after {options.max_iter} iterations (max_iter)"
            raw = replace(raw, message=message)
        if first is not None:
            raw = continued(first, raw)
        if raw.status is Status.DIVERGED:
            raw = _located(functions, raw)
    except Damaged as error:
        assert keeper is not None
        raise UsageError(f"cannot resume from {keeper.path}: it is damaged ({error})") from error
    finally:
        if line is not None:
            line.close()
        if keeper is not None:
            keeper.write()
    if stop is not None:
        raw = stop.settle(raw)
        raw = replace(raw, y=taken.widened(raw.x, raw.y))
    along = joined(earlier, list(raw.history))
    if outside:
        raw = replace(raw, warnings=(*raw.warnings, *outside))
    if watched:
        raw = replace(raw, warnings=(*raw.warnings, *passed(watched, along)))
    clock.lap("solve")
    within = judge.seconds  # certificates of points from which the run went on, and of the last
    final, certificate = judge.verdict(raw)
    clock.lap("verify")
    clock.to_verify(within)
    return packed(model, taken, name, final, certificate, decision, clock, earlier, options)


def _watched(
    model: Model, request: Request, earlier: Saved | None
) -> tuple[list[Watched], Stop | None]:
    """The reports that are followed along the run, and the one that ends it.

    Raises
    ------
    UsageError
        Where one of them is not known along the run.
    """
    watched = [Watched.read(text, model.program, "watch") for text in request.watch]
    stop: Stop | None = None
    if request.stop_by is not None:
        ending = Watched.read(request.stop_by, model.program, "stop_by")
        stop = Stop(ending, request.patience, earlier)
    for report in watched if stop is None else [*watched, stop.watched]:
        if prices_read(model.program.reports[report.name].value):
            raise UsageError(
                f"the report `{report.name}` reads a shadow price, which is known at the end only: "
                "watch another one"
            )
    return watched, stop


def _callback(
    callback: Callable[[IterationState], Any] | None, stop: Stop | None, taken: Posed
) -> Callable[[IterationState], Any] | None:
    """The user's callback, and that of a report that ends the run."""
    if callback is None and stop is None:
        return None

    def call(state: IterationState) -> Any:
        if taken.places is not None:
            state = replace(state, y=taken.narrowed(torch.from_numpy(state.y.copy())).numpy())
            state.y.flags.writeable = False
        ended = stop.observe(_record(state), state.x, state.y) if stop is not None else False
        wanted = is_end(callback(state)) if callback is not None else False
        return wanted or ended

    return call


def _keep(keeper: Checkpoint, stop: Stop | None, taken: Posed) -> Keep:
    """What puts iterations into the checkpoint."""

    def keep(record: Record, m: Measure, capture: Callable[[], Carried | None]) -> None:
        best = stop.best if stop is not None else None
        y = taken.narrowed(m.y)
        keeper.observe(record, m.x.numpy().copy(), y.numpy().copy(), best, capture)

    return keep


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
    streamed = is_streamed(model.bound)

    def call(x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
        if streamed:  # by blocks
            return {name: float(functions.report(name, x, y)) for name in names}
        values = environment(functions.unflatten_x(x), functions.unflatten_y(y))
        interpreter = Interpreter(model.bound.data, values, model.program.externs)
        return {name: float(interpreter.value(known[name].value)) for name in names}

    return call


def packed(
    model: Model,
    taken: Posed,
    name: str,
    final: RunResult,
    certificate: Certificate | None,
    decision: Decision,
    clock: Clock,
    earlier: Saved | None,
    options: SolveOptions,
) -> Result:
    """Everything by name, in NumPy, with the signs that the model has."""
    duals = taken.told(prices_at(name, taken.functions, final.x, final.y, certificate))
    functions, final = taken.given, replace(final, y=taken.narrowed(final.y))
    upper, lower = functions.unflatten_x(final.x), functions.unflatten_y(final.y)
    program = model.program
    known = environment(upper, lower, {**unknown(model), **duals})
    interpreter = Interpreter(model.bound.data, known, program.externs)
    if is_streamed(model.bound):  # by blocks; else by means of their own
        values = functions.objectives(final.x, final.y)
        objectives = {v.name: values[v.name] for v in program.lowers}
        reports = {key: functions.report(key, final.x, final.y) for key in program.reports}
    else:
        if len(program.lowers) == 1:
            objectives = {program.lowers[0].name: functions.f_sign * functions.f(final.x, final.y)}
        else:
            whole = {v.name: interpreter.value(v.objective) for v in program.lowers}
            objectives = {key: float(value.sum()) for key, value in whole.items()}
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
        provenance=provenance(model.bound, hashes(model), options, name),
        duals=duals,
        warnings=(
            *decision.warnings,
            *final.warnings,
            *told(model, duals),
            *beyond_declared(model, duals),
        ),
    )


def _located(functions: TorchOracle, run: RunResult) -> RunResult:
    """The run with the element of the data named at which an objective stops to be finite; as it is
    where both are finite at its point, or no single sum shows it.
    """
    x, y = run.x, run.y
    for lower in (True, False):
        value = functions.f(x, y) if lower else functions.F(x, y)
        if math.isfinite(value):
            continue
        if isinstance(functions, ShardedOracle):
            where = functions.culprit(x, y, lower=lower)
        else:
            objective = functions.f_expr if lower else functions.F_expr
            variables = [*functions.upper.split(x), *functions.lower.split(y)]
            where = culprit(functions, objective, variables)
        if where is not None:
            level = "lower" if lower else "upper"
            return replace(run, message=f"{run.message} (in the {level} objective {where} is not)")
    return run
