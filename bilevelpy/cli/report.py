"""``bilevelpy report``: solve a model and write everything about it as one page."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated

import typer

from bilevelpy.cli import arguments
from bilevelpy.cli.console import say
from bilevelpy.cli.guard import DONE, INTERRUPTED, UNSOLVED
from bilevelpy.cli.sources import load
from bilevelpy.errors import UsageError
from bilevelpy.options import SolveOptions


def report(
    model: arguments.ModelFile,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="The page to write.")],
    data: arguments.Data = None,
    param: arguments.Param = None,
    extern: arguments.ExternOption = None,
    backend: arguments.BackendName = "auto",
    tol: arguments.Tolerance = 1e-6,
    max_iter: arguments.Iterations = 500,
    time_limit: arguments.Seconds = None,
    seed: arguments.Seed = 0,
    option: arguments.OptionOption = None,
) -> int:
    """Solve a model and write one page: formulas, data, structure, decision, run, certificate.

    The page holds its style and its pictures and opens without a network. Exit codes as `solve`.
    """
    arguments.check_target(out, ".html", ".htm")
    _check_extra()
    began = time.perf_counter()
    loaded = load(model, data, param, extern)
    from bilevelpy import api
    from bilevelpy.reporting import write
    from bilevelpy.solving import Request, run

    limit = math.inf if time_limit is None else time_limit
    options = SolveOptions(backend, tol, max_iter, limit, seed, False, arguments.options(option))
    result = run(loaded, options, Request(), began)
    write(out, loaded, api.analyze(loaded, seed=seed), result)
    say(f"{result.status}: written {out}")
    if result.success:
        return DONE
    return INTERRUPTED if result.status == "interrupted" else UNSOLVED


def _check_extra() -> None:
    """Say before the solve that the page cannot be written, not after it."""
    from importlib.util import find_spec

    for library in ("latex2mathml", "matplotlib"):
        if find_spec(library) is None:
            raise UsageError(f"reports need {library}: install the extra `report`")
