"""The bookkeeping of a run: its history, its counts, when it ends, and what it carries on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bilevelpy.numerics.driver.carried import (
    Carried,
    Damaged,
    InStep,
    NotCarried,
    Reader,
    taken,
    wiring,
)
from bilevelpy.numerics.driver.measure import Finish, Measure, Scales
from bilevelpy.numerics.driver.runs import (
    PATH,
    Callback,
    IterationState,
    Onward,
    Report,
    RunResult,
    is_end,
    is_known,
    is_same,
)
from bilevelpy.options import SolveOptions
from bilevelpy.result import Record, Status

if TYPE_CHECKING:
    from bilevelpy.lowering.protocol import Oracle

Vec = torch.Tensor
# A hypergradient so many times the first one is that of a run in an explosion, and ends that are
# nobody's verdict.
EXPLODED = 1e6
LIMITS = (Status.TIME_LIMIT, Status.ITERATION_LIMIT, Status.INTERRUPTED)
UNFINISHED = (*LIMITS, Status.STALLED)
LED_BACK = "a better response led back to an end that it refutes: the best point before is kept"
# A run goes on from an end once more where its hypergradient is this part of that at the last one.
LEADING = 0.5
# What is told of an iteration that a checkpoint may hold: its record, its measure, and a function
# for what the run carries on.
Keep = Callable[[Record, Measure, Callable[[], Carried | None]], None]


class Loop:
    """The bookkeeping of one run."""

    def __init__(
        self,
        oracle: Oracle,
        options: SolveOptions,
        callback: Callback | None,
        progress: Callable[[Record], None] | None,
        report: Report | None,
        keeper: Keep | None,
    ) -> None:
        self.oracle = oracle
        self.options = options
        self.callback = callback
        self.progress = progress
        self.report = report
        self.keeper = keeper
        self.state: Any = None
        self.rng = torch.Generator()
        self.origin: tuple[Vec, ...] = ()
        self.measured: Any = None
        self.wired: tuple[type, ...] = ()
        self.has_later = False
        self.stepping = False
        self.kept = 0
        self.reached: dict[str, int] = {}
        self.restarts = 0
        self.started = time.perf_counter()
        self.base = oracle.counts.as_dict()
        self.history: list[Record] = []
        self.last: Measure | None = None
        # The first hypergradient, and the latest point whose own is not larger beyond all measure.
        self.first = 0.0
        self.sane: Measure | None = None
        self.stationarity = math.inf
        self.scales = Scales()
        self.warnings: dict[str, None] = {}
        self.candidate = False
        self.ends: list[tuple[float, float]] = []  # F and f of those that it has gone on from
        self.led_back = False  # to one of them
        self.again = math.inf  # the hypergradient where the run has last gone on from where it was
        self.in_user_code = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """While the state is not that of a measure; nor is it after a step that was cut short."""
        self.keep()
        self.stepping = True
        yield
        self.stepping = False

    def begin(
        self,
        rng: torch.Generator,
        backend: Any,
        seen: Any,
        x: Vec,
        y: Vec,
        settings: Any,
        carried: Carried | None,
    ) -> None:
        """A state at (x, y), or the one of an earlier run: its data in the state that it began
        with.
        """
        reader = Reader(carried) if carried is not None else None
        if reader is not None:
            origin, x, y = reader.read("origin", (rng.get_state(), x, y))
            rng.set_state(origin)
        self.rng, self.origin = rng, (rng.get_state(), x, y)
        earlier, self.state = self.state, backend.init(seen, x, y, settings, rng)
        if hasattr(self.state, "inherit"):
            self.state.inherit(earlier)
        self.wired, self.has_later = wiring(self.state), hasattr(backend, "later")
        if reader is None or carried is None:
            self.measured = backend.measure(seen, self.state)
            return
        try:
            if "later" in carried.tree:  # of what follows upon the first states
                self.state = backend.later(seen, self.state, settings)
            self._fill(reader, seen, rng)
        except (NotCarried, Damaged):
            raise
        except Exception as error:  # whatever a wrong file leads to
            raise Damaged("it is not what a run has left") from error

    def _fill(self, reader: Reader, seen: Any, rng: torch.Generator) -> None:
        reader.read("rng", rng)
        # Some measures leave traces in the state, which has been measured already.
        measured, x = reader.read("measure"), self.origin[1]
        if not isinstance(measured, Measure) or measured.x.shape != x.shape:
            raise Damaged("there is no measure of the last point")
        if not math.isfinite(measured.F):
            raise Damaged("the last point has no value")
        self.state, self.measured = reader.read("state", self.state, seen), measured
        spent, then = self.counts(), reader.read("counts", self.base)
        for name, scale in reader.read("scales", vars(self.scales)).items():
            setattr(self.scales, name, float(scale))
        self.restarts, self.again = reader.read("restarts", 0), reader.read("again", math.inf)
        self.ends = [(float(F), float(f)) for F, f in reader.read("ends", self.ends)]
        # Some methods weigh what they have spent; this run counts what was spent in it.
        for name in spent:
            setattr(self.oracle.counts, name, then[name])
            self.base[name] = then[name] - spent[name]

    def carried(self) -> Carried | None:
        """What the run carries on, as data; None where that takes more than what ``init`` makes.

        Raises
        ------
        InStep
            In the middle of a step.
        """
        if self.stepping:
            raise InStep
        later = wiring(self.state) != self.wired  # some methods go on by others
        if later and not self.has_later:
            return None
        return taken(
            {
                "origin": self.origin,
                "rng": self.rng,
                "measure": self.measured,
                "state": self.state,
                "counts": self.reached,
                "scales": vars(self.scales),
                "restarts": self.restarts,
                "again": self.again,
                "ends": self.ends,
                **({"later": True} if later else {}),
            }
        )

    def keep(self) -> None:
        """Tell of the newest iteration."""
        if self.keeper is None or self.last is None or self.kept == len(self.history):
            return
        self.kept = len(self.history)
        self.reached = self.oracle.counts.as_dict()  # without those of a certificate later on
        self.keeper(self.history[-1], self.last, self.carried)

    def counts(self) -> dict[str, int]:
        """Evaluations since the run began."""
        now = self.oracle.counts.as_dict()
        return {name: now[name] - self.base[name] for name in now}

    def observe(self, iteration: int, m: Measure) -> Finish | None:
        """Record a measure and decide whether the run ends."""
        if not (math.isfinite(m.F) and _is_finite(m.x) and _is_finite(m.y)):
            if self.last is None:
                self.last = m
            if m.finish is not None:
                return m.finish
            return Finish(
                Status.DIVERGED,
                f"iteration {iteration}: the iterates or the objective are not finite",
            )
        self.last = m
        self._note(m)
        for w in m.warnings:
            self.warnings.setdefault(w)
        upper, lower = self.scales.relative(m)
        self.stationarity = upper
        record = self._record(iteration, m)
        if self.callback is not None and is_end(self.callback(IterationState.of(record, m))):
            return Finish(Status.INTERRUPTED, "stopped by the callback")
        self.in_user_code = False
        if self.led_back:
            return Finish(Status.STALLED, LED_BACK)
        if m.finish is not None:
            self.candidate = m.finish.status is Status.CONVERGED
            return m.finish
        if upper <= self.options.tol and lower <= self.options.tol and not m.goes_on:
            self.candidate = True
            return Finish(
                Status.CONVERGED,
                f"relative hypergradient {upper:.1e} and lower residual {lower:.1e} within tol",
            )
        if record.time > self.options.time_limit:
            return Finish(
                Status.TIME_LIMIT, f"stopped after {self.options.time_limit:g} s (time_limit)"
            )
        return None

    def _note(self, m: Measure) -> None:
        size = m.hypergradient_norm
        if math.isfinite(size):
            self.first = self.first or size
            if size <= EXPLODED * self.first:
                self.sane = m

    def cut_short(self, finish: Finish) -> Finish:
        """Where a limit meets a run in an explosion, the point before it is what is shown; where it
        meets one that seeks a better end than it has, that end.
        """
        last, sane = self.last, self.sane
        if (finish.status not in LIMITS and not self.led_back) or last is None:
            return finish
        rival = last.rival
        if rival is not None and rival.F <= last.F:
            self.last, self.stationarity = rival, self.scales.relative(rival)[0]
            end = rival.finish
            if finish.status is Status.INTERRUPTED or end is None or end.status in UNFINISHED:
                return finish
            self.candidate = True
            return end
        if sane is None or last is sane:
            return finish
        if not last.F > sane.F:
            return finish
        self.last = sane
        return replace(finish, message=f"{finish.message}; the point is that before F exploded")

    def _record(self, iteration: int, m: Measure) -> Record:
        """Write a measure down; reports and callbacks are the user's code."""
        elapsed = time.perf_counter() - self.started
        counts = self.counts()
        self.in_user_code = True
        reports = dict(self.report(m.x, m.y)) if self.report is not None else {}
        o = self.oracle
        record = Record(
            iteration,
            elapsed,
            o.F_sign * m.F,
            o.f_sign * m.f,
            m.hypergradient_norm,
            m.lower_residual,
            counts,
            reports,
            tuple(m.x.tolist()) if o.n <= PATH else (),
        )
        self.history.append(record)
        if self.progress is not None:
            self.progress(record)
        return record

    def place(self, x: Vec, y: Vec) -> None:
        """Record a point of which nothing is known but the objectives."""
        o = self.oracle
        self.last = Measure(x, y, o.F(x, y), o.f(x, y), math.nan, math.nan)
        if math.isfinite(self.last.F):
            self._record(0, self.last)

    def onward(self, finish: Finish, search: Onward | None) -> tuple[Vec, Vec] | None:
        """Where to go on from, if the end is one of the mathematics and there is lower ground; to
        the last step from an end that was met before, if that has a better response. What the
        search costs is not the run's.
        """
        if search is None or self.last is None or self.led_back:
            return None
        if finish.status not in (Status.CONVERGED, Status.STALLED):
            return None
        before = self.oracle.counts.as_dict()
        place = search(self.last.x, self.last.y)
        after = self.oracle.counts.as_dict()
        self.base = {name: self.base[name] + after[name] - before[name] for name in after}
        if place is not None and place[0] is self.last.x and place[1] is self.last.y:
            # No lower ground, but not stationary: a flat stretch goes on while that gains.
            size = self.last.hypergradient_norm
            if not size < LEADING * self.again or finish.status is not Status.CONVERGED:
                return None
            self.again = size
        elif place is not None:
            end = (self.last.F, self.last.f)
            if is_known(end, self.ends) or (self.restarts and is_same(place, self.origin[1:])):
                self.led_back = is_same((place[0], self.last.y), (self.last.x, self.last.y))
                return place if self.led_back else None
            self.ends.append(end)
        return place

    def result(self, finish: Finish) -> RunResult:
        """Pack the last good point."""
        o, m = self.oracle, self.last
        assert m is not None
        return RunResult(
            m.x,
            m.y,
            o.F_sign * m.F,
            o.f_sign * m.f,
            finish.status,
            finish.message,
            max(len(self.history) - 1, 0),
            tuple(self.history),
            self.counts(),
            time.perf_counter() - self.started,
            m.hypergradient_norm,
            m.lower_residual,
            self.stationarity,
            self.candidate,
            tuple(self.warnings),
        )


def _is_finite(v: Vec) -> bool:
    """Whether all entries are finite; one inner product tells unless it overflows."""
    return math.isfinite(torch.dot(v, v).item()) or bool(torch.isfinite(v).all())
