"""What the driver reads from a backend's state."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bilevelpy.result import Status

Vec = torch.Tensor


@dataclass(frozen=True, slots=True)
class Finish:
    """A backend's own verdict that no further step makes sense (a kink, rounding level,
    divergence).
    """

    status: Status
    message: str


@dataclass(frozen=True, slots=True)
class Measure:
    """The state in numbers. Norms are of projected gradients, of the minimised objectives.

    ``stationarity`` and ``lower_accuracy`` are the same norms on scales of the backend's own
    making, free of units; where they are None the driver divides by the largest value it has seen.
    ``finish`` ends the run. ``rival`` is an end that the run has behind it, which a limit must not
    lose; ``goes_on`` says that this point is one, and that the run is not at its last.
    """

    x: Vec
    y: Vec
    F: float
    f: float
    hypergradient_norm: float
    lower_residual: float
    stationarity: float | None = None
    lower_accuracy: float | None = None
    finish: Finish | None = None
    warnings: tuple[str, ...] = ()
    rival: Measure | None = None
    goes_on: bool = False


class Scales:
    """Fallback scales for measures that bring none: the largest values seen in the run."""

    def __init__(self) -> None:
        self.gradient = 0.0
        self.residual = 0.0

    def relative(self, m: Measure) -> tuple[float, float]:
        """Stationarity of the upper level and accuracy of the lower one."""
        self.gradient = max(self.gradient, m.hypergradient_norm)
        self.residual = max(self.residual, m.lower_residual)
        upper = m.stationarity
        if upper is None:
            upper = m.hypergradient_norm / self.gradient if self.gradient > 0 else 0.0
        lower = m.lower_accuracy
        if lower is None:
            lower = m.lower_residual / self.residual if self.residual > 0 else 0.0
        return upper, lower
