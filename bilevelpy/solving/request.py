"""What a caller wants of a solve besides its options, and the clock of a solve."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevelpy.errors import UsageError
from bilevelpy.options import is_switch

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.dispatcher import Decision
    from bilevelpy.numerics.driver.loop import IterationState


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller wants besides the options of the solve itself. ``decided`` sees structure and
    decision first; ``followed``: another backend takes over where this one gives up.
    """

    start: Mapping[str, Any] = field(default_factory=dict)
    callback: Callable[[IterationState], Any] | None = None
    progress: bool | None = None
    checkpoint: str | Path | None = None
    resume: bool = False
    verify: bool = True
    watch: tuple[str, ...] = ()
    stop_by: str | None = None
    patience: int = 20
    decided: Callable[[Structure, Decision], None] | None = None
    followed: bool = False

    def __post_init__(self) -> None:
        for name, fits, wanted in (
            (
                "start",
                isinstance(self.start, Mapping),
                "a mapping of variables to values, or a result",
            ),
            ("callback", self.callback is None or callable(self.callback), "a function"),
            ("checkpoint", isinstance(self.checkpoint, str | Path | None), "the path of a file"),
            ("stop_by", isinstance(self.stop_by, str | None), '"max REPORT" or "min REPORT"'),
            ("patience", _is_count(self.patience), "a whole number from 1 on"),
            ("resume", is_switch(self.resume), "True or False"),
            ("verify", is_switch(self.verify), "True or False"),
            (
                "progress",
                self.progress is None or is_switch(self.progress),
                "True or False, or None where a terminal decides",
            ),
        ):
            if not fits:
                raise UsageError(f"{name} takes {wanted}, found {getattr(self, name)!r}")
        if self.resume and self.checkpoint is None:
            raise UsageError("resume needs the checkpoint to go on from")


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and value is not True and int(value) >= 1


class Clock:
    """Seconds by phase."""

    def __init__(self, began: float) -> None:
        self.began = self.last = began
        self.phases: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """What passed since the last lap belongs to ``phase``."""
        now = time.perf_counter()
        self.phases[phase] = self.phases.get(phase, 0.0) + now - self.last
        self.last = now

    def go_on(self, seconds: float) -> None:
        """Count ``seconds`` of a run that this one goes on from."""
        self.began -= seconds
        if seconds:
            self.phases["earlier"] = seconds

    def to_verify(self, seconds: float) -> None:
        """Count ``seconds`` of the phase "solve" as those of "verify"."""
        self.phases["solve"] = self.phases.get("solve", 0.0) - seconds
        self.phases["verify"] = self.phases.get("verify", 0.0) + seconds

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self.began

    def total(self) -> dict[str, float]:
        """All phases and their sum."""
        return {**self.phases, "total": self.elapsed()}
