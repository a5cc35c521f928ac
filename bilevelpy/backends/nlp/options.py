"""Options of ``nlp``."""

from __future__ import annotations

from dataclasses import dataclass

from bilevelpy.backends.loop import check_choices, check_range
from bilevelpy.options import BackendOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class NLPOptions(BackendOptions):
    """Options of ``nlp``.

    ``starts``: how many starts are tried. ``form``: "conditions" (the followers' conditions in one
    program), "reduced" (F along solved responses; convex quadratic followers) or "auto".
    """

    starts: int = 8
    form: str = "auto"

    def __post_init__(self) -> None:
        check_choices(self, "nlp", form=("auto", "conditions", "reduced"))
        check_range(self, "nlp", 1, 10**6, "starts")
