"""``bilevelpy certify``: an answer from elsewhere, examined."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated

import typer

from bilevelpy.cli import arguments
from bilevelpy.cli.solve import shown
from bilevelpy.cli.sources import load
from bilevelpy.options import SolveOptions
from bilevelpy.system.deadline import reading

Answer = Annotated[
    Path,
    typer.Argument(
        metavar="ANSWER", help="Values by name (.json, .npz), a solution (.sol), a saved result."
    ),
]


def certify(
    model: arguments.ModelFile,
    answer: Answer,
    data: arguments.Data = None,
    param: arguments.Param = None,
    extern: arguments.ExternOption = None,
    tol: arguments.Tolerance = 1e-6,
    time_limit: arguments.Seconds = None,
    seed: arguments.Seed = 0,
    as_json: arguments.AsJson = False,
) -> int:
    """Examine an answer from elsewhere: is y the follower's best one, is x stationary.

    A solution is what SCIP, HiGHS, Gurobi, CBC or GLPK print for an exported model; variables that
    it does not name are 0. Followers' values may be left out of .json and .npz: their best response
    is computed.

    Exit codes: 0 certified; 1 not; 2 the model, its data or the answer is wrong, or no backend
    takes the model.
    """
    limit = math.inf if time_limit is None else time_limit
    options = SolveOptions(tol=tol, time_limit=limit, seed=seed)
    began = time.perf_counter()
    with reading(began, limit):
        loaded = load(model, data, param, extern)
    from bilevelpy.records.saved import values_in
    from bilevelpy.solving.given import certify as examined
    from bilevelpy.system.garbage import imports_done

    imports_done()
    values = values_in(answer, loaded.bound, "ANSWER")
    result = examined(loaded, values, options, began)
    return shown(result, loaded, as_json)
