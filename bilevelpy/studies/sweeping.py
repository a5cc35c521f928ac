"""One model many times: a grid of values, seeds, starts and backends, in parallel processes."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bilevelpy.backends import registry
from bilevelpy.diagnostics import Source
from bilevelpy.errors import BackendError, BilevelError, UsageError
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.ir.types import DomainKind
from bilevelpy.markup.table import table
from bilevelpy.model import Given, Model, build
from bilevelpy.options import SolveOptions
from bilevelpy.result import Result, Status
from bilevelpy.system import storage

# Seconds between two calls of a caller's function while a sweep goes on.
INTERVAL = 10.0
# Beyond this many runs a grid is a mistake of typing rather than a wish.
MOST_RUNS = 100_000
# What a run says that was under way where a process was killed. So many pools in a row that end so
# before a run is complete, and none is begun again.
LOST = "a process of the sweep was ended from outside (out of memory?): fewer `jobs`"
MOST_IN_VAIN = 2


@dataclass(frozen=True, slots=True)
class Job:
    """One run: the values bound by name, and what distinguishes it otherwise."""

    values: Mapping[str, Any]
    seed: int
    start: int
    backend: str


@dataclass(frozen=True, slots=True)
class Run:
    """A job and how it ended: a result, or the words with which it was refused (and the ``reason``
    in a few of them, where a backend does not take the model).
    """

    job: Job
    result: Result | None
    refused: str = ""
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True, repr=False)
class Sweep:
    """All runs of a sweep, in the order of its grid. Prints as a table. Where it was interrupted,
    ``unfinished`` runs are missing.
    """

    model: str
    sense: str
    runs: tuple[Run, ...]
    varied: tuple[str, ...] = field(default=())
    unfinished: int = 0

    @property
    def success(self) -> bool:
        """Whether every run has a certified answer."""
        done = bool(self.runs) and not self.unfinished
        return done and all(r.result is not None and r.result.success for r in self.runs)

    @property
    def interrupted(self) -> bool:
        """Whether it ended before all runs had: the table holds those that were complete."""
        return bool(self.unfinished)

    def best(self) -> Run:
        """The certified run with the best upper objective (of those without one, if none has).

        Raises
        ------
        UsageError
            No run has a point.
        """
        found = [r for r in self.runs if r.result is not None and math.isfinite(r.result.F)]
        if not found:
            raise UsageError("no run of the sweep has a point")
        sign = -1.0 if self.sense == "maximize" else 1.0

        def rank(run: Run) -> tuple[bool, float]:
            assert run.result is not None
            return not run.result.success, sign * run.result.F

        return min(found, key=rank)

    def rows(self) -> list[dict[str, Any]]:
        """One row a run: what was varied, status, F, hypergradient, scalar reports, time."""
        return [_row(run, self.varied) for run in self.runs]

    def as_dict(self) -> dict[str, Any]:
        """Everything in JSON types."""
        rows = self.rows()
        found = {"model": self.model, "success": self.success, "runs": rows}
        return {**found, "unfinished": self.unfinished} if self.interrupted else found

    def save(self, path: str | Path) -> None:
        """Write the table: ``.csv``, or ``.json``. The file is complete or absent.

        Raises
        ------
        UsageError
            The name ends otherwise, or the file cannot be written.
        """
        suffix = storage.path_given(path, "save").suffix.lower()
        if suffix == ".json":
            storage.write_json(path, self.as_dict())
        elif suffix == ".csv":
            storage.write_text(path, _csv(self.rows()))
        else:
            raise UsageError(f"`{Path(path).name}` must end in .csv or .json")

    def __repr__(self) -> str:
        rows = self.rows()
        if not rows:
            return self._ending()
        notes = [f"{k + 1}: {row['message']}" for k, row in enumerate(rows) if row.get("message")]
        notes += [self._ending()] if self.interrupted else []
        reports = {n for run in self.runs if run.result is not None for n in run.result.reports}
        for row in rows:
            row.pop("message", None)
            row["s"] = round(row["s"], 3)
        return table(rows, reports, notes)

    def _ending(self) -> str:
        done = len(self.runs)
        return f"interrupted: {done} of {done + self.unfinished} runs are complete"


def sweep(
    model: Model,
    *,
    params: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    starts: int,
    backends: Sequence[str],
    jobs: int | None,
    options: Mapping[str, Any],
    callback: Callable[[Sweep], object] | None = None,
) -> Sweep:
    """Solve every combination; see :func:`bilevelpy.sweep`. ``options`` are those of
    :class:`~bilevelpy.options.SolveOptions`.
    """
    for backend in backends:
        if backend != "auto":
            registry.get(backend)  # an unknown name is an error before the first run
    SolveOptions(**options)  # a wrong option is an error before the first run
    grid = list(_grid(model, params, seeds, starts, backends))
    for seed in seeds:
        SolveOptions(seed=seed, **options)
    varied = [*params]
    for name, values in (("seed", seeds), ("start", range(starts)), ("backend", backends)):
        varied += [name] if len(values) > 1 else []
    sense = model.program.upper.sense.value
    found: dict[int, Run] = {}

    def so_far() -> Sweep:
        runs = tuple(found[k] for k in sorted(found))
        return Sweep(model.name, sense, runs, tuple(varied), len(grid) - len(runs))

    told = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt):
        for k, run in _one_by_one(model, grid, _processes(jobs, len(grid)), options):
            if run.result is not None and run.result.status is Status.INTERRUPTED:
                break
            found[k] = run
            if callback is not None and time.monotonic() - told >= INTERVAL:
                callback(so_far())
                told = time.monotonic()
    return so_far()


def _grid(
    model: Model,
    params: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    starts: int,
    backends: Sequence[str],
) -> Iterator[Job]:
    """Every combination, the last name running fastest."""
    for name, values in params.items():
        if name not in model.program.params and name not in model.program.axes:
            known = ", ".join(model.program.params) or "none"
            raise UsageError(f"model `{model.name}` has no param `{name}`; it has: {known}")
        if not len(values):
            raise UsageError(f"param `{name}` has no values to sweep over")
    if starts < 1:
        raise UsageError(f"starts must be at least 1, found {starts}")
    if not seeds or not backends:
        raise UsageError("a sweep needs at least one seed and one backend")
    count = math.prod(map(len, params.values())) * len(seeds) * starts * len(backends)
    if count > MOST_RUNS:
        raise UsageError(f"the sweep has {count} runs; at most {MOST_RUNS} are allowed")
    for combination in itertools.product(*params.values()):
        chosen = dict(zip(params, combination, strict=True))
        for seed, start, backend in itertools.product(seeds, range(starts), backends):
            yield Job(chosen, seed, start, backend)


def _one_by_one(
    model: Model, grid: Sequence[Job], count: int, options: Mapping[str, Any]
) -> Iterator[tuple[int, Run]]:
    """The runs with their places, as they end; in ``count`` processes (of joblib)."""
    if count == 1:
        for k, job in enumerate(grid):
            yield k, _run(model, job, options)
        return
    if not model.sources:
        raise UsageError("the model has no text that other processes could read: jobs=1")
    source = next(iter(model.sources.values()))
    import joblib
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    left, in_vain = list(range(len(grid))), 0
    while left:
        before = len(left)
        # joblib gives every process its share of the cores; a context of the caller's (Ray's) is
        # kept. Runs are handed out one by one, in order.
        together = joblib.Parallel(n_jobs=count, return_as="generator_unordered", batch_size=1)
        try:
            for k, done in together(
                joblib.delayed(_run_apart)(source, model.given, k, grid[k], options)
                for k in tuple(left)
            ):
                left.remove(k)
                yield k, done
        except TerminatedWorkerError:
            # The first ones were under way, and which it was is not known. The others go on.
            in_vain = in_vain + 1 if len(left) == before else 0
            for k in left[:count] if in_vain < MOST_IN_VAIN else left[:]:
                left.remove(k)
                yield k, Run(grid[k], None, LOST)


def _processes(jobs: int | None, runs: int) -> int:
    """How many processes: ``jobs`` if given, else one a core; never more than runs."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs must be at least 1, found {jobs}")
    wanted = min(jobs if jobs is not None else os.cpu_count() or 1, runs)
    try:
        import joblib  # noqa: F401
    except ImportError:
        if jobs is not None and wanted > 1:
            raise UsageError("parallel runs need joblib (the extra `parallel`)") from None
        return 1
    return wanted


