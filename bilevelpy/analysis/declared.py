"""Facts that the modeller declares with `assume`, and their refutation at the points that were
probed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bilevelpy.analysis.bounds.ranges import Ranges
from bilevelpy.analysis.probing.probe import SINGULAR, Probe
from bilevelpy.diagnostics import Diagnostic, diagnostic
from bilevelpy.ir.program import MODULI, Assumption, Level

# A declared number is refuted by a measured one beyond this relative margin.
MARGIN = 1e-6


@dataclass(frozen=True, slots=True)
class Declared:
    """One declared fact of one level with the number it names, if any."""

    name: str
    value: float | None
    level: Level
    assumption: Assumption


def declared_facts(ranges: Ranges, level: Level) -> dict[str, Declared]:
    """The declared facts of a level by name; of several moduli the largest counts."""
    found: dict[str, Declared] = {}
    for assumption in level.assumptions:
        value = ranges.bounds(assumption.arguments[0])[0] if assumption.arguments else None
        before = found.get(assumption.name)
        if before is None or (
            value is not None and before.value is not None and value > before.value
        ):
            found[assumption.name] = Declared(assumption.name, value, level, assumption)
    return found


def negative(facts: Iterable[Declared]) -> list[Diagnostic]:
    """One BLV0504 for each modulus whose data make it negative: it would promise nothing."""
    return [
        diagnostic(
            "BLV0504",
            fact.assumption.span,
            "a modulus is a number from 0 on",
            hint="correct the data, or drop the assumption",
            fact=_written(fact),
            level=fact.level.name,
        )
        for fact in facts
        if fact.name in MODULI and fact.value is not None and fact.value < 0
    ]


def refute(facts: list[Declared], probe: Probe, exact: bool, free: bool) -> list[Diagnostic]:
    """One BLV0504 for each fact of the followers that a probed point contradicts.

    ``exact`` says that the spectrum is that of a constant Hessian, ``free`` that no bound or row
    restricts the followers; together a zero eigenvalue refutes uniqueness. Bounds and rows can make
    the solution of a linear problem unique.
    """
    errors = []
    for fact in facts:
        found = _contradiction(fact, probe, exact, free)
        if found:
            errors.append(
                diagnostic(
                    "BLV0504",
                    fact.assumption.span,
                    found[0],
                    notes=found[1:],
                    hint=_HINTS.get(fact.name),
                    fact=_written(fact),
                    level=fact.level.name,
                )
            )
    return errors


_HINTS = {
    "strongly_convex": "declare a smaller modulus, or drop the assumption",
    "smooth": "declare a larger constant, or drop the assumption",
    "convex": "drop the assumption, or correct the objective",
    "unique": "drop the assumption, or add a term that makes the solution unique",
}


def _written(fact: Declared) -> str:
    return fact.name if fact.value is None else f"{fact.name}({fact.value:.6g})"


def _contradiction(fact: Declared, probe: Probe, exact: bool, free: bool) -> tuple[str, ...]:
    """The label and notes of a refutation; empty where nothing contradicts the fact."""
    lowest = probe.lowest
    if fact.name in ("convex", "strongly_convex"):
        bound = fact.value or 0.0
        if lowest is not None:
            slack = MARGIN * abs(bound) + (
                0.0 if bound else SINGULAR * max(abs(lowest.high), abs(lowest.low))
            )
            if lowest.low < bound - slack:
                where = "" if exact else " at a sampled point"
                return (
                    f"f has curvature {lowest.low:.6g}{where}",
                    _at("x", lowest.x),
                    _at("y", lowest.y),
                )
        w = probe.witness
        if w is not None:
            return (
                f"f curves downwards between two points: slope {w.slope:.6g}",
                _at("x", w.x),
                _at("a", w.a),
                _at("b", w.b),
            )
    if fact.name == "smooth" and fact.value is not None:
        seen = max(probe.high or 0.0, probe.steepest)
        if seen > fact.value * (1 + MARGIN):
            return (f"the gradient of f changes at the rate {seen:.6g} at a sampled point",)
    if fact.name == "unique" and exact and free and probe.singular:
        return ("f has directions without curvature, along which solutions do not differ",)
    return ()


def _at(name: str, vector: np.ndarray) -> str:
    """A point in a note, its first entries."""
    shown = ", ".join(f"{v:.6g}" for v in vector[:4])
    return f"{name} = ({shown}{', ...' if vector.size > 4 else ''})"
