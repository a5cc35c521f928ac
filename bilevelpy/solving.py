"""From a model to a result: compile, analyse, decide, run, certify, pack."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.analysis import analyze
from bilevelpy.backends import registry
from bilevelpy.backends.whole import ProgramBackend
from bilevelpy.checkpoint import Checkpoint, Saved, add_counts, joined
from bilevelpy.checkpoint import read as read_checkpoint
from bilevelpy.dispatcher import dispatch
from bilevelpy.errors import BackendError, UsageError
from bilevelpy.expectations import environment
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.model import Model
from bilevelpy.numerics.certificate import examine, settle
from bilevelpy.numerics.driver import IterationState, RunResult
from bilevelpy.numerics.driver import run as drive
from bilevelpy.options import SolveOptions, did_you_mean
from bilevelpy.progress import Progress, wanted
from bilevelpy.provenance import provenance
from bilevelpy.result import Certificate, Record, Result, Status

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.dispatcher import Decision


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller wants besides the options of the solve itself. ``decided`` sees structure and
    decision first.
    """

    start: Mapping[str, Any] = field(default_factory=dict)
    callback: Callable[[IterationState], Any] | None = None
    progress: bool | None = None
    checkpoint: str | Path | None = None
    resume: bool = False
    verify: bool = True
    watch: tuple[str, ...] = ()
    decided: Callable[[Structure, Decision], None] | None = None

    def __post_init__(self) -> None:
        if self.resume and self.checkpoint is None:
            raise UsageError("resume needs the checkpoint to go on from")


class Clock:
    """Seconds by phase."""

    def __init__(self, began: float) -> None:
        self.began = self.last = began
        self.phases: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """What passed since the last lap belongs to ``phase``."""
        now = time.perf_counter()
        self.phases[phase] = now - self.last
        self.last = now

    def total(self) -> dict[str, float]:
        """All phases and their sum."""
        return {**self.phases, "total": time.perf_counter() - self.began}


def oracle(model: Model) -> TorchOracle:
    """The compiled model, made once; models that differ in their data share what was compiled."""
    if "oracle" not in model.cache:
        model.cache["oracle"] = TorchOracle(model.bound)
    made: TorchOracle = model.cache["oracle"]
    return made


def structure(model: Model, seed: int) -> Structure:
    """The facts about a model, found once for each seed.

    A model that cannot be compiled (multipliers in the upper level, integers) has a structure too:
    what its text shows.
    """
    key = f"structure {seed}"
    if key not in model.cache:
        functions: TorchOracle | None = None
        with contextlib.suppress(BackendError):
            functions = oracle(model)
        model.cache[key] = analyze(model.bound, functions, seed=seed)
    found: Structure = model.cache[key]
    return found


def run(model: Model, options: SolveOptions, request: Request, began: float) -> Result:
    """Solve ``model`` and certify the answer."""
    clock = Clock(began)
    with contextlib.suppress(BackendError):
        oracle(model)
    clock.lap("compile")
    facts = structure(model, options.seed)
    decision = dispatch(facts, backend=options.backend, force=options.force)
    clock.lap("analyze")
    backend = registry.get(decision.chosen)
    if isinstance(backend, ProgramBackend):
        return _whole(model, backend, facts, decision, options, request, clock)
    functions = oracle(model)  # what cannot be compiled has been refused by the dispatcher
    if request.decided is not None:
        request.decided(facts, decision)
    earlier, keeper = _checkpoint(model, request)
    line = Progress(options.tol) if wanted(request.progress) else None
    # The backend's own defaults < what the dispatcher chose for this model < what the user says.
    settings = replace(
        options, backend_options={**decision.options, **dict(options.backend_options)}
    )
    judge = _Judge(functions, facts, options, request.verify)
    try:
        raw = drive(
            functions,
            backend,
            facts,
            settings,
            callback=_callback(request.callback, keeper),
            progress=line,
            start=_start(functions, request.start, earlier),
            report=_reports(model, functions, request.watch),
            onward=judge.onward,
        )
    finally:
        if line is not None:
            line.close()
        if keeper is not None:
            keeper.write()
    clock.lap("solve")
    within = judge.seconds  # certificates of points from which the run went on, and of the last
    final, certificate = judge.verdict(raw)
    clock.lap("verify")
    clock.phases["solve"] -= within
    clock.phases["verify"] += within
    return _packed(model, functions, final, certificate, decision, clock, earlier, options)


