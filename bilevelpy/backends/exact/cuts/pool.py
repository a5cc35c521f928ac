"""Cuts in hand, and their rows in a relaxation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bilevelpy.backends.exact.cuts.closure import STRICT, is_affine
from bilevelpy.backends.exact.cuts.ways_out import NEVER, Rules
from bilevelpy.reductions.rewriting.difference import difference
from bilevelpy.reductions.rewriting.fixing import placed

if TYPE_CHECKING:
    from bilevelpy.backends.exact.cuts.ways_out import Way
    from bilevelpy.backends.exact.engine.scip import Model
    from bilevelpy.backends.exact.responses.cut import Cut
    from bilevelpy.backends.exact.responses.followers import Followers
    from bilevelpy.reductions.rows import Functions

# Responses nearer to each other than this make the same cut.
SAME = 1e-9


@dataclass(slots=True)
class Pool:
    """Cuts in hand; what their rows say is found once for each."""

    run: Followers
    cuts: list[Cut] = field(default_factory=list)
    _rules: dict[int, Rules] = field(default_factory=dict)
    _formulas: dict[tuple[int, float], tuple[Functions, list[Way]]] = field(default_factory=dict)

    def is_known(self, cut: Cut) -> bool:
        """Whether there is this cut already."""
        return any(c.is_same(cut, self.run.decided(cut.follower), SAME) for c in self.cuts)

    def write(self, model: Model, margin: float = 0.0, twin: Model | None = None) -> None:
        """All cuts as rows of a relaxation; with a ``margin`` (relative), a response has to break
        its row by that at least: points inside of what cuts allow, and no relaxation any more. A
        ``twin`` breaks the same row clearly (see :mod:`~bilevelpy.backends.exact.cuts.closure`).
        """
        writer = _Writer(self.run, model, twin)
        for n, cut in enumerate(self.cuts):
            key = n, margin
            if key not in self._formulas:
                self._formulas[key] = self.formula(cut, margin)
            writer.write(cut, *self._formulas[key])

    def formula(self, cut: Cut, margin: float = 0.0) -> tuple[Functions, list[Way]]:
        """By how much f may not be above that at the response of a cut, and the ways out of it."""
        k = cut.follower
        if k not in self._rules:
            self._rules[k] = Rules(self.run, k)
        rules = self._rules[k]
        there = placed(rules.objective, rules.own, cut.response, cut.slopes)
        fall = difference(self.run.system.lower_objectives.take([k]), there)
        return fall, rules.ways_out(cut, margin)


@dataclass(slots=True)
class _Writer:
    """One relaxation: binaries for rows that are broken serve all cuts."""

    run: Followers
    model: Model
    twin: Model | None
    known: dict[tuple[object, ...], Any] = field(default_factory=dict)

    def write(self, cut: Cut, fall: Functions, ways: list[Way]) -> None:
        """The rows of one cut."""
        model = self.model
        points = [model]
        if self.twin is not None and is_affine(self.run.system.columns, fall, 0):
            points.append(self.twin)
        paid = self._paid([w for w in ways if w.cost])
        ways = [w for w in ways if w.cost is None]
        if not ways:
            for point in points:
                point.row(point.expression(fall, 0, 1.0) - paid, -math.inf, cut.room)
            return
        choices = [model.scip.addVar(f"choice.{model.scip.getNVars()}", "B")]
        for point in points:
            _obey(point, choices[0], point.expression(fall, 0, 1.0) - paid, cut.room)
        choices += [self._way_out(way) for way in ways]
        model.scip.addCons(sum(choices[1:], choices[0] + 0.0) >= 1.0)

    def _paid(self, ways: list[Way]) -> Any:
        """What falling back costs: once where several rows send the same variables back."""
        groups: dict[tuple[int, ...], list[Way]] = {}
        for way in ways:
            groups.setdefault(way.moved, []).append(way)
        paid: Any = 0.0
        for group in groups.values():
            broken: Any = sum((self._broken(w) for w in group), 0.0)
            if len(group) > 1:
                once = self.model.scip.addVar(f"fall.{self.model.scip.getNVars()}", "C", 0.0, 1.0)
                self.model.scip.addCons(once - broken <= 0.0)
                broken = once
            paid = paid + group[0].cost * broken
        return paid

    def _way_out(self, way: Way) -> Any:
        """A binary that, where it is 1, lets the response break a row."""
        key = self._key(way)
        if key is not None and key in self.known:
            return self.known[key]
        sign, end = (-1.0, way.end) if way.above else (1.0, -way.end)
        model = self.model
        z = _switch(model, sign * model.expression(way.functions, way.row) + end + way.by, 0.0)
        strict = way.by == 0.0 and is_affine(self.run.system.columns, way.functions, way.row)
        if self.twin is not None and strict:
            value = sign * self.twin.expression(way.functions, way.row) + end
            _obey(self.twin, z, value, -STRICT * way.scale)
        if key is not None:
            self.known[key] = z
        return z

    def _broken(self, way: Way) -> Any:
        """1 at most where the row is broken, else 0: by how many steps it is where that is no more
        than one, a binary otherwise.
        """
        step = 2.0 * way.by
        stepwise = way.whole and way.least >= -NEVER * way.scale
        if not stepwise:
            return self._way_out(way)
        sign, model = (1.0 if way.above else -1.0), self.model
        steps = sign * (model.expression(way.functions, way.row) - way.end) * (1.0 / step)
        if way.most <= step + NEVER * way.scale:
            return steps
        z = model.scip.addVar(f"choice.{model.scip.getNVars()}", "B")
        model.scip.addCons(z - steps <= 0.0)
        return z

    @staticmethod
    def _key(way: Way) -> tuple[object, ...] | None:
        """What tells a row that is broken from others, where it is linear."""
        f, r = way.functions, way.row
        if r in f.quadratic or r in f.trees:
            return None
        span = slice(f.linear.indptr[r], f.linear.indptr[r + 1])
        entries = f.linear.indices[span].tobytes(), f.linear.data[span].tobytes()
        scale = way.scale if way.by == 0.0 else 0.0
        return (*entries, float(f.constant[r]) - way.end, way.above, way.by, scale)


def _switch(model: Model, expression: Any, level: float) -> Any:
    """A binary that, where it is 1, forces ``expression <= level``."""
    z = model.scip.addVar(f"choice.{model.scip.getNVars()}", "B")
    _obey(model, z, expression, level)
    return z


def _obey(model: Model, z: Any, expression: Any, level: float) -> None:
    """``expression <= level`` where the binary z is 1."""
    scip = model.scip
    s = scip.addVar(f"value.{scip.getNVars()}", "C", lb=None, ub=None)
    scip.addCons(s - expression >= 0.0)
    scip.addConsIndicator(s <= level, z)
