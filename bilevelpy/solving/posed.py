"""A model as a method takes it: with epigraphs in place of kinks where it asks for rows.

What goes in and out of a run is of the model alone: starts and points that are kept, what
callbacks see, and the answer, which is checked against the objective as it is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.backends.acceptance import with_epigraphs as facts_with_epigraphs
from bilevelpy.expectations import environment
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.model import Model
from bilevelpy.reductions.rewriting.epigraphs import Lifted, with_epigraphs
from bilevelpy.solving.facts import oracle

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from bilevelpy.analysis.structure import Structure
    from bilevelpy.lowering.oracle import TorchOracle
    from bilevelpy.result import Certificate

Vec = torch.Tensor

# What the objective and its lifted form may differ by, in parts of its size here or at the start.
SAME = 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class Posed:
    """The functions of the ``given`` model, those that the method works on, and the facts of these.

    ``places`` are those of y in the lower variables of the method; None where they are the same.
    """

    given: TorchOracle
    functions: TorchOracle
    facts: Structure
    places: Vec | None = None
    lifted: Lifted | None = None

    def narrowed(self, y: Vec) -> Vec:
        """The variables of the model."""
        return y if self.places is None or y.numel() == self.given.m else y[self.places]

    def widened(self, x: Vec, y: Vec) -> Vec:
        """Those of the method: epigraphs are as high as what they stand for."""
        if self.lifted is None or self.places is None or y.numel() == self.functions.m:
            return y
        program = self.lifted.bound.program
        known = environment(self.given.unflatten_x(x), self.given.unflatten_y(y))
        interpreter = Interpreter(self.lifted.bound.data, known, program.externs)
        wide = torch.zeros(self.functions.m, dtype=torch.float64)
        parts = self.functions.unflatten_y(wide)  # views
        for (level, name), value in self.lifted.values.items():
            parts[level][name][...] = interpreter.value(value)
        wide[self.places] = y
        return wide

    def told(self, prices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Shadow prices of the rows of the model."""
        levels = self.given.bound.program.lowers
        rows = {f"{level.name}.{c.name}" for level in levels for c in level.constraints}
        return {name: price for name, price in prices.items() if name in rows}

    def confirmed(self, certificate: Certificate, x: Vec, y: Vec) -> Certificate:
        """The certificate of the model itself, whose objective has to be the one that was tested:
        where it is, what is least of one is least of the other.
        """
        if self.places is None:
            return certificate
        narrow = self.narrowed(y)
        f = self.given.f(x, narrow)
        off = abs(f - self.functions.f(x, y))
        if off <= SAME * max(abs(f), abs(self.given.f(x, self.given.y0))):
            return certificate
        why = f"the lower objective differs by {off:.2e} from the one with rows for its kinks"
        return replace(certificate, kind="none", reasons=(why, *certificate.reasons))


def _names(oracle: TorchOracle) -> list[tuple[str, list[str]]]:
    """The variables of every follower."""
    return [(k.name, [v.name for v in k.variables]) for k in oracle.bound.program.lowers]


def posed(model: Model, facts: Structure, backend: Any) -> Posed:
    """The model as ``backend`` takes it; what epigraphs make of it is made once."""
    given = oracle(model)
    if facts.epigraphs is None or not getattr(backend, "takes_epigraphs", False):
        return Posed(given, given, facts)
    if "lifted" not in model.cache:
        lifted = with_epigraphs(model.bound)
        model.cache["lifted"] = lifted, Model(lifted.bound)
    lifted, other = model.cache["lifted"]
    functions = oracle(other)
    own = functions.unflatten_y(torch.arange(functions.m, dtype=torch.float64))
    places = given.flatten_y({k: {n: own[k][n] for n in v} for k, v in _names(given)})
    places = places.to(torch.int64)
    return Posed(given, functions, facts_with_epigraphs(facts), places, lifted)
