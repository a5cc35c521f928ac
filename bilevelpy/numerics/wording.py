"""Words of messages about objectives: methods minimise, readers of a model may maximise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wording:
    """How an objective of a level is spoken of.

    ``sign`` turns a minimised value into one of the model; ``falls`` is what the objective does on
    the way to better values and ``uphill`` the way to worse ones; ``better`` and ``worse`` compare
    values, ``least`` is the best one, and ``limit`` one that no point may have.
    """

    sign: float
    falls: str
    better: str
    worse: str
    least: str
    uphill: str
    minimised: str
    limit: str
    change: str


_MINIMISED = Wording(
    1.0, "falls", "lower", "higher", "least", "uphill", "minimised", "an infimum", "decrease"
)
_MAXIMISED = Wording(
    -1.0, "rises", "higher", "lower", "greatest", "downhill", "maximised", "a supremum", "increase"
)


def wording(sign: float) -> Wording:
    """The words for an objective that is minimised as ``sign`` times what the model says."""
    return _MAXIMISED if sign < 0 else _MINIMISED
