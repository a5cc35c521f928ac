"""What a run that met numbers which are not finite has to say: where they arise."""

from __future__ import annotations

import math
from dataclasses import replace

from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.sums.nonfinite import culprit
from bilevelpy.lowering.sums.sharded import ShardedOracle
from bilevelpy.numerics.driver.loop import RunResult


def located(functions: TorchOracle, run: RunResult) -> RunResult:
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
