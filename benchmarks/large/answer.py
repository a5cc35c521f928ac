"""What a run says: value, proof, time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bilevelpy as bl

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Answer:
    """One row of the table; ``gap`` is relative to |F|, NaN where nothing is proved."""

    instance: str
    method: str
    F: float
    gap: float
    seconds: float
    cpu: float
    note: str = ""


class Clock:
    """Seconds on the wall and of the processor since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stamp(self, answer: Answer) -> Answer:
        return replace(
            answer,
            seconds=time.perf_counter() - self.wall,
            cpu=time.process_time() - self.cpu,
        )


def ours(
    instance: str, file: str, data: Mapping[str, Any], seconds: float, backend: str = "auto"
) -> Answer:
    """The package with default settings; loading, analysis and certificate are in the time."""
    clock = Clock()
    result = bl.solve(
        bl.load(HERE / file, data=data), backend=backend, time_limit=seconds, progress=False
    )
    certificate = result.certificate
    kind = certificate.kind if certificate is not None else "none"
    bound = certificate.details.get("bound", math.nan) if certificate is not None else math.nan
    note = f"{result.status}; certificate: {kind}; solve {result.time['solve']:.1f} s"
    return clock.stamp(
        Answer(
            instance, f"bilevelpy, `{result.backend}`", result.F, gap(result.F, bound), 0, 0, note
        )
    )


def gap(F: float, bound: float) -> float:
    """Distance of value and bound, relative to the value."""
    known = math.isfinite(F) and math.isfinite(bound)
    return abs(F - bound) / max(abs(F), 1e-9) if known else math.nan