def _whole(
    model: Model,
    backend: ProgramBackend,
    facts: Structure,
    decision: Decision,
    options: SolveOptions,
    request: Request,
    clock: Clock,
) -> Result:
    """The answer of a backend that takes the program as a whole, with its own certificate."""
    if request.checkpoint is not None:
        raise UsageError(f"backend `{decision.chosen}` keeps no checkpoints")
    if request.decided is not None:
        request.decided(facts, decision)
    given = {**decision.options, **dict(options.backend_options), "tol": options.tol}
    settings = registry.get(decision.chosen).options.from_mapping(given, decision.chosen)
    answer = backend.solve(model.bound, options, settings, request.verify)
    clock.lap("solve")
    clock.phases["verify"] = clock.phases["solve"] - answer.seconds
    clock.phases["solve"] = answer.seconds
    upper, lower = answer.variables()
    F, objectives = answer.objectives()
    program, reports, history = model.program, {}, []
    if answer.has_point:
        interpreter = Interpreter(model.bound.data, environment(upper, lower, answer.duals))
        reports = {n: interpreter.value(r.value) for n, r in program.reports.items()}
        total = sum(objectives.values())
        history = [Record(0, answer.seconds, F, total, math.nan, math.nan, {})]
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
        backend=decision.chosen,
        decision=decision,
        iterations=answer.iterations,
        counts={},
        time=clock.total(),
        history=history,
        provenance=provenance(model.bound, options, decision.chosen),
        duals=answer.duals,
        warnings=(*decision.warnings, *answer.warnings),
    )


def _checkpoint(model: Model, request: Request) -> tuple[Saved | None, Checkpoint | None]:
    """The run to go on from, if there is one, and the keeper of this one."""
    if request.checkpoint is None:
        return None, None
    earlier = read_checkpoint(request.checkpoint, model.bound) if request.resume else None
    return earlier, Checkpoint(request.checkpoint, model.bound, earlier)


def _callback(
    callback: Callable[[IterationState], Any] | None, keeper: Checkpoint | None
) -> Callable[[IterationState], Any] | None:
    """The user's callback, and the checkpoint's."""
    if keeper is None:
        return callback

    def call(state: IterationState) -> Any:
        keeper.observe(_record(state), state.x, state.y)
        return callback(state) if callback is not None else False

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
    )


