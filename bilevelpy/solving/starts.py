"""Where a run starts: the model's start values, a checkpoint, and what the caller names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.errors import UsageError
from bilevelpy.options import near_or_all
from bilevelpy.records.checkpoint import Saved
from bilevelpy.result import Result
from bilevelpy.sema.binding.starts import start_array

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram, Variable
    from bilevelpy.lowering.oracle import TorchOracle


def start_at(upper: Mapping[str, Any], lower: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Values by level and name, as a start."""
    start: dict[str, Any] = {f"upper.{name}": value for name, value in upper.items()}
    for level, values in lower.items():
        start |= {f"{level}.{name}": value for name, value in values.items()}
    return start


def named_values(start: Mapping[str, Any] | Result | None) -> Any:
    """What a caller gives as a start, by name: an earlier answer is one too."""
    if isinstance(start, Result):
        return start_at(start.upper, start.lower)
    return {} if start is None else start


def given_values(
    bound: BoundProgram, values: Mapping[str, Any], what: str = "start"
) -> dict[str, Any]:
    """Named values, for a start or ``what`` else, as arrays in the shapes of their variables,
    whatever they came as.

    Raises
    ------
    UsageError, DataError
        For a name that there is not, and for values that do not fit.
    """
    known: dict[str, list[Variable]] = {}
    for level in bound.program.levels:
        for variable in level.variables:
            for name in (variable.name, f"{level.name}.{variable.name}"):
                known.setdefault(name, []).append(variable)
    found: dict[str, Any] = {}
    twice: dict[int, str] = {}
    for name, value in values.items():
        meant = known.get(name, [])
        if len(meant) != 1:
            problem = "several variables are called" if meant else "there is no variable"
            raise UsageError(f"{what}: {problem} `{name}`{near_or_all(name, list(known))}")
        other = twice.setdefault(id(meant[0]), name)
        if other != name:
            raise UsageError(f"{what}: `{other}` and `{name}` are one variable")
        found[name] = start_array(bound, name, meant[0], value, what)
    return found


def start_vectors(
    functions: TorchOracle, values: Mapping[str, Any], earlier: Saved | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where to start: named values (see :func:`given_values`) replace parts of the default, a
    checkpoint all of it.
    """
    x, y = functions.x0.clone(), functions.y0.clone()
    if earlier is not None:
        if earlier.x.shape != x.shape or earlier.y.shape != y.shape:
            raise UsageError("the checkpoint holds variables of other sizes")
        x, y = torch.from_numpy(earlier.x), torch.from_numpy(earlier.y)
    if not values:
        return x, y
    places = _places(functions, x, y)
    for name, value in values.items():
        places[name][0][...] = value  # a view of the vector
    return x, y


def moved(
    functions: TorchOracle, values: Mapping[str, Any], x: torch.Tensor, y: torch.Tensor
) -> tuple[str, ...]:
    """A sentence for each named start that lies outside of its domain, where no run can begin."""
    if not values:
        return ()
    given = _places(functions, x, y)
    inside = _places(functions, functions.domain_x.project(x), functions.domain_y.project(y))
    return tuple(
        f"start: `{name}` lies outside of its domain; the run began at the nearest point inside"
        for name in values
        if not np.allclose(given[name][0], inside[name][0], rtol=1e-6, atol=1e-9)
    )


def _places(
    functions: TorchOracle, x: torch.Tensor, y: torch.Tensor
) -> dict[str, list[np.ndarray]]:
    """The parts of two vectors by the names that a variable may be called by."""
    places: dict[str, list[np.ndarray]] = {}
    for name, array in functions.unflatten_x(x).items():
        places.setdefault(name, []).append(array)
        places.setdefault(f"upper.{name}", []).append(array)
    for level, variables in functions.unflatten_y(y).items():
        for name, array in variables.items():
            places.setdefault(name, []).append(array)
            places.setdefault(f"{level}.{name}", []).append(array)
    return places
