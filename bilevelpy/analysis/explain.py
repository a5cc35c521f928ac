"""A structure for people and for scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bilevelpy.analysis.structure import Epigraphs, Structure, facts_of, place_words, value_words

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Source


def describe(structure: Structure, sources: Mapping[str, Source] | None = None) -> str:
    """A table of all facts: label, value, evidence, reason and place."""
    known = structure.sources if sources is None else sources
    s = structure
    rows = []
    for label, fact in facts_of(s):
        value = "" if label.startswith("needs:") else value_words(fact.value)
        where = place_words(fact.span, known)
        reason = fact.reason + (f"  ({where})" if where else "")
        rows.append((label, value, str(fact.evidence), reason))
    widths = [max(len(r[k]) for r in rows) for k in range(3)]
    follower = "follower" if s.followers == 1 else "followers"
    head = (
        f"{s.model}: {s.dim_x} upper and {s.dim_y} lower variables, {s.upper_constraints} upper "
        f"and {s.lower_constraints} lower constraints, {s.followers} {follower}, {s.stance}"
    )
    lines = [head]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
        lines.append("  " + "  ".join([*cells, row[3]]))
    return "\n".join(lines)


def json_number(value: float | None) -> float | str | None:
    """A number that every JSON reader takes: NaN is null, infinities are words."""
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def to_json(structure: Structure) -> dict[str, Any]:
    """The object of ``explain --json`` without the decision."""
    s = structure
    return {
        "model": s.model,
        "dimensions": {
            "upper": s.dim_x,
            "lower": s.dim_y,
            "upper_constraints": s.upper_constraints,
            "lower_constraints": s.lower_constraints,
            "followers": s.followers,
        },
        "stance": s.stance,
        "lower": {
            "class": s.lower.form.value,
            "convexity": s.convexity.value,
            "evidence": str(s.convexity.evidence),
            "modulus": json_number(s.modulus.value),
            "lipschitz": json_number(s.lipschitz.value),
            "smooth": s.lower.smooth.value,
            "unique": s.unique.value,
            "hessian": s.lower_hessian.value,
            "hessian_passes": s.hessian_passes.value if s.hessian_passes is not None else None,
            "constraints": s.lower.constraints.value,
            "domains": sorted(s.lower.domains.value),
            "finite_sum_over": list(s.finite_sum_lower.value),
            "block_separable_over": list(s.block_separable.value),
            "discrete": s.lower.discrete.value,
        },
        "upper": {
            "class": s.upper.form.value,
            "smooth": s.upper.smooth.value,
            "bounds": not s.upper.domains.value <= {"free"},
            "constraints": s.upper.constraints.value,
            "coupling_constraints": s.coupling.value,
            "finite_sum_over": list(s.finite_sum_upper.value),
            "discrete": s.upper.discrete.value,
        },
        "discrete": s.lower.discrete.value,
        "externs": list(s.externs.value),
        "unsupported": {key: fact.reason for key, fact in s.unsupported.items()},
        "facts": [
            {
                "fact": label,
                "value": _json_value(fact.value),
                "evidence": str(fact.evidence),
                "reason": fact.reason,
                "place": place_words(fact.span, s.sources) or None,
            }
            for label, fact in facts_of(s)
        ],
    }


def _json_value(value: object) -> object:
    if isinstance(value, float):
        return json_number(value)
    if isinstance(value, Epigraphs):
        return asdict(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_json_value(v) for v in value]
    return value
