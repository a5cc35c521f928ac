"""What ``print`` shows of structure, decision, certificate and result: aligned lines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.markup.html import number, residual, shape, values

if TYPE_CHECKING:
    from bilevelpy.dispatcher import Decision
    from bilevelpy.result import Certificate, Result

WIDTH = 80


def lines(rows: Iterable[tuple[str, str]]) -> str:
    """Names, and texts in a column of their own."""
    pairs = [(name, text) for name, text in rows if text]
    wide = max((len(name) for name, _ in pairs), default=0) + 2
    return "\n".join(
        textwrap.fill(
            text,
            max(WIDTH, wide + 40),
            initial_indent=f"  {name:<{wide}}",
            subsequent_indent=f"  {'':<{wide}}",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, text in pairs
    )


def items(texts: Iterable[str]) -> str:
    """A list of sentences."""
    return "\n".join(
        textwrap.fill(text, WIDTH, initial_indent="  - ", subsequent_indent="    ")
        for text in texts
    )


def structure(facts: Iterable[Sequence[str]]) -> str:
    """Facts as (name, value, evidence, reason, place)."""
    return lines(
        (name, f"{value} ({evidence}): {reason}" + (f" ({place})" if place else ""))
        for name, value, evidence, reason, place in facts
    )


def decision(d: Decision) -> str:
    """The backend chosen, why, and how many do not take the model."""
    parts = [f"backend {d.chosen}", items((*d.why, *d.warnings, *d.notes))]
    if d.rejected:
        parts.append(f"{len(d.rejected)} others do not take this model: see `rejected`")
    return "\n".join(parts)


def certificate(c: Certificate) -> str:
    """The kind, what was recomputed, and what it says in words."""
    rows = [
        ("lower gap", residual(c.lower_gap)),
        ("lower stationarity", residual(c.lower_stationarity)),
        ("lower feasibility", residual(c.lower_feasibility)),
        ("upper feasibility", residual(c.upper_feasibility)),
        ("hypergradient norm", residual(c.hypergradient_norm)),
    ]
    if c.directional_check is not None:
        rows.append(("finite difference", f"{residual(c.directional_check)} relative mismatch"))
    return "\n".join(p for p in (f"certificate {c.kind}", lines(rows), items(c.reasons)) if p)


def result(r: Result) -> str:
    """Status, objectives, variables, reports, certificate."""
    head = f"{r.model}: {r.status} ({r.backend}, {r.iterations} iterations)"
    found = [("upper objective", number(r.F, 10))]
    found += [(f"objective of {name}", number(value, 10)) for name, value in r.f.items()]
    groups = [("", r.upper), *((f"{name}.", group) for name, group in r.lower.items()),
              ("", r.reports)]  # fmt: skip
    for prefix, group in groups:
        for name, value in group.items():
            array = np.asarray(value, dtype=float)
            size = f"[{shape(array)}]" if array.ndim else ""
            found.append((f"{prefix}{name}{size}", values(array)))
    parts = [head, textwrap.fill(r.message, WIDTH), lines(found)]
    if r.certificate is not None:
        parts.append(certificate(r.certificate))
    parts += [textwrap.fill(f"warning: {w}", WIDTH) for w in r.warnings]
    return "\n".join(p for p in parts if p)
