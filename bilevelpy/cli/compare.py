"""``bilevelpy compare``: several backends on one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bilevelpy.cli import arguments
from bilevelpy.cli.console import print_json, say
from bilevelpy.cli.guard import DONE, INTERRUPTED, UNSOLVED


def compare(
    model: arguments.ModelFile,
    backends: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Names; all that accept the model by default."),
    ] = None,
    data: arguments.Data = None,
    param: arguments.Param = None,
    extern: arguments.ExternOption = None,
    tol: arguments.Tolerance = 1e-6,
    max_iter: arguments.Iterations = 500,
    time_limit: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds at most, for each.")
    ] = None,
    seed: arguments.Seed = 0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw all runs (.png, .svg).")
    ] = None,
    as_json: arguments.AsJson = False,
) -> int:
    """Solve a model with several backends and print one table; exit code 1 unless all of them solve
    it.
    """
    from bilevelpy.cli.sources import load
    from bilevelpy.result import Status
    from bilevelpy.studies import api as many

    arguments.check_target(plot, *arguments.FIGURES)
    names = (
        None if backends is None else [name.strip() for name in backends.split(",") if name.strip()]
    )
    comparison = many.compare(
        load(model, data, param, extern),
        backends=names,
        tol=tol,
        max_iter=max_iter,
        time_limit=time_limit,
        seed=seed,
    )
    if as_json:
        print_json(comparison.as_dict())
    else:
        print(comparison)
    if plot is not None:
        comparison.plot(plot)
        say(f"written: {plot}")
    statuses = [r.status for r in comparison.results.values()]
    if Status.INTERRUPTED in statuses:
        return INTERRUPTED
    asked = len(comparison.results) if names is None else len(names)
    return DONE if statuses and sum(s is Status.CONVERGED for s in statuses) == asked else UNSOLVED
