"""What a notebook and a report show of structure, decision, certificate and result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bilevelpy.markup.html import (
    Raw,
    escape,
    items,
    number,
    residual,
    shape,
    table,
    values,
    words,
)

if TYPE_CHECKING:
    from bilevelpy.dispatcher import Decision
    from bilevelpy.result import Certificate, Result

# Rows of one table of values; more are cut, for a page is to be read.
MAX_ROWS = 200


def structure(facts: Iterable[Sequence[str]]) -> Raw:
    """Facts as (name, value, evidence, reason, place)."""
    # What a model needs is said by its reason.
    rows = [
        (n, "yes" if n.startswith("needs: ") else v, e, Raw(_reason(r, p)))
        for n, v, e, r, p in facts
    ]
    return table(rows, ("fact", "value", "evidence", "why"), "facts")


def _reason(reason: str, place: str) -> str:
    return words(reason) + (f" <small>({escape(place)})</small>" if place else "")


def decision(d: Decision | Mapping[str, Any]) -> Raw:
    """The backend chosen, why, and why not the others."""
    content = d if isinstance(d, Mapping) else d.to_json()
    chosen = content.get("backend") or content.get("chosen") or ""
    parts = [f"<p>backend <strong>{escape(chosen)}</strong></p>", items(content.get("why", ()))]
    for kind in ("warnings", "notes"):
        if content.get(kind):
            parts.append(items(content[kind]))
    rejected = content.get("rejected") or {}
    if rejected:
        rows = [(name, words(reason)) for name, reason in rejected.items()]
        summary = f"{len(rows)} other backends do not take this model"
        parts.append(
            f"<details><summary>{summary}</summary>{table(rows, ('backend', 'why not'))}</details>"
        )
    return Raw("\n".join(parts))


def certificate(c: Certificate) -> Raw:
    """What was recomputed at the answer, and what it says in words."""
    rows = [
        ("kind", c.kind),
        ("lower gap", f"{residual(c.lower_gap)} ({residual(c.lower_gap_relative)} of f)"),
        ("lower stationarity", residual(c.lower_stationarity)),
        ("lower feasibility", residual(c.lower_feasibility)),
        ("upper feasibility", residual(c.upper_feasibility)),
        ("hypergradient norm", residual(c.hypergradient_norm)),
    ]
    if c.directional_check is not None:
        mismatch = f"{residual(c.directional_check)} relative mismatch"
        rows.append(("finite difference", mismatch))
    return Raw(table(rows, kind="numbers") + items(c.reasons))


def objectives(r: Result) -> Raw:
    """Objective values of all levels."""
    rows = [("upper", number(r.F, 10)), *((n, number(v, 10)) for n, v in r.f.items())]
    return table(rows, ("objective", "value"), "numbers")


def variables(r: Result, labels: Mapping[str, Sequence[str]] | None = None) -> Raw:
    """Every variable: shape, range, first and last values; ``labels`` name the entries of
    ``level.variable``.
    """
    groups = [("", r.upper)] + [(f"{k}.", vs) for k, vs in r.lower.items()]
    rows = []
    for prefix, group in groups:
        for name, array in group.items():
            shown = ""
            if array.size > 1:
                shown = f"{number(float(array.min()), 5)} to {number(float(array.max()), 5)}"
            called = (labels or {}).get(f"{prefix}{name}", ())
            rows.append((f"{prefix}{name}", shape(array), shown, values(array, called)))
    return table(rows, ("variable", "shape", "range", "values"), "values")


def named(values_by_name: Mapping[str, Any], what: str) -> Raw:
    """Reports or shadow prices."""
    import numpy as np

    arrays = {n: np.asarray(v, dtype=float) for n, v in values_by_name.items()}
    rows = [(n, shape(a), values(a)) for n, a in list(arrays.items())[:MAX_ROWS]]
    return table(rows, (what, "shape", "values"), "values")


def result(r: Result) -> Raw:
    """The whole answer in short."""
    word = "good" if r.success else "poor"
    seconds = r.time.get("total", 0.0)
    head = (
        f'<p><strong>{escape(r.model)}</strong> <span class="status {word}">{escape(r.status)}'
        f"</span> {escape(r.backend)}, {r.iterations} iterations, {seconds:.2f} s</p>"
        f"<p>{words(r.message)}</p>"
    )
    parts = [head, objectives(r), variables(r)]
    if r.reports:
        parts.append(named(r.reports, "report"))
    if r.certificate is not None:
        parts.append("<h4>Certificate</h4>" + certificate(r.certificate))
    if r.warnings:
        parts.append(items(f"warning: {w}" for w in r.warnings))
    return Raw("\n".join(parts))
