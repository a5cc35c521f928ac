"""The first part of a run on another device or in single precision."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.checkpoint import add_counts
from bilevelpy.errors import UsageError
from bilevelpy.lowering.elsewhere import ElsewhereOracle
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.driver import Callback, RunResult
from bilevelpy.numerics.driver import run as drive
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure

Vec = torch.Tensor
Start = tuple[Vec | None, Vec | None] | None

# Hypergradients in single precision are worth about so much.
COARSE = 1e-4


def begun_elsewhere(
    functions: TorchOracle,
    backend: Any,
    facts: Structure,
    options: SolveOptions,
    callback: Callback | None,
    start: Start,
) -> RunResult | None:
    """The run by evaluations elsewhere, to the tolerance that they allow; None where nothing else
    than float64 on the CPU is asked for.

    Raises
    ------
    UsageError
        Where the device is not there, or the data is not in memory.
    """
    if options.device == "cpu" and options.dtype == "float64":
        return None
    if type(functions) is not TorchOracle:
        raise UsageError(
            "`device` and `dtype` are for data in the memory of one process: leave them out where "
            "it stays in files or is divided among processes"
        )
    oracle = ElsewhereOracle(functions, options.device, getattr(torch, options.dtype))
    coarse = replace(options, tol=max(options.tol, COARSE))
    return drive(oracle, backend, facts, coarse, callback=callback, start=start)


def usable(run: RunResult) -> bool:
    """Whether the run can go on from its end."""
    ended = run.status in (Status.CONVERGED, Status.STALLED, Status.ITERATION_LIMIT)
    return ended and math.isfinite(run.F)


def continued(first: RunResult, second: RunResult) -> RunResult:
    """Both as one run."""
    last = len(first.history)
    elapsed = first.time
    history = [
        replace(r, iteration=r.iteration + last, time=r.time + elapsed) for r in second.history
    ]
    return replace(
        second,
        iterations=first.iterations + second.iterations,
        history=(*first.history, *history),
        counts=add_counts(first.counts, second.counts),
        time=elapsed + second.time,
    )
