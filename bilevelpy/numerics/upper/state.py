"""What the upper optimizer carries from one iteration to the next."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import torch

from bilevelpy.lowering.domains.faces import Face
from bilevelpy.numerics.driver.measure import Finish, Measure
from bilevelpy.numerics.extent import extent_of
from bilevelpy.numerics.linear_solve import dot, norm
from bilevelpy.numerics.lower.response import Point, Response
from bilevelpy.numerics.quasi_newton import BFGS
from bilevelpy.numerics.upper.valleys import inherit

Vec = torch.Tensor

MEMORY = 30
# A long flat tail: over so many iterations F falls by less than so many times tol, while its
# gradient, though above tol, is small. Upper variables of little effect on F (weights of single
# samples) drift for ever.
WINDOW, FALL, SMALL_GRADIENT = 20, 5.0, 100.0
# Where the certificate asks for more, it is to be so many times smaller.
STRICTER = 0.2
# The part of tol by which a slope that the others hide has to change F to count.
CLEAR = 1e-2
# So many iterations a run goes on where nothing but the way from a far start calls it ended.
MORE = 30


@dataclass(frozen=True, slots=True)
class Rival:
    """The end of an earlier run from the same start."""

    point: Point
    end: Measure


@dataclass(slots=True)
class UpperState:
    """Everything that the optimizer carries from one iteration to the next."""

    response: Response
    point: Point
    tol: float
    start: Point
    memory: BFGS = field(default_factory=lambda: BFGS(0.0, MEMORY, rescale=True))
    norms: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    recent: deque[tuple[Vec, Vec]] = field(default_factory=lambda: deque(maxlen=60))
    small: float = SMALL_GRADIENT  # what counts as small in a flat tail, in units of tol
    more: int = 0  # iterations made beyond such an end
    extent: float = 0.0  # largest distance from the start: the length scale of the run
    reach: float = math.inf
    # The length of x or of the first step, and F at the last point that was not far beyond it.
    far: tuple[float, float] | None = None
    finish: Finish | None = None
    # Where a run of two is: an end after which it goes on, and the one of the first.
    pending: Finish | None = None
    rival: Rival | None = None
    warnings: tuple[str, ...] = ()
    # Where the lower level has several minima: the points along the present one, the best point
    # that no known one refutes, the next one with what refutes it, and how many better responses in
    # turn have led to no better point.
    trail: list[Point] = field(default_factory=list)
    refuge: Point | None = None
    edge: tuple[Point, Vec] | None = None
    fruitless: int = 0

    _seen: tuple[Point, Vec, float] | None = None
    _held: tuple[Point, Face] | None = None
    _quality: tuple[Point, tuple[int, int, int], float, bool] | None = None
    _model: tuple[Point, int, Vec] | None = None
    _newton: tuple[Point, Vec | None] | None = None

    @property
    def projected_gradient(self) -> Vec:
        """Hypergradient without the parts that the upper domain blocks."""
        return self._projected()[0]

    @property
    def gradient_norm(self) -> float:
        """Its norm."""
        return self._projected()[1]

    @property
    def face(self) -> Face:
        """The face of the upper domain at the point."""
        if self._held is None or self._held[0] is not self.point:
            point = self.point
            self._held = (point, self.response.oracle.domain_x.face(point.x, point.g))
        return self._held[1]

    def _projected(self) -> tuple[Vec, float]:
        """Both, computed once for a point."""
        if self._seen is None or self._seen[0] is not self.point:
            pg = self.response.oracle.domain_x.projected_gradient(self.point.x, self.point.g)
            self._seen = (self.point, pg, norm(pg))
        return self._seen[1:]

    def model_step(self) -> Vec:
        """Newton's step, else the one of the pairs, on the face of x; computed once for a point
        and its pairs.
        """
        version = self.memory.version
        if self._model is None or self._model[0] is not self.point or self._model[1] != version:
            step = self.newton_step()
            if step is None and self.face.is_whole:
                step = self.memory.apply(self.projected_gradient)
            elif step is None:
                project = self.face.project
                step = self.memory.restricted(project, project(self.projected_gradient))
            self._model = (self.point, version, step)
        return self._model[2]

    def forget(self) -> None:
        """Drop what was learned of the curvature: a step by it led nowhere."""
        self.memory.reset()
        if self.response.newton is not None:
            self.response.newton.reset()

    def inherit(self, earlier: object) -> None:
        """Go on on the scale of the run that has led here; from where it ended in a flat tail that
        is not flat enough, to a smaller gradient.
        """
        if isinstance(earlier, UpperState):
            self.norms[:0] = earlier.norms
            changed = inherit(self, earlier)
            if torch.equal(earlier.point.x, self.start.x) and not changed:
                self.small = STRICTER * earlier.small

    def newton_step(self) -> Vec | None:
        """``Phi''^-1`` times the projected gradient on the face of x, where the response has it."""
        newton, point = self.response.newton, self.point
        if newton is None:
            return None
        if self._newton is None or self._newton[0] is not point:
            face, step = self.face, None
            if face.only_fixes:
                free = None if face.free is None else face.free.numpy()
                step = newton.step(point, self.projected_gradient.numpy(), free)
            self._newton = (point, None if step is None else torch.from_numpy(step))
        return self._newton[1]

    def stationarity(self) -> float:
        """Projected hypergradient and predicted decrease on the scales of the run, whichever is
        larger.

        The gradient's scale is the upper quartile of the norms seen (a few steep first steps do
        not count) or the size of the terms that cancel in it; the decrease is compared with |F|
        and the progress made.
        """
        version = (self.memory.version, len(self.norms), self.more)
        known = self._quality
        if known is None or known[0] is not self.point or known[1] != version:
            found = self.relative_gradient()
            accuracy = self.response.accuracy
            # Beyond tol the larger one matters to the accuracies alone.
            if found <= self.tol or accuracy.level > accuracy.floor:
                found = max(found, self.decrement() / self.size())
            hidden = False
            if found <= self.tol and self.more < MORE:
                found = max(found, self.remainder())
                hidden = found > self.tol
            known = self._quality = (self.point, version, found, hidden)
        return known[2]

    def remainder(self) -> float:
        """The predicted decrease on the scales of the point alone, |F| and a part of the curvature
        times |x|^2, which makes it ``(|d| / |x|)^2`` of a step d.

        Beside the fall from a start far away all is small. Where x and F both tend to 0, this
        never is.
        """
        loss = self.decrement()
        if loss == 0.0:
            return 0.0
        way, length = norm(self.model_step()), norm(self.point.x)
        bent = loss * (length / way) ** 2 if way > 0.0 else 0.0
        return loss / max(abs(self.point.value), CLEAR * bent, 1e-300)

    @property
    def is_hidden(self) -> bool:
        """Whether only :meth:`remainder` says that the run has not ended."""
        self.stationarity()
        return self._quality is not None and self._quality[3]

    def relative_gradient(self) -> float:
        """Projected hypergradient on the scale of the run.

        A bound may hold a slope so large that all others are nothing beside it. They count by
        themselves where following them over the length of x would change F clearly.
        """
        pg = self.gradient_norm
        if pg == 0.0:
            return 0.0
        ordered = sorted(self.norms)
        typical = ordered[(3 * len(ordered)) // 4] if ordered else pg
        found = pg / max(typical, self.point.size)
        if found <= self.tol and self.projected_gradient is not self.point.g:
            alone = pg / max(typical, self.point.moving_size(self.projected_gradient))
            length = extent_of(self.response.oracle, self.point.x)
            found = max(found, min(alone, CLEAR * pg * length / self.size()))
        return found

    def size(self) -> float:
        """What changes of F are compared with."""
        F = self.point.value
        return max(abs(F), 1e-3 * abs(self.start.value - F), 1e-300)

    def is_flat(self) -> bool:
        """Whether the run is in a long flat tail; gradients are compared with the largest seen."""
        if len(self.values) <= WINDOW:
            return False
        fall = self.values[-WINDOW - 1] - self.values[-1]
        slope = self.gradient_norm / max(*self.norms, 1e-300)
        return fall <= FALL * self.tol * self.size() and slope <= self.small * self.tol

    def decrement(self) -> float:
        """Decrease of Phi that the quasi-Newton model predicts for a full step."""
        if self.memory.scale == 0.0 and self.newton_step() is None:
            return 0.0
        return abs(dot(self.projected_gradient, self.model_step()))


def first_length(state: UpperState) -> float:
    """Length of the very first trial step; only a guess, which the search then corrects."""
    domain = state.response.oracle.domain_x
    length = norm(state.point.x)
    if not domain.is_free:
        width = norm(domain.upper - domain.lower)
        length = max(length, width) if width < math.inf else length
    return 0.1 * length or 1.0
