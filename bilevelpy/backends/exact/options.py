"""Options of ``exact``."""

from __future__ import annotations

from dataclasses import dataclass

from bilevelpy.backends.loop import check_range
from bilevelpy.options import BackendOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactOptions(BackendOptions):
    """Options of ``exact``.

    ``gap``: relative distance of objective and bound at which optimality counts as proved (0: the
    tolerance of the run). ``ties``: find the least and the greatest F over all best responses.
    ``patience``: seconds for followers that are settled by cuts, where the run has no time limit.
    """

    gap: float = 0.0
    ties: bool = True
    patience: float = 300.0

    def __post_init__(self) -> None:
        check_range(self, "exact", 0.0, 1.0, "gap")
        check_range(self, "exact", 0.0, 1e9, "patience")
