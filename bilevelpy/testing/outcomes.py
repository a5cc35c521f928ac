"""What the conformance suite finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check on one model; ``detail`` says what was found where it failed."""

    check: str
    model: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked."""

    backend: str
    outcomes: tuple[Outcome, ...]
    rejected: Mapping[str, str]
    solved: tuple[str, ...]

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The checks that failed."""
        return tuple(o for o in self.outcomes if not o.passed)
