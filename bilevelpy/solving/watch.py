"""Whoever watches a run of a backend that takes the program as a whole: the caller's callback and
the progress line see every better point.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.backends.whole import parts_of
from bilevelpy.numerics.driver.loop import IterationState
from bilevelpy.numerics.driver.runs import is_end
from bilevelpy.result import Record
from bilevelpy.solving.progress import Progress, wanted

if TYPE_CHECKING:
    from bilevelpy.numerics.driver.carried import Carried
    from bilevelpy.options import SolveOptions
    from bilevelpy.records.checkpoint import Checkpoint, Saved
    from bilevelpy.reductions.rows import System
    from bilevelpy.solving.request import Request


class Watch:
    """Shows better points to the callback and on the progress line, and keeps them as history and
    in the checkpoint.
    """

    def __init__(
        self,
        request: Request,
        options: SolveOptions,
        keeper: Checkpoint | None = None,
        earlier: Saved | None = None,
    ) -> None:
        self.callback, self.keeper = request.callback, keeper
        self.line = Progress(options.tol) if wanted(request.progress) else None
        self.history: list[Record] = []
        # What a run that goes on from a start comes by again is known.
        again = earlier is not None and earlier.carried is not None and earlier.history
        self.known = earlier.history[-1].F if earlier is not None and again else None

    @property
    def is_wanted(self) -> bool:
        """Whether anybody looks."""
        return any(part is not None for part in (self.callback, self.line, self.keeper))

    def __call__(
        self, system: System, values: np.ndarray, objective: float, bound: float, seconds: float
    ) -> bool:
        """A better point; True where the caller wants no more."""
        below = system.lower_objectives.value(values)
        signs = np.array([f.sign for f in system.followers])
        F, f = system.sign * objective, float(signs @ below)
        nan = math.nan
        if self.history and self.known is not None and system.sign * (F - self.known) >= 0.0:
            return False
        record = Record(len(self.history), seconds, F, f, nan, nan, {})
        self.history.append(record)
        if self.line is not None:
            self.line(record)
        if self.keeper is not None:
            self.keeper.observe(record, *parts_of(system.columns.blocks, values))
        if self.callback is None:
            return False
        x, y = values[system.upper_columns].copy(), values[system.lower_columns].copy()
        for part in (x, y):
            part.setflags(write=False)
        state = IterationState(record.iteration, seconds, x, y, F, f, nan, nan, {}, {})
        return is_end(self.callback(state))

    def keep(self, known: Carried) -> None:
        """What the run carries on from here."""
        if self.keeper is not None:
            self.keeper.carry(lambda: known)

    def close(self) -> None:
        """Take the progress line away."""
        if self.line is not None:
            self.line.close()