def _start(
    functions: TorchOracle, values: Mapping[str, Any], earlier: Saved | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Where to start: named values replace parts of the default, a checkpoint all of it."""
    x, y = functions.x0.clone(), functions.y0.clone()
    if earlier is not None:
        if earlier.x.shape != x.shape or earlier.y.shape != y.shape:
            raise UsageError("the checkpoint holds variables of other sizes")
        x, y = torch.from_numpy(earlier.x), torch.from_numpy(earlier.y)
    if not values:
        return x, y
    upper, lower = functions.unflatten_x(x), functions.unflatten_y(y)
    places: dict[str, list[np.ndarray]] = {}
    for name, array in upper.items():
        places.setdefault(name, []).append(array)
        places.setdefault(f"upper.{name}", []).append(array)
    for level, variables in lower.items():
        for name, array in variables.items():
            places.setdefault(name, []).append(array)
            places.setdefault(f"{level}.{name}", []).append(array)
    for name, value in values.items():
        found = places.get(name, [])
        if len(found) != 1:
            problem = "several variables are called" if found else "there is no variable"
            raise UsageError(f"start: {problem} `{name}`{did_you_mean(name, list(places))}")
        _assign(name, found[0], value)
    return x, y


def _assign(name: str, target: np.ndarray, value: Any) -> None:
    """Write a start value into the part of the vector that ``target`` is a view of."""
    try:
        given = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise UsageError(f"start: `{name}` takes numbers") from error
    if given.shape not in ((), target.shape):
        raise UsageError(f"start: `{name}` has shape {target.shape}, found {given.shape}")
    if not np.isfinite(given).all():
        raise UsageError(f"start: `{name}` must be finite")
    target[...] = given


def _reports(
    model: Model, functions: TorchOracle, names: tuple[str, ...]
) -> Callable[[torch.Tensor, torch.Tensor], Mapping[str, float]] | None:
    """The reports to watch along the run; scalars only, for each is one number of a record."""
    known = model.program.reports
    for name in names:
        if name not in known:
            raise UsageError(f"watch: there is no report `{name}`{did_you_mean(name, list(known))}")
        if known[name].value.axes:
            raise UsageError(f"watch: report `{name}` is not a single number")
    if not names:
        return None

    def call(x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
        values = environment(functions.unflatten_x(x), functions.unflatten_y(y))
        interpreter = Interpreter(model.bound.data, values)
        return {name: float(interpreter.value(known[name].value)) for name in names}

    return call


class _Judge:
    """Certifies the points that a run ends with; the last certificate is that of the result."""

    def __init__(
        self, functions: TorchOracle, facts: Structure, options: SolveOptions, verify: bool
    ) -> None:
        self.functions, self.facts, self.options, self.verify = functions, facts, options, verify
        self.known: tuple[torch.Tensor, torch.Tensor, Certificate | None] | None = None
        self.seconds = 0.0

    def onward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | None:
        """A lower point beside (x, y), if the certificate fails for nothing else."""
        if not self.verify:
            return None
        began = time.perf_counter()
        try:
            rng = torch.Generator().manual_seed(self.options.seed)
            certificate, downhill = examine(self.functions, x, y, self.facts, self.options, rng)
        except KeyboardInterrupt:
            self.known = (x, y, None)
            return None
        finally:
            self.seconds += time.perf_counter() - began
        self.known = (x, y, certificate)
        return downhill

    def verdict(self, raw: RunResult) -> tuple[RunResult, Certificate | None]:
        """The run with its final status; without a certificate it is never "converged"."""
        if not self.verify:
            done = raw.status is Status.CONVERGED
            message = f"{raw.message}; not verified"
            return (replace(raw, status=Status.STALLED, message=message) if done else raw), None
        if self.known is None or self.known[0] is not raw.x or self.known[1] is not raw.y:
            self.onward(raw.x, raw.y)
        certificate = self.known[2] if self.known is not None else None
        if certificate is None:
            message = "interrupted while the certificate was computed; the point is kept"
            return replace(raw, status=Status.INTERRUPTED, message=message), None
        return settle(raw, certificate), certificate


def _packed(
    model: Model,
    functions: TorchOracle,
    final: RunResult,
    certificate: Certificate | None,
    decision: Decision,
    clock: Clock,
    earlier: Saved | None,
    options: SolveOptions,
) -> Result:
    """Everything by name, in NumPy, with the signs that the model has."""
    upper, lower = functions.unflatten_x(final.x), functions.unflatten_y(final.y)
    interpreter = Interpreter(model.bound.data, environment(upper, lower))
    program = model.program
    objectives = {v.name: float(interpreter.value(v.objective).sum()) for v in program.lowers}
    reports = {name: interpreter.value(r.value) for name, r in program.reports.items()}
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
        backend=decision.chosen,
        decision=decision,
        iterations=iterations,
        counts=counts,
        time=clock.total(),
        history=joined(earlier, list(final.history)),
        provenance=provenance(model.bound, options, decision.chosen),
        warnings=(*decision.warnings, *final.warnings),
    )
