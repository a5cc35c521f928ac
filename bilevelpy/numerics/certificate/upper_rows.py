"""Optimality along responses within the rows of the upper level.

The stationarity is the shortest combination of F's derivative, multiples of those of the tight
rows, and normals of the domain: the length of ``argmin g'd + |d|^2 / 2`` within the rows made
linear at x (:mod:`bilevelpy.numerics.cones.sequential` with the identity). At a kink, derivatives
at points around x take part. F with an exact penalty of the rows, heavier than the multipliers, is
then compared with that at points beside x.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from bilevelpy.numerics.certificate.plateau import UNDERFLOW
from bilevelpy.numerics.cones.sample import kinds, sample
from bilevelpy.numerics.cones.sequential import (
    Kinds,
    Sample,
    Step,
    Units,
    merit,
    step_program,
    units_of,
)
from bilevelpy.numerics.extent import HARDLY, shows_no_scale
from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.wording import wording

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

# Radius of probes and around kinks, in extents; a sampled slope below this is stationary.
PROBE, KINK, FLAT = 1e-3, 1e-5, 1e-3
# How far the size of F's derivative is looked up, in extents.
NEAR = 1e-2
# Random lines around a kink, all points there at least, and those beside a direction downhill.
FIRST, MANY, BESIDE, SPREAD = 10, 100, 3, 0.3
# The weight of the penalty of probes, in multipliers; rounding of F.
HEAVIER, NOISE = 4.0, 1e-9
# Shorter ways of a difference that does not fit, in parts of the first one.
FINER = (1e-1, 1e-2, 1e-3)
# Mismatch of a difference and the derivative that is no rounding.
MISMATCH = 1e-2
RANDOM = 4


def _rounding(F: float, extent: float) -> float:
    """The slope that rounding of F makes over an extent."""
    return NOISE * abs(F) / max(extent, 1.0)


@dataclass(slots=True)
class RowsCheck:
    """One check of an x; ``place`` is a better point where a probe has met one."""

    oracle: Any
    here: Sample
    kinds: Kinds
    units: Units
    rng: torch.Generator
    sampler: Callable[[Any, Vec, Vec], Sample | None] = sample
    kinked: bool = False
    stationarity: float = float("nan")
    mismatch: float | None = None
    place: Vec | None = None
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def at(
        cls,
        oracle: Any,
        x: Vec,
        y: Vec,
        rng: torch.Generator,
        sampler: Callable[[Any, Vec, Vec], Sample | None] = sample,
        known: Kinds | None = None,
    ) -> RowsCheck | None:
        """The check at x; None where there is no response. ``sampler`` solves the lower level,
        ``known`` are the kinds of its rows where they are not those of the upper level alone.
        """
        here = sampler(oracle, x, y)
        if here is None:
            return None
        units = units_of(here, oracle.domain_x, oracle.x0)
        if units.extent < HARDLY:
            start = sampler(oracle, oracle.domain_x.project(oracle.x0), y)
            if shows_no_scale(here.F, None if start is None else start.F):
                units = replace(units, extent=1.0)
        # On a plateau slopes are the rounding of their parts.
        units = replace(units, parts=max(units.parts, _rounding(here.F, units.extent)))
        return cls(oracle, here, known or kinds(oracle), units, rng, sampler, here.weak)

    def run(self, tol: float, until: float) -> None:
        """Stationarity, a difference, and probes."""
        says = wording(self.oracle.F_sign)
        if not self.here.x.numel():
            self.stationarity = 0.0
            return
        step = self._program([self.here])
        if step is not None and step.length > tol and self._typical():
            step = self._program([self.here])
        if step is not None and step.length > tol:
            # A kink this near has other derivatives behind it.
            again = self._around(until)
            if again is not None and again.length <= 0.5 * step.length:
                step, tol, self.kinked = again, FLAT, True
        if step is None:
            self.failures.append("the multipliers of the upper rows could not be found")
            return
        self.stationarity = step.length
        self.details["hypergradient_relative"] = step.length
        self.details["multipliers"] = float(np.abs(step.multipliers).max(initial=0.0))
        if step.length > tol:
            self.failures.append(
                f"F {says.falls} along the upper rows: the multipliers leave {step.length:.0e} of "
                "its derivative"
            )
        self._probe(step, tol, until)
        if self.kinked:
            self.notes.append(
                f"the response has a kink at x; probes lead {says.uphill} or out of the rows"
            )

    @property
    def is_flat(self) -> bool:
        """Whether F does not change at x, but for rounding."""
        return self.here.parts <= max(UNDERFLOW, _rounding(self.here.F, self.units.extent))

    def downhill(self) -> Array | None:
        """The direction in which F falls most within the rows, of length 1; None where it does not,
        or that is not found.
        """
        step = self._program([self.here])
        return None if step is None or step.length == 0.0 else step.d / step.length

    def _typical(self) -> bool:
        """Take what F's derivative looks like elsewhere for its size, where that is more: its parts
        may vanish at an optimum. The derivatives at the start, or at a little distance.
        """
        near = self._beside(NEAR * self._random())
        x = self.oracle.domain_x.project(self.oracle.x0)
        far = norm(x - self.here.x) > NEAR * self.units.extent
        start = self.sampler(self.oracle, x, self.here.y) if far else None
        sizes = [math.inf if near is None else norm(near.slope) / NEAR]
        sizes.append(math.inf if start is None else norm(start.slope))
        typical = min(sizes)
        if not self.units.parts < typical < math.inf:
            return False
        self.units = replace(self.units, parts=typical)
        return True

    def _around(self, until: float) -> Step | None:
        """The step by derivatives at points around x: random ones, then in the direction in which F
        should fall by those known (C. Lemarechal's bundles). Where many pieces meet, random points
        alone hardly ever lie on those that matter.
        """
        count = 2 * (self.here.x.numel() + 1)
        lines = [self._random() for _ in range(min(count // 2, FIRST))]
        ways = [sign * d for d in lines for sign in (1.0, -1.0)]
        samples, found = [self.here], None
        while ways and len(samples) <= max(count, MANY):
            known = len(samples)
            for d in ways:
                if time.perf_counter() > until:
                    return found
                new = self._beside(KINK * d)
                samples += [] if new is None else [new]
            found = self._program(samples) if len(samples) > known else found
            if found is None or found.length <= FLAT or len(samples) == known:
                break
            if self.here.x.numel() == 1:
                break  # there are no other sides
            d = found.d / found.length
            ways = [d, *(d + SPREAD * self._random() for _ in range(BESIDE))]
        return found

    def _program(self, samples: list[Sample]) -> Step | None:
        """A step by the identity, with the penalty heavy enough for the rows to hold."""
        eye, mu, found = np.eye(self.here.x.numel()), 1e2, None
        while mu <= 1e8:
            found = step_program(samples, self.oracle.domain_x, self.kinds, self.units, eye, mu)
            if found is not None and found.left.max(initial=0.0) <= 1e-7:
                return found
            mu *= 1e2
        return found

    def _probe(self, step: Step, tol: float, until: float) -> None:
        """Points beside x: the merit there, and differences along random lines."""
        mu = HEAVIER * (1.0 + float(np.abs(step.multipliers).max(initial=0.0)))
        start, worst, tried = self._merit(self.here, mu), 0.0, 0
        scale = abs(self.here.F) / self.units.value
        directions = [self._random() for _ in range(RANDOM)]
        directions += [self._within(d) for d in directions]
        if step.length > 0:
            directions.append(step.d / step.length)
        for k, d in enumerate(directions):
            ends = []
            for sign in (1.0, -1.0):
                if time.perf_counter() > until:
                    break
                new = self._beside(sign * PROBE * d)
                if new is None:
                    continue
                tried += 1
                ends.append(new)
                fall = start - self._merit(new, mu)
                if fall > 2 * tol * PROBE + NOISE * scale and fall > worst:
                    worst, self.place = fall, new.x
            if len(ends) == 2 and self.mismatch is None and k < RANDOM and not self.kinked:
                self._difference(ends[0], ends[1], step)
                self._nearer(d, step)
        self.details["probed"], self.details["probe_decrease"] = tried, worst * self.units.value
        if not tried:
            self.failures.append("no point could be compared beside x: optimality is not shown")
        if self.place is not None:
            self.failures.append(
                "not locally optimal: F with a penalty of the upper rows "
                f"{wording(self.oracle.F_sign).falls} by {worst * self.units.value:.2e} at a "
                f"distance of {norm(self.place - self.here.x):.1e} from x"
            )
        elif self.mismatch is not None and self._contradicts():
            self.failures.append(
                f"a difference along the responses contradicts the derivatives by "
                f"{self.mismatch:.1e}"
            )

    def _nearer(self, d: Array, step: Step) -> None:
        """The difference over shorter ways where it does not fit: several kinks may lie between."""
        for part in FINER:
            if self.mismatch is None or self.mismatch <= MISMATCH:
                return
            up, down = (self._beside(sign * PROBE * part * d) for sign in (1.0, -1.0))
            if up is not None and down is not None:
                self.mismatch = None
                self._difference(up, down, step)

    def _contradicts(self) -> bool:
        """Whether a difference does not fit, on the scale that derivatives have elsewhere."""
        parts, found = self.units.parts, self.mismatch or 0.0
        if found > MISMATCH and self._typical():
            self.mismatch = found = found * parts / self.units.parts
        return found > MISMATCH

    def _difference(self, up: Sample, down: Sample, step: Step) -> None:
        """The Lagrangian between two points against its derivative, relative to the parts. Where
        the mean of the derivatives at the ends fits it instead, the response has a kink between.
        """
        weights = torch.from_numpy(step.multipliers * self.units.parts / self.units.rows)
        move = up.x - down.x
        change = up.F - down.F + float(weights @ (up.rows - down.rows))
        parts = self.units.parts * (1.0 + float(np.abs(step.multipliers).sum()))
        if norm(move) == 0.0:
            return

        def mismatch(slope: Vec) -> float:
            error = max(abs(change - float(slope @ move)) - NOISE * abs(self.here.F), 0.0)
            return error / (parts * norm(move))

        here, first, last = (s.slope + s.slopes.T @ weights for s in (self.here, up, down))
        found = mismatch(here)
        if found > MISMATCH and mismatch(0.5 * (first + last)) <= MISMATCH:
            self.kinked = True
        else:
            self.mismatch = found

    def _merit(self, at: Sample, mu: float) -> float:
        return merit(at.F, at.rows.numpy(), self.kinds, self.units, mu)

    def _beside(self, d: Array) -> Sample | None:
        """What there is at ``x + extent d``, brought into the domain."""
        x = self.oracle.domain_x.project(self.here.x + self.units.extent * torch.from_numpy(d))
        return None if norm(x - self.here.x) == 0.0 else self.sampler(self.oracle, x, self.here.y)

    def _random(self) -> Array:
        d = torch.randn(self.here.x.numel(), generator=self.rng, dtype=torch.float64)
        return np.asarray((d / norm(d)).numpy())

    def _within(self, d: Array) -> Array:
        """The direction nearest to d that the rows allow."""
        wanted = replace(self.here, slope=torch.from_numpy(-PROBE * d * self.units.parts))
        found = self._program([wanted])
        if found is None or found.length == 0.0:
            return d
        return np.asarray(found.d / found.length)
