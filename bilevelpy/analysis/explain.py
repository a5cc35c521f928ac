"""A structure for people and for scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bilevelpy.analysis.structure import Fact, Structure

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Source, Span


def facts_of(structure: Structure) -> list[tuple[str, Fact[Any]]]:
    """Every fact with its label, in reading order."""
    s = structure
    rows: list[tuple[str, Fact[Any]]] = [
        ("lower class", s.lower.form),
        ("lower convexity", _convexity(s)),
        ("lower modulus", s.modulus),
        ("lower Lipschitz constant", s.lipschitz),
    ]
    if s.spectrum is not None:
        rows.append(("lower curvature at the start", s.spectrum))
    rows += [
        ("lower smooth", s.lower.smooth),
        ("lower unique", s.unique),
        ("lower Hessian", s.lower_hessian),
    ]
    if s.hessian_passes is not None:
        rows.append(("lower Hessian passes", s.hessian_passes))
    if s.bands is not None:
        rows.append(("lower Hessian bands", s.bands))
    rows += [
        ("lower constraints", s.lower.constraints),
        ("lower blocks", s.block_separable),
        ("lower sum over", s.finite_sum_lower),
        ("upper class", s.upper.form),
        ("upper smooth", s.upper.smooth),
        ("upper constraints", s.upper.constraints),
        ("upper sum over", s.finite_sum_upper),
        ("coupling constraints", s.coupling),
        ("externs", s.externs),
    ]
    if s.streamed is not None:
        rows.append(("bytes in files", s.streamed))
    if s.statistics is not None:
        rows.append(("numbers for rows of files", s.statistics))
    rows += [(f"needs: {key.replace('_', ' ')}", fact) for key, fact in s.unsupported.items()]
    return rows


def _convexity(s: Structure) -> Fact[str]:
    """A follower with whole numbers is not convex: what the analysis says is about its relaxation,
    in which they are real.
    """
    if not s.lower.discrete.value:
        return s.convexity
    reason = f"{s.lower.discrete.reason}; without that: {s.convexity.reason}"
    return replace(
        s.convexity, value=f"mixed-integer; relaxation {s.convexity.value}", reason=reason
    )


def place_words(span: Span | None, sources: Mapping[str, Source]) -> str:
    """``file:line``, or an empty string."""
    if span is None or span.file not in sources:
        return ""
    line, _ = sources[span.file].position(span.start)
    return f"{sources[span.file].name}:{line}"


def value_words(value: object) -> str:
    """A fact's value in words."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, frozenset):
        return ", ".join(sorted(value))
    if isinstance(value, tuple):
        if value and all(isinstance(v, float) for v in value):
            return " to ".join(f"{v:.4g}" for v in value)
        return ", ".join(str(v) for v in value) or "none"
    return str(value)


def rows_of(structure: Structure) -> list[tuple[str, str, str, str, str]]:
    """Name, value, evidence, reason and place of every fact that says something."""
    return [
        (name, value_words(f.value), str(f.evidence), f.reason, place)
        for name, f in facts_of(structure)
        if value_words(f.value) != "none" or name.endswith("constraints")
        for place in [place_words(f.span, structure.sources)]
    ]


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
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_json_value(v) for v in value]
    return value
