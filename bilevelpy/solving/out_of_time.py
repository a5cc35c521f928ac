"""The answer where the time is up before a backend could begin: the point to start from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bilevelpy.backends.whole import by_name, started
from bilevelpy.errors import BackendError, ExportError
from bilevelpy.expectations import environment
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.ir.walk import duals
from bilevelpy.lowering.sums.streaming import is_streamed
from bilevelpy.records.provenance import provenance
from bilevelpy.reductions.columns import make_columns
from bilevelpy.result import Result, Status
from bilevelpy.solving.facts import hashes

if TYPE_CHECKING:
    from bilevelpy.model import Model
    from bilevelpy.options import SolveOptions
    from bilevelpy.solving.request import Clock, Request


def answer_at_start(
    model: Model, options: SolveOptions, request: Request, clock: Clock, doing: str
) -> Result:
    """Start values with their objectives; nothing is claimed of them.

    Raises
    ------
    BackendError
        Where not even these are to be had (matrices as variables).
    """
    clock.lap({"compiled": "compile", "analysed": "analyze"}.get(doing, "solve"))
    told = f"the time limit of {options.time_limit:g} s was over while the model was {doing}"
    program = model.program
    try:
        columns = make_columns(model.bound)
    except ExportError as error:
        raise BackendError(told) from error
    columns = started(columns, request.start)
    upper, lower = by_name(program, columns.blocks, columns.start)
    F, f = math.nan, dict.fromkeys((level.name for level in program.lowers), math.nan)
    if not is_streamed(model.bound):
        interpreter = Interpreter(model.bound.data, environment(upper, lower), program.externs)
        if not duals(program.upper.objective):  # prices are known of answers only
            F = float(interpreter.value(program.upper.objective))
        f = {v.name: float(interpreter.value(v.objective).sum()) for v in program.lowers}
    return Result(
        model=program.name,
        status=Status.TIME_LIMIT,
        message=f"{told}; these are the values to start from",
        F=F,
        f=f,
        upper=upper,
        lower=lower,
        reports={},
        certificate=None,
        backend="none",
        decision=None,
        iterations=0,
        counts={},
        time=clock.total(),
        history=[],
        provenance=provenance(model.bound, hashes(model), options, "none"),
    )
