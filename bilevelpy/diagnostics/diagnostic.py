"""One message about a model: code, text, places, help."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bilevelpy.diagnostics.catalog import CATALOG
from bilevelpy.diagnostics.span import Span


class Severity(StrEnum):
    """How bad it is: an error stops the work, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Label:
    """A place in the source with a short text beside its underline."""

    span: Span
    text: str = ""


@dataclass(frozen=True, slots=True)
class Fix:
    """A machine-applicable edit: replace the text under ``span`` by ``replacement``."""

    title: str
    span: Span
    replacement: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A message with its code, its place and what to do about it."""

    code: str
    severity: Severity
    message: str
    primary: Label | None = None
    secondary: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    hint: str | None = None
    fix: Fix | None = None


def diagnostic(
    code: str,
    span: Span | None,
    label: str = "",
    *,
    secondary: tuple[Label, ...] = (),
    notes: tuple[str, ...] = (),
    hint: str | None = None,
    fix: Fix | None = None,
    **values: object,
) -> Diagnostic:
    """Fill the catalogue's template of ``code`` with ``values``.

    The sentence comes from the catalogue, the values and places from the caller.
    """
    entry = CATALOG[code]
    primary = Label(span, label) if span is not None else None
    return Diagnostic(
        code,
        Severity(entry.severity),
        entry.template.format(**values),
        primary,
        secondary,
        notes,
        hint,
        fix,
    )
