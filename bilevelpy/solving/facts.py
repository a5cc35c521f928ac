"""The compiled model and its structure, each made once for a model."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from bilevelpy.analysis import analyze
from bilevelpy.backends import registry
from bilevelpy.dispatcher import dispatch
from bilevelpy.dispatcher.conditions import MANY_LOWERS
from bilevelpy.errors import BackendError, UsageError
from bilevelpy.ir.fingerprint import fingerprints
from bilevelpy.ir.types import Domain, DomainKind
from bilevelpy.lowering.defined_start import begin_where_defined
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.sums.streaming import is_streamed, make_oracle
from bilevelpy.model import Model
from bilevelpy.numerics.rows.priced import PricedOracle, reads_prices
from bilevelpy.numerics.scaled import ScaledOracle
from bilevelpy.numerics.units import find_units
from bilevelpy.records.provenance import data_hashes

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.dispatcher import Decision
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.numerics.scaled import Units
    from bilevelpy.options import SolveOptions

STRONGLY, NONCONVEX = "strongly convex", "nonconvex"


def oracle(model: Model, seconds: float = math.inf) -> TorchOracle:
    """The compiled model, made once; models that differ in their data share what was compiled.

    ``seconds`` is what may be spent on statistics of data in files.
    """
    if "oracle" not in model.cache:
        priced = reads_prices(model.program) and not is_streamed(model.bound)
        made = PricedOracle(model.bound) if priced else make_oracle(model.bound, seconds)
        begin_where_defined(made)
        model.cache["oracle"] = made
    known: TorchOracle = model.cache["oracle"]
    return known


def check_unchanged(model: Model) -> None:
    """Compare the data with those that the model was first used with: what was compiled and found
    out holds for them alone.

    Raises
    ------
    UsageError
        Where an array was changed in place; it says which.
    """
    now = fingerprints(model.bound.data.arrays)
    known = model.cache.setdefault("fingerprints", now)
    changed = [name for name in now if now[name] != known[name]]
    if changed:
        shown = ", ".join(f"`{name}`" for name in changed)
        given = ", ".join(f"{name}=..." for name in changed)
        raise UsageError(
            f"the data of {shown} were changed in place after this model was first used; bind "
            f"them anew: model = model.bind({given})"
        )


def hashes(model: Model) -> Mapping[str, str]:
    """The hashes of its data, made once."""
    if "hashes" not in model.cache:
        model.cache["hashes"] = data_hashes(model.bound)
    found: Mapping[str, str] = model.cache["hashes"]
    return found


def structure(model: Model, seed: int) -> Structure:
    """The facts about a model, found once for each seed.

    A model that cannot be compiled (multipliers in the upper level, integers) has a structure too:
    what its text shows, and what its lower level alone does.
    """
    key = f"structure {seed}"
    if key not in model.cache:
        functions: TorchOracle | None = None
        with contextlib.suppress(BackendError):
            functions = oracle(model)
        alone: TorchOracle | None = None
        priced = isinstance(functions, PricedOracle)
        if functions is None or priced:
            with contextlib.suppress(BackendError):
                alone = TorchOracle(_lower_alone(model.bound))
        facts = analyze(model.bound, functions, lower=alone, seed=seed)
        trained = facts.convexity.value == NONCONVEX and MANY_LOWERS(facts)
        settled = facts.convexity.value == STRONGLY or trained or priced
        # Beside kinks no curvature is looked at, and Newton's method does not solve for sizes.
        settled = settled or not facts.lower.smooth.value
        if functions is not None and not settled:
            # What looks flat in the model's units may bend in better ones; a large model that is
            # trained bends downwards in all, and to look for better ones takes solutions of it.
            scaling = units(model)
            if scaling is not None:
                seen = ScaledOracle(functions, scaling)
                again = analyze(model.bound, seen, seed=seed)
                facts = again if again.convexity.value == STRONGLY else facts
        model.cache[key] = facts
    found: Structure = model.cache[key]
    return found


def _lower_alone(bound: BoundProgram) -> BoundProgram:
    """The lower objective over free upper variables, and nothing else."""
    program = bound.program
    free = tuple(replace(v, domain=Domain(DomainKind.FREE)) for v in program.upper.variables)
    nothing = program.builder.const(0.0)
    upper = replace(program.upper, variables=free, objective=nothing, constraints=())
    lowers = tuple(replace(level, constraints=()) for level in program.lowers)
    return replace(bound, program=replace(program, upper=upper, lowers=lowers, reports={}))


def chosen(model: Model, options: SolveOptions) -> Decision:
    """The backend for a model, chosen once for its facts and what the caller asks for."""
    installed = ",".join(registry.names())
    key = f"decision {options.seed} {options.backend} {options.force} {installed}"
    if key not in model.cache:
        facts = structure(model, options.seed)
        model.cache[key] = dispatch(facts, backend=options.backend, force=options.force)
    found: Decision = model.cache[key]
    return found


def units(model: Model) -> Units | None:
    """The units in which the variables of a model have comparable sizes, found once; None where
    its own will do, for models with constraints, whose rows have units of their own, and where a
    pass over the data means reading files.
    """
    if "units" not in model.cache:
        found: Units | None = None
        functions, program = oracle(model), model.program
        rows = any(level.constraints for level in program.levels)
        if not rows and not is_streamed(functions.bound):
            with contextlib.suppress(BackendError):  # functions without second derivatives
                found = find_units(
                    functions,
                    [(p.start, p.stop) for p in functions.upper.pieces],
                    [(p.start, p.stop) for p in functions.lower.pieces],
                    torch.Generator().manual_seed(0),
                )
        model.cache["units"] = found  # only now: the time may be up while it is looked for
    known: Units | None = model.cache["units"]
    return known
