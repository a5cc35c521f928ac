"""The choice of a backend, with the reasons for and against each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a backend does not take a model: what it needs, the fact of the model that stands
    against it, and the place (``file``, ``line`` and ``column`` from 1; empty and 0 where the fact
    has none).
    """

    reason: str
    fact: str = ""
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """``reason (fact, file:line)``."""
        place = f"{self.file}:{self.line}" if self.file else ""
        inside = ", ".join(part for part in (self.fact, place) if part)
        return f"{self.reason} ({inside})" if inside else self.reason

    def to_json(self) -> dict[str, Any]:
        """As ``explain --json`` gives it."""
        return {
            "reason": self.reason,
            "fact": self.fact or None,
            "file": self.file or None,
            "line": self.line or None,
            "column": self.column or None,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """The chosen backend with its options, why, the other acceptable ones in order, and why the
    rest was rejected.

    ``rejected`` has a sentence for each backend, ``rejections`` the same with fact and place.
    ``row`` is the row of the decision table that chose, 0 where none did. ``notes`` tell what
    happened to the choice during the run: other backends that were gone on with, and why.
    """

    chosen: str
    options: Mapping[str, Any]
    why: tuple[str, ...]
    ranked: tuple[str, ...]
    rejected: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    forced: bool = False
    rejections: Mapping[str, Rejection] = field(default_factory=dict)
    row: int = 0
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        from bilevelpy.markup import plain

        return plain.decision(self)

    def _repr_html_(self) -> str:
        from bilevelpy.markup import fragments

        return fragments.decision(self)

    def noted(self, *notes: str) -> Decision:
        """The same with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    def to_json(self) -> dict[str, Any]:
        """The decision as ``explain --json`` gives it."""
        return {
            "backend": self.chosen,
            "options": dict(self.options),
            "why": list(self.why),
            "row": self.row or None,
            "ranked": list(self.ranked),
            "rejected": dict(self.rejected),
            "rejections": {name: r.to_json() for name, r in self.rejections.items()},
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }
