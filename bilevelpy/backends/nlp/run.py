"""One solve of ``nlp``: the search, and the claim at the end."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from bilevelpy.backends.nlp.boundless import unbounded_ray
from bilevelpy.backends.nlp.complementarity import (
    NEAR,
    Complementarity,
    stationary_program,
)
from bilevelpy.backends.nlp.forms import (
    is_convex,
)
from bilevelpy.backends.nlp.joined import (
    examined,
    own_units,
    with_choice,
)
from bilevelpy.backends.nlp.search import Search
from bilevelpy.backends.whole import ProgramAnswer
from bilevelpy.numerics.certificate.local import certify_local
from bilevelpy.numerics.certificate.local_probe import Probe, probe
from bilevelpy.numerics.wording import wording
from bilevelpy.reductions.optimality.prices import shadow_prices
from bilevelpy.result import Certificate, Status
from bilevelpy.system.deadline import TooLong, until

Array = np.ndarray[Any, np.dtype[Any]]

# Solves, as long as the longest one, that probes leave to the certificate.
RESERVED = 3.0
# The same where responses are solved by faster means than those of the certificate: a part of the
# time that is left.
PROBES = 0.6


class Run(Search):
    """One solve."""

    # When the certificate ends, once it has begun.
    judged: float | None = None

    def answer(self) -> ProgramAnswer:
        """The answer, whatever it is."""
        self.search()
        solved = time.perf_counter()
        if self.best is None:
            return self._nothing(solved)
        v = self.best[: self.system.columns.count]
        certificate, status, message = None, Status.STALLED, "not verified"
        if self.verify:
            self.judged = self._until()
            try:
                with until(self.judged):
                    v, certificate = self._certified(v)
                status, message = self._status(certificate)
            except TooLong:
                status, message = Status.TIME_LIMIT, "there was no time to check the best point"
            except KeyboardInterrupt:
                status = Status.INTERRUPTED
                message = "interrupted while the certificate was computed; the point is kept"
        return ProgramAnswer(
            self.system, v, self._prices(), status, message, certificate, self.starts, (),
            solved - self.began,
        )  # fmt: skip

    def _certified(self, v: Array) -> tuple[Array, Certificate]:
        """The point, or a better one that probes have led to, and its certificate."""
        if self.joint is not None:
            self.joint.deadline = self._until()
        seen = self._beside(v)
        if seen.place is not None and self.boundless is None:
            self.boundless = unbounded_ray(self.system, v, self._respond, self._late)
        if seen.place is not None and not self._late():
            # A point beside is better: go on from there once.
            v = self._onward(seen)
            seen = self._beside(v)
        return v, self._certificate(v, seen)

    def _prices(self) -> dict[str, Array]:
        """Shadow prices, where the conditions have been solved for them."""
        if self.full is None or self.conditions is None:
            return {}
        return shadow_prices(self.conditions.program, self.full, own_units(self.system))

    # --- end -------------------------------------------------------------------------------------

    def _until(self) -> float:
        """When the certificate ends: it may take as long as the solve, or ten seconds."""
        if self.judged is not None:
            return self.judged
        now = time.perf_counter()
        end = self.began + self.options.time_limit
        return min(now + max(10.0, now - self.began), max(end, now + 0.5))

    def _beside(self, v: Array) -> Probe:
        """Points beside x with responses of their own."""
        self.quick.deadline = self._until()
        if self.reduced is None:
            now = time.perf_counter()
            end = now + PROBES * (self._until() - now)
            return probe(self.system, v, self._respond, self.rng, end)
        held = self.reduced.holding(v)
        normals, first = (None, None) if held is None else held
        moving = self.reduced.chosen
        # The certificate solves once more, and chooses among responses.
        end = self._until() - RESERVED * self.reduced.longest
        return probe(
            self.system, v, self._respond, self.rng, end, moving, normals, first,
            self.reduced.slopes_of,
        )  # fmt: skip

    def _onward(self, seen: Probe) -> Array:
        """A descent from a better point beside the best one."""
        assert seen.place is not None
        self._keep(seen.place)
        if self.reduced is not None:
            self.reduced.deadline = self._until()
            self.reduced.run(seen.place)
        else:
            program = stationary_program(self.system)
            run = Complementarity(program)
            count = self.system.columns.count
            start = np.concatenate([seen.place, program.columns.start[count:]])
            at = run.settled(start, self._left())
            if at is not None:
                self._from(program, run, at, NEAR)
        assert self.best is not None
        return self.best[: self.system.columns.count]

    def _certificate(self, v: Array, seen: Probe) -> Certificate:
        known = None
        solved = self.joint.solve(v) if self.joint is not None else None
        if self.joint is not None and solved is not None:
            known = dict(enumerate(self.joint.least(solved).tolist()))
        found = certify_local(
            self.system,
            v,
            seen,
            convex=is_convex(self.system),
            known=known,
            seed=self.options.seed,
            deadline=self._until(),
        )
        if self.reduced is not None:
            return with_choice(self.reduced, v, found)
        if self.full is None or self.conditions is None:
            return found
        return examined(self.conditions.program, self.full, found)

    def _status(self, certificate: Certificate) -> tuple[Status, str]:
        if self.stopped:
            return Status.INTERRUPTED, "interrupted; the best point is kept"
        if self.boundless is not None:
            distance, F = self.boundless
            says = wording(self.system.sign)
            return (
                Status.UNBOUNDED,
                f"F {says.falls} without bound: {says.sign * F:.2e} at a distance of "
                f"{distance:.1e} from the start",
            )
        if certificate.kind == "local":
            return Status.CONVERGED, f"a local optimum, the best of {self.starts} starts"
        if self._late():
            return Status.TIME_LIMIT, "the best point within the time limit is kept"
        return Status.STALLED, "; ".join(certificate.reasons)

    def _nothing(self, solved: float) -> ProgramAnswer:
        empty = np.full(self.system.columns.count, math.nan)
        status = Status.TIME_LIMIT if self._late() else Status.STALLED
        message = f"no start of {self.starts} led to a point that suits followers and leader"
        if self.stopped:
            status, message = Status.INTERRUPTED, "interrupted before a point was found"
        falls = {f.name: wording(f.sign).falls for f in self.system.followers}
        for level, much in self.restless.items():
            message += (
                f"; the objective of `{level}` still {falls[level]} by {much:.2e} when it is "
                "solved again"
            )
        return ProgramAnswer(
            self.system, empty, {}, status, message, None, self.starts, (), solved - self.began
        )
