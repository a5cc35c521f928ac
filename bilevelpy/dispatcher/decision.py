"""The choice of a backend, with the reasons for and against each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Decision:
    """The chosen backend with its options, why, the other acceptable ones in order, and why the
    rest was rejected.
    """

    chosen: str
    options: Mapping[str, Any]
    why: tuple[str, ...]
    ranked: tuple[str, ...]
    rejected: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    forced: bool = field(default=False)

    def to_json(self) -> dict[str, Any]:
        """The decision as ``explain --json`` gives it."""
        return {
            "backend": self.chosen,
            "options": dict(self.options),
            "why": list(self.why),
            "ranked": list(self.ranked),
            "rejected": dict(self.rejected),
            "warnings": list(self.warnings),
        }
