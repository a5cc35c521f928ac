"""Warnings about the lower level's curvature, at the terms that cause them."""

from __future__ import annotations

from collections.abc import Sequence

from bilevelpy.analysis.curvature import CONVEX, NONCONVEX, STRONGLY, LevelVerdict
from bilevelpy.analysis.forms.scope import text_at
from bilevelpy.analysis.structure import Evidence, Fact
from bilevelpy.diagnostics import Diagnostic, diagnostic
from bilevelpy.ir.program import Program
from bilevelpy.ir.walk import place


def curvature_warnings(
    program: Program, levels: Sequence[LevelVerdict], convexity: Fact[str]
) -> tuple[Diagnostic, ...]:
    """BLV0502 or BLV0503 for each objective that is not known to be convex."""
    found: list[Diagnostic] = []
    settled = convexity.value in (CONVEX, STRONGLY) and convexity.evidence is Evidence.PROVED
    for v in levels:
        if v.offences and not settled and v.evidence is not Evidence.DECLARED:
            found.append(_not_convex(program, v, convexity))
    return tuple(found)


def _not_convex(program: Program, verdict: LevelVerdict, convexity: Fact[str]) -> Diagnostic:
    first = verdict.offences[0]
    node = first.node if first.node is not None else first.term.root
    span = place(node) or place(verdict.level.objective)
    notes = []
    convex = [
        text_at(program, place(v.term.root)) for v in verdict.verdicts if v.convex and not v.affine
    ]
    convex = [t for t in dict.fromkeys(convex) if t]
    if convex:
        notes.append("convex: " + "; ".join(convex))
    if convexity.value == NONCONVEX:
        notes.append(f"seen: {convexity.reason}")
        notes.append("effect: backends that need a convex lower level are not chosen")
        return diagnostic("BLV0503", span, first.why, notes=tuple(notes), level=verdict.level.name)
    notes.append(
        "effect: a backend that needs strong convexity is chosen only where points show it, "
        "with a warning"
    )
    name = verdict.level.name
    hint = (
        f"if you know better, write `assume convex;` in `{name}`: "
        "it is tested at random points before the solve"
    )
    return diagnostic("BLV0502", span, first.why, notes=tuple(notes), hint=hint, level=name)
