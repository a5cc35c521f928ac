"""``bilevelpy solve``: from a model file to a certified answer."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bilevelpy.cli import arguments
from bilevelpy.cli.console import print_diagnostics, print_json, say
from bilevelpy.cli.guard import DONE, INTERRUPTED, UNSOLVED
from bilevelpy.cli.ranks import rank, world
from bilevelpy.cli.sources import load
from bilevelpy.options import SolveOptions
from bilevelpy.system.deadline import reading

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.dispatcher import Decision
    from bilevelpy.model import Model
    from bilevelpy.result import Result
    from bilevelpy.solving import Request


def solve(
    model: arguments.ModelFile,
    data: arguments.Data = None,
    param: arguments.Param = None,
    extern: arguments.ExternOption = None,
    backend: arguments.BackendName = "auto",
    tol: arguments.Tolerance = 1e-6,
    max_iter: arguments.Iterations = 500,
    time_limit: arguments.Seconds = None,
    seed: arguments.Seed = 0,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Values to start from: .npz, .json, .sol, a saved result."
        ),
    ] = None,
    option: arguments.OptionOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Use --backend even where it rejects the model.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the result (.json, .npz).")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the run (.png, .svg).")
    ] = None,
    plot_kind: Annotated[
        str,
        typer.Option(
            metavar="KIND", help="convergence, landscape, response, network, images or values."
        ),
    ] = "convergence",
    plot_along: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The upper variable that moves, for a response."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the run now and then.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint, if there is one.")
    ] = False,
    watch: Annotated[
        list[str] | None,
        typer.Option(metavar="'max REPORT'", help="Follow a report along the run; repeatable."),
    ] = None,
    stop_by: Annotated[
        str | None,
        typer.Option(metavar="'max REPORT'", help="End where a report on held-out data is best."),
    ] = None,
    patience: Annotated[
        int, typer.Option(metavar="N", help="Iterations to wait for a better report.")
    ] = 20,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where the run begins: cpu, cuda, cuda:1, ...")
    ] = "cpu",
    dtype: Annotated[
        str, typer.Option(metavar="TYPE", help="What it begins in: float64 or float32.")
    ] = "float64",
    as_json: arguments.AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only.")] = False,
) -> int:
    """Solve a model and certify the answer.

    Exit codes: 0 solved and certified; 1 not solved within the limits; 2 the model, its data or the
    command line is wrong, or no backend takes the model; 130 interrupted (the best point is printed
    and saved).
    """
    if world() == 1:
        _end_in_order()
    arguments.check_target(out, ".json", ".npz")
    arguments.check_target(plot, *arguments.FIGURES)
    limit = math.inf if time_limit is None else time_limit
    options = SolveOptions(
        backend, tol, max_iter, limit, seed, force, arguments.options(option), device, dtype
    )
    if world() > 1:
        from bilevelpy.distributed import meet

        meet()
    began = time.perf_counter()
    with reading(began, limit):
        loaded = load(model, data, param, extern)
    if loaded.warnings and not quiet and not rank():
        print_diagnostics(loaded.warnings, loaded.sources, sys.stderr)
    # Only now, when the model is known to be right, the libraries that take seconds to load.
    from bilevelpy.solving import Request

    drawn = {} if plot_along is None else {"along": plot_along}
    if plot is not None and (plot_kind != "convergence" or drawn):
        from bilevelpy.pictures import require

        # A picture that cannot be drawn is said before the solve.
        require(loaded.bound, plot_kind, plot_along)
    request = Request(
        start={} if start is None else _values(start, loaded),
        progress=False if quiet else None,
        checkpoint=checkpoint,
        resume=resume,
        watch=tuple(watch or ()),
        stop_by=stop_by,
        patience=patience,
        decided=None if quiet or as_json else _announce,
    )
    result = _run(loaded, options, request, began)
    if result is None:  # a process that served the one which solves
        return DONE
    draw = partial(result.plot, kind=plot_kind, model=loaded, **drawn)
    _save([(out, result.save), (plot, draw)], quiet)
    return shown(result, loaded, as_json)


def shown(result: Result, loaded: Model, as_json: bool) -> int:
    """Print a result; the exit code that it deserves."""
    if as_json:
        print_json(result.as_dict())
    else:
        from bilevelpy.cli.tables import console, result_table
        from bilevelpy.reductions.columns import labels_of

        console(errors=False).print(result_table(result, labels_of(loaded.bound)))
    if result.success:
        return DONE
    return INTERRUPTED if result.status == "interrupted" else UNSOLVED


def _values(path: Path, loaded: Model) -> dict[str, Any]:
    from bilevelpy.records.saved import values_in

    return values_in(path, loaded.bound, "--start")


def _run(loaded: Model, options: SolveOptions, request: Request, began: float) -> Result | None:
    """Solve, in one process or, under ``torchrun``, with the evaluations divided among several."""
    from bilevelpy.solving import run

    if world() == 1:
        return run(loaded, options, request, began)
    from bilevelpy.distributed import shared

    with shared(loaded) as leads:
        return run(loaded, options, request, began) if leads else None


def _end_in_order() -> None:
    """Take a signal that ends the process for an interruption, which keeps the best point.

    Schedulers end a job with the first of these signals, a terminal that closes with the second,
    unless `nohup` has it ignored.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _announce(structure: Structure, decision: Decision) -> None:
    """Structure and decision, before the solve begins."""
    from bilevelpy.cli.tables import console, decision_table, structure_table

    if structure.warnings:
        print_diagnostics(structure.warnings, structure.sources, sys.stderr)
    screen = console(errors=True)
    screen.print(structure_table(structure, full=False))
    screen.print(decision_table(decision, full=False))
    screen.print()


def _save(writers: Sequence[tuple[Path | None, Callable[[Path], Any]]], quiet: bool) -> None:
    """Write the files that were asked for, and say so."""
    for path, write in writers:
        if path is not None:
            write(path)
            if not quiet:
                say(f"written: {path}")
