"""How a refusal reads: the fact that decides, its place in the model, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from bilevelpy.backends.base import Accept, Reject
from bilevelpy.diagnostics import Diagnostic, diagnostic
from bilevelpy.dispatcher.decision import Rejection

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure

# Columns of a note, and backends beyond which all of them are not named one by one.
WIDTH, MANY = 90, 8

_HINTS = {
    "single_level": "declare a `lower` level, or use a general optimiser for a model of one level",
    "upper_constraints": "write bounds of upper variables as domains: `var x in [lo, hi]`",
    "lower_constraints": "write bounds of lower variables as domains: `var y in [lo, hi]`",
    "steps": "drop `assume steps(...)` if the lower level is meant to be solved",
    "pessimistic": "the stances agree where the lower level is strongly convex",
}


def rejection(structure: Structure, verdict: Reject) -> Rejection:
    """A verdict with its fact in words, and the place of that."""
    fact = verdict.fact
    if fact is None:
        return Rejection(verdict.reason)
    span = fact.span
    if span is None or span.file not in structure.sources:
        return Rejection(verdict.reason, fact.reason)
    source = structure.sources[span.file]
    line, column = source.position(span.start)
    return Rejection(verdict.reason, fact.reason, source.name, line, column)


def nobody(structure: Structure, verdicts: Mapping[str, Accept | Reject]) -> str:
    """BLV0601 at the fact that most backends name."""
    rejects = [(n, v) for n, v in verdicts.items() if isinstance(v, Reject)]
    facts = [v.fact for _, v in rejects if v.fact is not None]
    placed = [f for f in facts if f.span is not None]
    deciding = next(iter([*placed, *facts]), None)
    notes = _grouped(rejects) or ["there is no backend"]
    if deciding is not None and deciding.span is None:
        notes.insert(0, deciding.reason)
    span = deciding.span if deciding is not None else None
    label = deciding.reason if deciding is not None else ""
    found = diagnostic("BLV0601", span, label, notes=tuple(notes), hint=_hint(structure))
    return _render(found, structure)


def _grouped(rejects: Sequence[tuple[str, Reject]]) -> list[str]:
    """A note for each reason, with the backends that give it; the commonest first."""
    groups: dict[str, list[str]] = {}
    for name, verdict in rejects:
        groups.setdefault(verdict.reason, []).append(f"`{name}`")
    if len(groups) == 1 and len(rejects) > MANY:
        return [f"every backend {reason}" for reason in groups]
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return [
        "\n".join(wrap(f"{', '.join(names)}: {reason}", WIDTH, break_on_hyphens=False))
        for reason, names in ordered
    ]


def refusal(structure: Structure, name: str, verdict: Reject, ranked: tuple[str, ...]) -> str:
    """BLV0602 at the fact that the named backend rejects."""
    fact = verdict.fact
    span, label = (fact.span, fact.reason) if fact is not None else (None, "")
    notes = [f"`{name}` {verdict.reason}"]
    if fact is not None and fact.span is None:
        notes.append(fact.reason)
    hint = (
        f"`{ranked[0]}` accepts it" if ranked else "no other backend accepts it either"
    ) + "; `force` runs it all the same"
    found = diagnostic("BLV0602", span, label, notes=tuple(notes), hint=hint, backend=name)
    return _render(found, structure)


def _hint(structure: Structure) -> str | None:
    """What the modeller can do about the deciding fact."""
    keys = tuple(structure.unsupported)
    if keys:
        return _HINTS.get(keys[0])
    if structure.convexity.value == "convex":
        return (
            "add a term such as 1e-6*sumsq(y), or write `assume unique;` if the solution is unique"
        )
    if structure.convexity.value == "unknown":
        return "if you know better, write `assume strongly_convex(mu);` in the lower level"
    return None


def _render(found: Diagnostic, structure: Structure) -> str:
    from bilevelpy.diagnostics.render import render_full

    return render_full(found, structure.sources)
