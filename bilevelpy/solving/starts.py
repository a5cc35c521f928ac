"""Where a run starts: the model's start values, a checkpoint, and what the caller names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.checkpoint import Saved
from bilevelpy.errors import UsageError
from bilevelpy.options import did_you_mean
from bilevelpy.result import Result

if TYPE_CHECKING:
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


def start_vectors(
    functions: TorchOracle, values: Mapping[str, Any], earlier: Saved | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where to start: named values replace parts of the default, a checkpoint all of it."""
    x, y = functions.x0.clone(), functions.y0.clone()
    if earlier is not None:
        if earlier.x.shape != x.shape or earlier.y.shape != y.shape:
            raise UsageError("the checkpoint holds variables of other sizes")
        x, y = torch.from_numpy(earlier.x), torch.from_numpy(earlier.y)
    if not values:
        return x, y
    places = _places(functions, x, y)
    for name, value in values.items():
        found = places.get(name, [])
        if len(found) != 1:
            problem = "several variables are called" if found else "there is no variable"
            raise UsageError(f"start: {problem} `{name}`{did_you_mean(name, list(places))}")
        _assign(name, found[0], value)
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


def _assign(name: str, target: np.ndarray, value: Any) -> None:
    """Write a start value into the part of the vector that ``target`` is a view of."""
    try:
        given = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise UsageError(f"start: `{name}` takes numbers") from error
    if given.shape not in ((), target.shape):
        raise UsageError(f"start: `{name}` has shape {target.shape}, found {given.shape}")
    if not np.isfinite(given).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(np.atleast_1d(given)))[0])
        where = f" at index {list(place)}" if given.ndim else ""
        bad = np.atleast_1d(given)[place]
        raise UsageError(f"start: `{name}` must be finite, found {bad}{where}")
    target[...] = given