def _run_apart(
    source: Source, given: Given, k: int, job: Job, options: Mapping[str, Any]
) -> tuple[int, Run]:
    """A run in a process of its own: expressions are compared by identity and stay at home, so the
    text is checked again.
    """
    return k, _run(build(source, given), job, options)


def _run(model: Model, job: Job, options: Mapping[str, Any]) -> Run:
    """One run; whatever its values make impossible becomes a row, not the end of the sweep."""
    from bilevelpy.solving import Request, run

    began = time.perf_counter()
    try:
        bound = model.bind(**job.values) if job.values else model
        start = random_start(bound, job.seed, job.start) if job.start else {}
        settings = SolveOptions(backend=job.backend, seed=job.seed, **options)
        result = run(bound, settings, Request(start=start, progress=False), began)
    except BilevelError as error:
        reason = error.reason if isinstance(error, BackendError) else ""
        return Run(job, None, str(error), time.perf_counter() - began, reason)
    except Exception as error:  # a fault of ours, or too little memory: the others go on
        fault = f"internal error: {type(error).__name__}: {error}"
        return Run(job, None, fault, time.perf_counter() - began)
    return Run(job, result, "", time.perf_counter() - began)


def random_start(model: Model, seed: int, index: int) -> dict[str, np.ndarray]:
    """Start values of the upper variables: uniform in an interval, on a simplex or in a ball; where
    a side is open, normal around the declared start.
    """
    rng = np.random.default_rng([seed, index])
    interpreter = Interpreter(model.bound.data)
    found: dict[str, np.ndarray] = {}
    for variable in model.program.upper.variables:
        shape = tuple(model.bound.data.sizes[a] for a in variable.axes)
        domain = variable.domain
        start: Any = 0.0 if variable.start is None else interpreter.value(variable.start)
        center = np.broadcast_to(np.asarray(start, dtype=float), shape)
        if domain.kind is DomainKind.SIMPLEX:
            value = rng.dirichlet(np.ones(shape[-1]), size=shape[:-1])
        elif domain.kind is DomainKind.BALL:
            assert domain.radius is not None
            radius = np.asarray(interpreter.value(domain.radius), dtype=float)
            direction = rng.normal(size=shape)
            length = rng.uniform() ** (1.0 / max(1, direction.size))
            value = direction * (radius * length / np.linalg.norm(direction))
        elif domain.kind in (DomainKind.FREE, DomainKind.INTERVAL):
            low, high = (
                np.broadcast_to(
                    np.asarray(open_end if e is None else interpreter.value(e), dtype=float), shape
                )
                for e, open_end in ((domain.lower, -math.inf), (domain.upper, math.inf))
            )
            closed = np.isfinite(low) & np.isfinite(high)
            around = center + (1.0 + np.abs(center)) * rng.normal(size=shape)
            inside = np.where(closed, low, 0.0) + rng.uniform(size=shape) * np.where(
                closed, np.where(closed, high, 0.0) - np.where(closed, low, 0.0), 0.0
            )
            value = np.clip(np.where(closed, inside, around), low, high)
        else:
            continue  # integers and semidefinite matrices keep their declared start
        found[f"upper.{variable.name}"] = value
    return found


def _row(run: Run, varied: Iterable[str]) -> dict[str, Any]:
    job, result = run.job, run.result
    own = {"seed": job.seed, "start": job.start + 1, "backend": job.backend}
    row: dict[str, Any] = {n: own[n] if n in own else job.values[n] for n in varied}
    if result is None:
        refusal = run.reason or (run.refused.splitlines()[0] if run.refused else "")
        return {**row, "status": "refused", "F": math.nan, "s": run.seconds, "message": refusal}
    norm = math.nan if result.certificate is None else result.certificate.hypergradient_norm
    row |= {"status": result.status.value, "F": result.F}
    row |= {name: v for name, v in result.reports.items() if isinstance(v, float)}
    row |= {"hypergradient": norm, "iterations": result.iterations, "s": run.seconds}
    return row if result.success else {**row, "message": result.message}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    import csv
    import io

    names = list(dict.fromkeys(n for row in rows for n in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: storage.plain(v) for k, v in row.items()} for row in rows)
    return stream.getvalue()
