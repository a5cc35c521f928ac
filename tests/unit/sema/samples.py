"""The three models of the language's description, and the ways to check a text."""

from __future__ import annotations

from bilevelpy.diagnostics import Source
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.program import Program
from bilevelpy.sema import CheckResult, check
from tests.unit.syntax.samples import FIRMS, RIDGE, TOLL

__all__ = ["FIRMS", "RIDGE", "TOLL", "checked", "codes", "program", "reports"]


def checked(text: str) -> CheckResult:
    """Check a text that stands in no folder."""
    return check(Source("model.blv", text), loader=lambda path: Source(path, "# empty\n"))


def program(text: str) -> Program:
    """The program of a text that must have no errors."""
    result = checked(text)
    assert result.program is not None, result.diagnostics
    return result.program


def codes(text: str) -> list[str]:
    """Codes of all diagnostics of a text, in its order."""
    return [d.code for d in checked(text).diagnostics]


def reports(head: str, *expressions: str) -> list[Expr]:
    """The nodes of expressions in a model that starts with ``head``."""
    lines = [f"report r{k} = {e};" for k, e in enumerate(expressions)]
    made = program("\n".join([head, *lines]))
    return [made.reports[f"r{k}"].value for k in range(len(expressions))]
