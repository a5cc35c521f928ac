"""Diagnostics: spans, sources, messages and their renderers. Imports nothing of the package."""

from bilevelpy.diagnostics.catalog import CATALOG, Entry
from bilevelpy.diagnostics.diagnostic import Diagnostic, Fix, Label, Severity, diagnostic
from bilevelpy.diagnostics.source import Source
from bilevelpy.diagnostics.span import Span

__all__ = [
    "CATALOG",
    "Diagnostic",
    "Entry",
    "Fix",
    "Label",
    "Severity",
    "Source",
    "Span",
    "diagnostic",
]
