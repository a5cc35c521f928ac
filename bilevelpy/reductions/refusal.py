"""What a reformulation or a format cannot take: an error that shows its place in the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from bilevelpy.diagnostics.diagnostic import Diagnostic, diagnostic
from bilevelpy.diagnostics.render import render_full
from bilevelpy.errors import ExportError

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.program import Program


class Refused(ExportError):
    """An :class:`~bilevelpy.errors.ExportError` with its diagnostic; the text shows the place."""

    def __init__(self, found: Diagnostic, program: Program) -> None:
        self.diagnostic = found
        super().__init__(render_full(found, program.sources))


def refuse(
    program: Program,
    code: str,
    span: Span | None,
    label: str = "",
    *,
    hint: str | None = None,
    **values: str,
) -> Refused:
    """The error of that code, to be raised by the caller."""
    found = diagnostic(code, span, label, hint=hint, **cast("dict[str, Any]", values))
    return Refused(found, program)
