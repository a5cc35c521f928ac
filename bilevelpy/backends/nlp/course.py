"""How far ``nlp`` has come with its starts, as what a checkpoint holds of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bilevelpy.numerics.driver.carried import Carried, Damaged, Reader, taken

Array = np.ndarray[Any, np.dtype[Any]]
# The best point, the same with multipliers where there are some, and F.
Best = tuple[Array | None, Array | None, float]


class Course:
    """The starts that are behind: their number, the best point of them, the ends of descents, and
    where the first ones begin; and ``found``, the best point with that of a start that is not.

    Parameters
    ----------
    keep
        Takes what a later run goes on from; None where nobody does.
    rng
        The source of further starts.
    best
        The best point so far.
    """

    def __init__(
        self,
        keep: Callable[[Carried], None] | None = None,
        rng: np.random.Generator | None = None,
        best: Callable[[], Best] = lambda: (None, None, math.inf),
    ) -> None:
        self._keep, self._rng, self._best = keep, rng, best
        self.count = 0
        self.begun: list[Array] | None = None
        self.ends: list[tuple[Array, float]] = []
        self.best: Best = (None, None, math.inf)
        self.found: tuple[Array, float] | None = None
        self.source: Mapping[str, Any] = {} if rng is None else rng.bit_generator.state

    def finished(self, number: int, end: tuple[Array, float] | None = None) -> None:
        """A start is behind."""
        if end is not None:
            self.ends.append(end)
        self.count, self.best = number + 1, self._best()
        self.source = {} if self._rng is None else self._rng.bit_generator.state
        self._tell()

    def better(self, v: Array, objective: float) -> None:
        """A start has come to a better point."""
        self.found = v, objective
        self._tell()

    def _tell(self) -> None:
        known = taken({"course": self, "rng": dict(self.source)}) if self._keep else None
        if self._keep is not None and known is not None:
            self._keep(known)

    def go_on(self, known: Carried, size: int) -> tuple[Array, float] | None:
        """Take over the course of an earlier run, whose points have at least ``size`` entries; the
        point that it had found at last.

        Raises
        ------
        Damaged
            Where it is none of this problem.
        """
        reader = Reader(known)
        reader.read("course", self)
        points = [*(self.begun or []), *(v for v, _ in self.ends)]
        points += [v for v in (*self.best[:2], *(self.found or ())[:1]) if v is not None]
        if any(not isinstance(v, np.ndarray) or v.ndim != 1 or v.size < size for v in points):
            raise Damaged("its points are of another size")
        try:
            assert self._rng is not None
            self._rng.bit_generator.state = self.source = reader.read("rng")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise Damaged("it has no source of random numbers") from error
        return self.found

    def carried(self) -> dict[str, Any]:
        """What is behind."""
        return {
            "count": self.count,
            "begun": self.begun,
            "ends": self.ends,
            "best": self.best,
            "found": self.found,
        }

    def restore(self, known: Mapping[str, Any], oracle: Any) -> None:
        """As it was."""
        self.count, self.begun, self.found = int(known["count"]), known["begun"], known["found"]
        self.ends = [(v, float(F)) for v, F in known["ends"]]
        v, full, F = known["best"]
        self.best = v, full, float(F)
