"""The first part of a run on another device or in single precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.errors import UsageError
from bilevelpy.lowering.device import DeviceOracle
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.driver.carried import Carried, NotCarried
from bilevelpy.numerics.driver.loop import Callback, Keep, RunResult
from bilevelpy.numerics.driver.loop import run as drive
from bilevelpy.options import SolveOptions
from bilevelpy.records.checkpoint import add_counts
from bilevelpy.result import Status

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure

# What a run is told to have done that could not go on as it would have.
ALONE = "went on from the point of the checkpoint alone"

Vec = torch.Tensor
Start = tuple[Vec | None, Vec | None] | None

# Hypergradients in single precision are worth about so much.
COARSE = 1e-4


def run_on_device(
    functions: TorchOracle,
    backend: Any,
    facts: Structure,
    options: SolveOptions,
    callback: Callback | None,
    start: Start,
    keep: Keep | None,
    carried: Carried | None,
) -> RunResult:
    """The run by evaluations on the device of the options, to the tolerance that they allow.

    Raises
    ------
    UsageError
        Where the device is not there, the data is not in memory, or the method has no accuracy to
        lose.
    """
    if type(functions) is not TorchOracle:
        raise UsageError(
            "`device` and `dtype` are for data in the memory of one process: leave them out where "
            "it stays in files or is divided among processes"
        )
    if functions.g.size and not getattr(backend, "in_single", False):
        raise UsageError(
            f"the solves of `{backend.name}` with constraints need float64 on the CPU: leave "
            "`device` and `dtype` out"
        )
    oracle = DeviceOracle(functions, options.device, getattr(torch, options.dtype))
    coarse = replace(options, tol=max(options.tol, COARSE))
    run = partial(drive, oracle, backend, facts, coarse, callback=callback, start=start, keep=keep)
    return going_on(run, carried)


def going_on(run: Callable[..., RunResult], carried: Carried | None) -> RunResult:
    """A run with what an earlier one has carried on; from its point alone where that needs more
    than this one has at its start.
    """
    try:
        return run(carried=carried)
    except NotCarried as error:
        found = run()
        return replace(found, warnings=(*found.warnings, f"{ALONE}: {error}"))


def usable(run: RunResult) -> bool:
    """Whether the end of the run is one to go on from, or to be judged."""
    lost = run.status in (Status.DIVERGED, Status.UNBOUNDED, Status.INFEASIBLE)
    return not lost and math.isfinite(run.F)


def continued(first: RunResult, second: RunResult) -> RunResult:
    """Both as one run."""
    last = len(first.history)
    elapsed = first.time
    history = [
        replace(r, iteration=r.iteration + last, time=r.time + elapsed) for r in second.history
    ]
    ended = second
    if first.status is Status.INTERRUPTED:  # the second one has only said what F is there
        ended, history = replace(second, status=first.status, message=first.message), []
    return replace(
        ended,
        iterations=first.iterations + second.iterations,
        history=(*first.history, *history),
        counts=add_counts(first.counts, second.counts),
        time=elapsed + second.time,
    )
