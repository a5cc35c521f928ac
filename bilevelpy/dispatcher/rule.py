"""A row of the table of preferences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bilevelpy.analysis.structure import Structure
from bilevelpy.dispatcher import conditions as c


@dataclass(frozen=True, slots=True)
class Rule:
    """A row: where every condition of ``when`` holds, ``backend`` is preferred for the reason
    ``why`` (formatted with the sizes).
    """

    row: int
    name: str
    backend: str
    when: tuple[c.Condition, ...]
    why: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def matches(self, structure: Structure) -> bool:
        """Whether every condition holds."""
        return all(condition(structure) for condition in self.when)

    def reason(self, structure: Structure) -> str:
        """Why, with the sizes of the model."""
        s = structure
        return self.why.format(m=s.dim_y, n=s.dim_x, kappa=s.condition or 0.0)
